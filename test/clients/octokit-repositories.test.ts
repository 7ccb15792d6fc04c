import { Octokit } from '@octokit/rest'
import t, { type Test } from 'tap'
import { sealFor } from '../helper.ts'
import { failure, startForOctokit } from './octokit.ts'

// Secrets of Actions and Dependabot in a repository, and of its deployment environments, through Octokit.

async function prepare(t: Test) {
  const started = await startForOctokit(t)
  const { server, mona, baseUrl, log, token } = started
  const acme = await server.createOrganization('acme', mona)
  const repositoryId = await server.createRepository(acme, 'web')
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  return { ...started, repositoryId, uid, octokit: new Octokit({ baseUrl, log, auth: token }) }
}

const web = { owner: 'acme', repo: 'web' }
const secret_name = 'TOKEN'
const names = (list: readonly { name: string }[]) => list.map(({ name }) => name)

for (const app of ['actions', 'dependabot'] as const) {
  t.test(`a repository's ${app} secret lives its whole life through Octokit`, async (t) => {
    const { server, octokit, uid, printed } = await prepare(t)
    const api = octokit.rest[app] as typeof octokit.rest.actions
    t.same((await api.listRepoSecrets(web)).data, { total_count: 0, secrets: [] })
    const { data: publicKey } = await api.getRepoPublicKey(web)
    const put = (value: string) =>
      api.createOrUpdateRepoSecret({
        ...web,
        secret_name,
        encrypted_value: sealFor(publicKey.key, value),
        key_id: publicKey.key_id
      })
    const created = await put('one')
    t.equal(created.status, 201)
    t.same(created.data, {})
    t.equal((await put('two')).status, 204)
    t.equal((await server.reveal('repository', uid, secret_name, app))?.toString(), 'two')
    const { data: shown } = await api.getRepoSecret({ ...web, secret_name })
    t.same(Object.keys(shown), ['name', 'created_at', 'updated_at'])
    t.same(names(await octokit.paginate(api.listRepoSecrets, { ...web, per_page: 1 })), [secret_name])

    const { data: other } = await octokit.rest.codespaces.listRepoSecrets(web)
    t.equal(other.total_count, 0, 'Codespaces has none')
    const sealedElsewhere = await failure(
      t,
      octokit.rest.codespaces.createOrUpdateRepoSecret({
        ...web,
        secret_name,
        encrypted_value: sealFor(publicKey.key, 'x'),
        key_id: publicKey.key_id
      })
    )
    t.equal(sealedElsewhere.status, 422, 'nor takes what was sealed for another app')

    t.equal((await api.deleteRepoSecret({ ...web, secret_name })).status, 204)
    t.equal((await failure(t, api.getRepoSecret({ ...web, secret_name }))).status, 404)
    t.notMatch(printed.join('\n'), /deprecat/i)
  })
}

t.test("a deployment environment's secrets, under any name, through Octokit", async (t) => {
  const { server, octokit } = await prepare(t)
  const { actions, repos } = octokit.rest
  for (const environment_name of ['production', 'review/a b', 'größe%']) {
    const environment = { ...web, environment_name }
    t.equal((await failure(t, actions.getEnvironmentPublicKey(environment))).status, 404)
    const { data: made } = await repos.createOrUpdateEnvironment(environment)
    t.equal(made.name, environment_name)
    const { data: publicKey } = await actions.getEnvironmentPublicKey(environment)
    const put = (value: string) =>
      actions.createOrUpdateEnvironmentSecret({
        ...environment,
        secret_name,
        encrypted_value: sealFor(publicKey.key, value),
        key_id: publicKey.key_id
      })
    t.equal((await put('one')).status, 201)
    t.equal((await put('two')).status, 204)
    const { uid } = await server.db
      .selectFrom('deployment_environments')
      .select('uid')
      .where('name', '=', environment_name)
      .executeTakeFirstOrThrow()
    t.equal((await server.reveal('deployment-environment', uid, secret_name, 'actions'))?.toString(), 'two')
    t.same(names(await octokit.paginate(actions.listEnvironmentSecrets, environment)), [secret_name])
    const { data: shown } = await actions.getEnvironmentSecret({ ...environment, secret_name })
    t.same(Object.keys(shown), ['name', 'created_at', 'updated_at'])
    t.equal((await actions.deleteEnvironmentSecret({ ...environment, secret_name })).status, 204)
    t.equal((await failure(t, actions.getEnvironmentSecret({ ...environment, secret_name }))).status, 404)
  }
  const { data: all } = await repos.getAllEnvironments(web)
  t.same(names(all.environments ?? []).sort(), ['größe%', 'production', 'review/a b'])
  for (const { name } of all.environments ?? []) {
    t.equal((await repos.deleteAnEnvironment({ ...web, environment_name: name })).status, 204)
  }
  t.equal((await repos.getAllEnvironments(web)).data.total_count, 0)
})

t.test("a repository shows which of the organization's secrets it receives", async (t) => {
  const { server, octokit, token, repositoryId } = await prepare(t)
  const path = '/orgs/acme/actions/secrets'
  for (const [name, rest] of [
    ['EVERYONE', { visibility: 'all' }],
    ['PRIVATE', { visibility: 'private' }],
    ['CHOSEN', { visibility: 'selected', selected_repository_ids: [repositoryId] }],
    ['OTHERS', { visibility: 'selected', selected_repository_ids: [] }]
  ] as const) {
    const body = { ...(await server.seal(path, token, 'x')), ...rest }
    await server.request('PUT', `${path}/${name}`, { token, body })
  }
  const received = await octokit.paginate(octokit.rest.actions.listRepoOrganizationSecrets, {
    ...web,
    per_page: 2
  })
  t.same(names(received), ['CHOSEN', 'EVERYONE', 'PRIVATE'])
  t.same(Object.keys(received[0]!), ['name', 'created_at', 'updated_at'])
})
