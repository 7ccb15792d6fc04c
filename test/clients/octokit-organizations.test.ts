import { Octokit } from '@octokit/rest'
import t, { type Test } from 'tap'
import { sealFor } from '../helper.ts'
import { failure, startForOctokit } from './octokit.ts'

// Organization secrets through Octokit, for each app that has methods for them, and for agents by path.

async function prepare(t: Test) {
  const started = await startForOctokit(t)
  const { server, mona, baseUrl, log, token } = started
  const acme = await server.createOrganization('acme', mona)
  const webId = await server.createRepository(acme, 'web')
  const apiId = await server.createRepository(acme, 'api', { private: false })
  const octokit = new Octokit({ baseUrl, log, auth: token })
  return { ...started, acme, webId, apiId, octokit }
}

const org = 'acme'
const secret_name = 'TOKEN'
const names = (list: readonly { name: string }[]) => list.map(({ name }) => name)

for (const app of ['codespaces', 'actions', 'dependabot'] as const) {
  t.test(`an organization's ${app} secret lives its whole life through Octokit`, async (t) => {
    const { server, acme, octokit, webId, apiId, printed } = await prepare(t)
    // The three have the same nine methods; one type for all of them would not describe any.
    const api = octokit.rest[app] as typeof octokit.rest.codespaces
    t.same((await api.listOrgSecrets({ org })).data, { total_count: 0, secrets: [] })

    const { data: publicKey } = await api.getOrgPublicKey({ org })
    t.same(Object.keys(publicKey), ['key_id', 'key'])
    const put = (value: string, rest: { visibility: 'all' | 'private' | 'selected'; ids?: number[] }) =>
      api.createOrUpdateOrgSecret({
        org,
        secret_name,
        encrypted_value: sealFor(publicKey.key, value),
        key_id: publicKey.key_id,
        visibility: rest.visibility,
        ...(rest.ids && { selected_repository_ids: rest.ids })
      })
    const created = await put('one', { visibility: 'all' })
    t.equal(created.status, 201)
    t.same(created.data, {})
    t.equal((await put('two', { visibility: 'private' })).status, 204)
    const { data: hidden } = await api.getOrgSecret({ org, secret_name })
    t.same(Object.keys(hidden), ['name', 'created_at', 'updated_at', 'visibility'])
    t.equal(hidden.visibility, 'private')

    const one = { org, secret_name, repository_id: apiId }
    for (const attempt of [
      () => api.addSelectedRepoToOrgSecret(one),
      () => api.removeSelectedRepoFromOrgSecret(one),
      () => api.setSelectedReposForOrgSecret({ org, secret_name, selected_repository_ids: [apiId] })
    ]) {
      const refused = await failure(t, attempt())
      t.equal(refused.status, 409)
      t.match(refused.message, /private.*selected/, 'it says what is, and what to do')
    }

    t.equal((await put('three', { visibility: 'selected', ids: [webId] })).status, 204)
    const { data: shown } = await api.getOrgSecret({ org, secret_name })
    t.equal(shown.visibility, 'selected')
    const selected = async () => {
      const { data } = await api.listSelectedReposForOrgSecret({ org, secret_name })
      t.equal(data.total_count, data.repositories.length)
      return names(data.repositories)
    }
    t.same(await selected(), ['web'])
    const { data: followed } = await octokit.request(`GET ${shown.selected_repositories_url}`)
    t.same(names(followed.repositories), ['web'], 'the URL in the answer works as it is')
    t.equal((await api.addSelectedRepoToOrgSecret(one)).status, 204)
    t.same(await selected(), ['web', 'api'])
    t.equal((await api.removeSelectedRepoFromOrgSecret({ ...one, repository_id: webId })).status, 204)
    t.same(await selected(), ['api'])
    t.equal(
      (await api.setSelectedReposForOrgSecret({ org, secret_name, selected_repository_ids: [webId, apiId] }))
        .status,
      204
    )
    t.same(
      await octokit.paginate(
        api.listSelectedReposForOrgSecret,
        { org, secret_name, per_page: 1 },
        ({ data }) => names(data as unknown as { name: string }[])
      ),
      ['web', 'api'],
      'page by page'
    )
    const pages: string[][] = []
    for await (const { data } of octokit.paginate.iterator(api.listSelectedReposForOrgSecret, {
      org,
      secret_name,
      per_page: 1
    })) {
      pages.push(names(data as unknown as { name: string }[]))
    }
    t.same(pages, [['web'], ['api']])

    t.equal((await server.reveal('organization', acme.uid, secret_name, app))?.toString(), 'three')
    t.same(names(await octokit.paginate(api.listOrgSecrets, { org, per_page: 1 })), [secret_name])
    t.equal((await api.deleteOrgSecret({ org, secret_name })).status, 204)
    const gone = await failure(t, api.getOrgSecret({ org, secret_name }))
    t.equal(gone.status, 404)
    t.match(gone.message, /^Not Found - https:\/\/docs\.github\.com\/rest\/.*#get-an-organization-secret$/)
    t.notMatch(printed.join('\n'), /deprecat/i)
  })
}

t.test('the secrets of agents, for which Octokit has no methods yet, by path', async (t) => {
  const { server, acme, octokit, webId } = await prepare(t)
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', webId)
    .executeTakeFirstOrThrow()
  for (const [base, kind, ownerUid, rest] of [
    [
      '/orgs/{org}/agents/secrets',
      'organization',
      acme.uid,
      { visibility: 'selected', selected_repository_ids: [webId] }
    ],
    ['/repos/{org}/web/agents/secrets', 'repository', uid, {}]
  ] as const) {
    const { data: publicKey } = await octokit.request(`GET ${base}/public-key`, { org })
    const created = await octokit.request(`PUT ${base}/{secret_name}`, {
      org,
      secret_name,
      encrypted_value: sealFor(publicKey.key, 'for agents'),
      key_id: publicKey.key_id,
      ...rest
    })
    t.equal(created.status, 201)
    t.equal((await server.reveal(kind, ownerUid, secret_name, 'agents'))?.toString(), 'for agents')
    t.same(names((await octokit.request(`GET ${base}`, { org })).data.secrets), [secret_name])
  }
  const one = '/orgs/{org}/agents/secrets/{secret_name}'
  const { data } = await octokit.request(`GET ${one}/repositories`, { org, secret_name })
  t.same(names(data.repositories), ['web'])
  const received = await octokit.request('GET /repos/{org}/web/agents/organization-secrets', { org })
  t.same(names(received.data.secrets), [secret_name])
  t.equal((await octokit.request(`DELETE ${one}`, { org, secret_name })).status, 204)
  t.equal((await failure(t, octokit.request(`GET ${one}`, { org, secret_name }))).status, 404)
})

t.test('who may not have an organization secret is told so by an HttpError', async (t) => {
  const { server, mona, baseUrl, log } = await prepare(t)
  const connect = (auth: string) => new Octokit({ baseUrl, log, auth }).rest.codespaces
  const narrow = connect(await server.createToken(mona, { scopes: ['repo', 'codespace', 'read:org'] }))
  const refused = await failure(t, narrow.listOrgSecrets({ org }))
  t.equal(refused.status, 403)
  t.equal(refused.response.headers['x-accepted-oauth-scopes'], 'admin:org')
  t.equal(refused.response.headers['x-oauth-scopes'], 'codespace, read:org, repo')
  const hubot = await server.createUser('hubot')
  const stranger = connect(await server.createToken(hubot, { scopes: ['admin:org'] }))
  t.equal((await failure(t, stranger.listOrgSecrets({ org }))).status, 404)
})
