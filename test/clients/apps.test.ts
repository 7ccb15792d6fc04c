import { createAppAuth } from '@octokit/auth-app'
import { Octokit } from '@octokit/rest'
import { App } from 'octokit'
import t from 'tap'
import { asAdmin, installTestApp, registerTestApp, seconds, signJwt } from '../github-app.ts'
import { sealFor, startTestServer } from '../helper.ts'

// GitHub's own clients for Apps, unchanged, against a server that listens.

const PERMISSIONS = {
  codespaces_secrets: 'write',
  organization_codespaces_secrets: 'write',
  administration: 'read'
}
const QUIET = { debug() {}, info() {}, warn() {}, error() {} }

async function makeWorld(t: Parameters<typeof startTestServer>[0]) {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  for (const name of ['web', 'api', 'hidden']) await server.createRepository(acme, name)
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS)
  const installationId = await installTestApp(server, app, 'acme', ['web', 'api'])
  const baseUrl = `${await server.listen()}/api/v3`
  const octokit = (auth: object = {}) =>
    new Octokit({
      baseUrl,
      log: QUIET,
      authStrategy: createAppAuth,
      auth: { appId: app.id, privateKey: app.pem, ...auth }
    })
  return { server, app, installationId, baseUrl, octokit }
}

/** The status and the message of the error that a call ends with. */
async function errorOf(call: Promise<unknown>): Promise<[status: number, message: string]> {
  try {
    await call
  } catch (error) {
    const { name, status, message } = error as Error & { status: number }
    if (name === 'HttpError') return [status, message]
    throw error
  }
  throw new Error('there was no error')
}

t.test('@octokit/auth-app signs as the App, by its id and by its client id', async (t) => {
  const { app, installationId, octokit } = await makeWorld(t)
  for (const appId of [app.id, String(app.id), app.clientId]) {
    const { rest, paginate } = octokit({ appId })
    const { data } = await rest.apps.getAuthenticated()
    t.equal(data?.slug, 'octo-app', String(appId))
    const installations = await paginate(rest.apps.listInstallations, { per_page: 1 })
    t.same(
      installations.map(({ id }) => id),
      [installationId]
    )
  }
  const { rest } = octokit()
  t.equal((await rest.apps.getRepoInstallation({ owner: 'acme', repo: 'web' })).data.id, installationId)
  t.equal((await rest.apps.getOrgInstallation({ org: 'acme' })).data.id, installationId)
  t.equal((await rest.apps.getUserInstallation({ username: 'acme' })).data.id, installationId)
  t.equal((await rest.apps.getInstallation({ installation_id: installationId })).data.app_id, app.id)
  t.same((await errorOf(rest.apps.getRepoInstallation({ owner: 'acme', repo: 'hidden' })))[0], 404)
})

t.test('it mints tokens by itself, and calls with them', async (t) => {
  const { server, octokit, installationId } = await makeWorld(t)
  const { rest } = octokit({ installationId })
  const { data: list } = await rest.apps.listReposAccessibleToInstallation()
  t.same(
    list.repositories.map(({ name }) => name),
    ['web', 'api']
  )
  const repo = { owner: 'acme', repo: 'web' }
  const { data: key } = await rest.codespaces.getRepoPublicKey(repo)
  const put = await rest.codespaces.createOrUpdateRepoSecret({
    ...repo,
    secret_name: 'TOKEN',
    key_id: key.key_id,
    encrypted_value: sealFor(key.key, 'value')
  })
  t.equal(put.status, 201)
  t.equal((await rest.codespaces.getRepoSecret({ ...repo, secret_name: 'TOKEN' })).data.name, 'TOKEN')
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('name', '=', 'web')
    .executeTakeFirstOrThrow()
  t.equal(String(await server.reveal('repository', uid, 'TOKEN')), 'value')

  const { data: orgKey } = await rest.codespaces.getOrgPublicKey({ org: 'acme' })
  const { data: web } = await rest.repos.get(repo)
  const shared = await rest.codespaces.createOrUpdateOrgSecret({
    org: 'acme',
    secret_name: 'SHARED',
    key_id: orgKey.key_id,
    encrypted_value: sealFor(orgKey.key, 'value'),
    visibility: 'selected',
    selected_repository_ids: [web.id]
  })
  t.equal(shared.status, 201)
  const selected = await rest.codespaces.listSelectedReposForOrgSecret({ org: 'acme', secret_name: 'SHARED' })
  t.equal(selected.data.total_count, 1)
  t.equal((await rest.codespaces.deleteRepoSecret({ ...repo, secret_name: 'TOKEN' })).status, 204)

  const refused = await errorOf(rest.codespaces.listSecretsForAuthenticatedUser())
  t.equal(refused[0], 403)
  t.match(refused[1], /Resource not accessible by integration/)
  t.equal((await errorOf(rest.codespaces.listRepoSecrets({ owner: 'acme', repo: 'hidden' })))[0], 404)
})

t.test('it keeps a token, refreshes it when asked, and narrows it', async (t) => {
  const { server, octokit, installationId, baseUrl } = await makeWorld(t)
  const { auth } = octokit({ installationId })
  const ask = (options: object = {}) =>
    auth({ type: 'installation', ...options }) as Promise<{
      token: string
      permissions: Record<string, string>
      repositoryIds?: number[]
      repositorySelection: string
      expiresAt: string
    }>
  const first = await ask()
  t.equal((await ask()).token, first.token, 'kept')
  const fresh = await ask({ refresh: true })
  t.not(fresh.token, first.token)
  t.equal(first.repositorySelection, 'selected')
  t.ok(Date.parse(first.expiresAt) > Date.now() + 3_500_000)

  const narrow = await ask({ repositoryNames: ['web'], permissions: { codespaces_secrets: 'write' } })
  t.same(narrow.permissions, { codespaces_secrets: 'write', metadata: 'read' })
  t.equal(narrow.repositoryIds?.length, 1)
  const asNarrow = new Octokit({ baseUrl, auth: narrow.token, log: QUIET })
  t.equal((await asNarrow.rest.codespaces.listRepoSecrets({ owner: 'acme', repo: 'web' })).status, 200)
  t.equal((await errorOf(asNarrow.rest.repos.get({ owner: 'acme', repo: 'api' })))[0], 404)
  t.equal((await errorOf(asNarrow.rest.codespaces.listOrgSecrets({ org: 'acme' })))[0], 403)

  const beyond = await errorOf(ask({ permissions: { members: 'write' } }))
  t.equal(beyond[0], 422)
  t.match(beyond[1], /The permissions requested are not granted to this installation\./)
  const unknown = await errorOf(ask({ repositoryNames: ['hidden'] }))
  t.equal(unknown[0], 422)
  t.match(unknown[1], /There is at least one repository that does not exist or is not accessible/)

  t.equal((await asNarrow.rest.apps.revokeInstallationAccessToken()).status, 204)
  t.equal((await errorOf(asNarrow.rest.apps.listReposAccessibleToInstallation()))[0], 401)
  const asFresh = new Octokit({ baseUrl, auth: fresh.token, log: QUIET })
  t.equal((await asFresh.rest.apps.listReposAccessibleToInstallation()).status, 200)
  await asAdmin(server, 'PUT', `/admin/installations/${installationId}/suspended`)
  t.match(await errorOf(ask({ refresh: true })), [403, /This installation has been suspended/])
})

t.test('it corrects for a clock that is wrong, by the words and the date of the answer', async (t) => {
  const { app, octokit } = await makeWorld(t)
  const now = seconds()
  const differences: unknown[] = []
  const { rest } = octokit({
    privateKey: undefined,
    async createJwt(_id: string, timeDifference?: number) {
      differences.push(timeDifference)
      const wrong = timeDifference === undefined ? 3600 : 0
      const jwt = await signJwt(app, { iat: now + wrong, exp: now + wrong + 600 })
      return { jwt, expiresAt: new Date((now + 600) * 1000).toISOString() }
    }
  })
  t.equal((await rest.apps.getAuthenticated()).data?.slug, 'octo-app')
  t.equal(differences.length, 2)
  t.equal(typeof differences[1], 'number')
})

t.test('the App of the package octokit walks over all that it has', async (t) => {
  const { server, app, baseUrl } = await makeWorld(t)
  await server.createRepository(server.admin.account, 'notes')
  await installTestApp(server, app, 'root')
  const walker = new App({
    appId: app.id,
    privateKey: app.pem,
    log: QUIET,
    Octokit: Octokit.defaults({ baseUrl, log: QUIET }) as never
  })
  const seen: string[] = []
  for await (const { octokit, repository } of walker.eachRepository.iterator()) {
    const { data } = await octokit.request('GET /repos/{owner}/{repo}/codespaces/secrets', {
      owner: repository.owner.login,
      repo: repository.name
    })
    seen.push(`${repository.full_name} ${data.total_count}`)
  }
  t.same(seen, ['acme/web 0', 'acme/api 0', 'root/notes 0'])
})
