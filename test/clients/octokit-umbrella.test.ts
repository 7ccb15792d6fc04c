import { Octokit, RequestError } from 'octokit'
import t, { type Test } from 'tap'
import { sealFor } from '../helper.ts'
import { startForOctokit } from './octokit.ts'

// The package `octokit` waits and tries again by itself, on what servers answer: it shall have no cause here.

async function prepare(t: Test) {
  const started = await startForOctokit(t)
  const { server, mona, baseUrl, log, token } = started
  const acme = await server.createOrganization('acme', mona)
  const webId = await server.createRepository(acme, 'web')
  const connect = (auth: string, options = {}) => new Octokit({ baseUrl, log, auth, ...options })
  return { ...started, acme, webId, connect, octokit: connect(token) }
}

const web = { owner: 'acme', repo: 'web' }
const secret_name = 'TOKEN'

async function failure(t: Test, work: Promise<unknown>): Promise<RequestError> {
  const error = await work.then(
    () => t.fail('refused'),
    (reason) => reason
  )
  t.ok(error instanceof RequestError)
  return error as RequestError
}

t.test('what succeeds is asked once', async (t) => {
  const { server, mona, acme, webId, octokit, requests, printed } = await prepare(t)
  const { codespaces, users, repos, orgs } = octokit.rest
  t.equal((await users.getAuthenticated()).data.login, 'mona')
  t.equal((await repos.get(web)).data.id, webId)
  t.equal((await orgs.get({ org: 'acme' })).data.login, 'acme')
  t.same(requests(), ['GET /api/v3/user', 'GET /api/v3/repos/acme/web', 'GET /api/v3/orgs/acme'])

  const { data: userKey } = await codespaces.getPublicKeyForAuthenticatedUser()
  const { status } = await codespaces.createOrUpdateSecretForAuthenticatedUser({
    secret_name,
    encrypted_value: sealFor(userKey.key, 'of mona'),
    key_id: userKey.key_id,
    selected_repository_ids: [String(webId)]
  })
  t.equal(status, 201)
  const { data: repoKey } = await codespaces.getRepoPublicKey(web)
  await codespaces.createOrUpdateRepoSecret({
    ...web,
    secret_name,
    encrypted_value: sealFor(repoKey.key, 'of web'),
    key_id: repoKey.key_id
  })
  const { data: orgKey } = await codespaces.getOrgPublicKey({ org: 'acme' })
  await codespaces.createOrUpdateOrgSecret({
    org: 'acme',
    secret_name,
    encrypted_value: sealFor(orgKey.key, 'of acme'),
    key_id: orgKey.key_id,
    visibility: 'selected'
  })
  const one = { org: 'acme', secret_name, repository_id: webId }
  t.equal((await codespaces.addSelectedRepoToOrgSecret(one)).status, 204)
  t.equal(requests().length, 7)
  t.equal((await server.reveal('user', mona.uid, secret_name))?.toString(), 'of mona')
  t.equal((await server.reveal('organization', acme.uid, secret_name))?.toString(), 'of acme')

  for (const method of [
    octokit.paginate(codespaces.listSecretsForAuthenticatedUser),
    octokit.paginate(codespaces.listRepoSecrets, web),
    octokit.paginate(codespaces.listOrgSecrets, { org: 'acme' })
  ]) {
    t.same(
      (await method).map(({ name }) => name),
      [secret_name]
    )
  }
  const iterator = octokit.paginate.iterator(codespaces.listSelectedReposForOrgSecret, {
    ...one,
    per_page: 1
  })
  for await (const { data } of iterator) {
    t.same(
      (data as unknown as { name: string }[]).map(({ name }) => name),
      ['web']
    )
  }
  t.equal(requests().length, 4)
  t.same(printed, [], 'no warning of quotas or deprecations')
})

t.test('reads that are asked for together are all answered, without a word of quotas', async (t) => {
  const { octokit, requests, printed } = await prepare(t)
  const answers = await Promise.all(
    Array.from({ length: 100 }, () => octokit.rest.codespaces.getRepoPublicKey(web))
  )
  t.equal(new Set(answers.map(({ data }) => data.key)).size, 1)
  t.equal(requests().length, 100)
  t.same(printed, [])
})

t.test('what is refused for good is asked once, too', async (t) => {
  const { server, mona, connect, octokit, token, requests } = await prepare(t)
  const { codespaces } = octokit.rest
  const sealed = await server.seal('/repos/acme/web/codespaces/secrets', token, 'value')
  await server.request('PUT', `/repos/acme/web/codespaces/secrets/${secret_name}`, { token, body: sealed })
  const { headers } = await codespaces.getRepoSecret({ ...web, secret_name })
  const narrow = connect(await server.createToken(mona, { scopes: ['repo'] })).rest.codespaces
  requests()
  for (const [expected, attempt] of [
    [
      304,
      () => codespaces.getRepoSecret({ ...web, secret_name, headers: { 'if-none-match': headers.etag! } })
    ],
    [400, () => codespaces.listRepoSecrets({ ...web, headers: { 'x-github-api-version': '1999-01-01' } })],
    [401, () => connect('wrong').rest.codespaces.listRepoSecrets(web)],
    [403, () => narrow.listSecretsForAuthenticatedUser()],
    [404, () => codespaces.getRepoSecret({ ...web, secret_name: 'NOTHING' })],
    [404, () => codespaces.listOrgSecrets({ org: 'nobody' })],
    [422, () => codespaces.createOrUpdateRepoSecret({ ...web, secret_name: '1A', ...sealed })],
    [422, () => codespaces.createOrUpdateRepoSecret({ ...web, secret_name, ...sealed, key_id: '1' })]
  ] as const) {
    const { status, response } = await failure(t, attempt())
    t.equal(status, expected)
    t.equal(response?.headers['x-ratelimit-remaining'], undefined)
    t.equal(requests().length, 1, `${expected} is final`)
  }
})

t.test('a conflict is asked four times, unless the caller forbids', async (t) => {
  const { server, webId, connect, token, requests } = await prepare(t)
  const path = '/orgs/acme/codespaces/secrets'
  const body = { ...(await server.seal(path, token, 'x')), visibility: 'all' }
  await server.request('PUT', `${path}/${secret_name}`, { token, body })
  const { codespaces } = connect(token, { retry: { retryAfterBaseValue: 1 } }).rest
  const one = { org: 'acme', secret_name, repository_id: webId }
  const refused = await failure(t, codespaces.addSelectedRepoToOrgSecret(one))
  t.equal(refused.status, 409)
  t.equal(requests().length, 4, 'the client takes a conflict for a passing one')
  const final = await failure(t, codespaces.addSelectedRepoToOrgSecret({ ...one, request: { retries: 0 } }))
  t.equal(final.status, 409)
  t.match(final.message, /visibility/)
  t.equal(requests().length, 1)
})

t.test('octokit.graphql asks who one is and what a repository is called', async (t) => {
  const { octokit, webId, requests } = await prepare(t)
  t.same(await octokit.graphql('query { viewer { login } }'), { viewer: { login: 'mona' } })
  t.same(
    await octokit.graphql(
      'query($owner: String!, $name: String!) { repository(owner: $owner, name: $name) { databaseId nameWithOwner } }',
      { owner: 'acme', name: 'web' }
    ),
    { repository: { databaseId: webId, nameWithOwner: 'acme/web' } }
  )
  t.same(requests(), ['POST /api/graphql', 'POST /api/graphql'])
  const missing = await octokit
    .graphql('query { one: repository(owner: "acme", name: "nothing") { id } }')
    .catch((error) => error)
  t.match(missing, {
    name: 'GraphqlResponseError',
    data: { one: null },
    errors: [
      {
        type: 'NOT_FOUND',
        path: ['one'],
        message: "Could not resolve to a Repository with the name 'acme/nothing'."
      }
    ]
  })
  t.same(requests(), ['POST /api/graphql'])
})
