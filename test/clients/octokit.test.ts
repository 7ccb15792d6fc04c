import { Octokit, type RestEndpointMethodTypes } from '@octokit/rest'
import t, { type Test } from 'tap'
import { sealFor } from '../helper.ts'
import { failure, startForOctokit } from './octokit.ts'

type Client = InstanceType<typeof Octokit>

async function prepare(t: Test, options = {}) {
  const started = await startForOctokit(t, options)
  const { server, mona, baseUrl, log } = started
  const repositoryId = await server.createRepository(mona, 'web')
  const connect = (auth: string | undefined) => new Octokit({ baseUrl, log, ...(auth && { auth }) }) as Client
  return { ...started, repositoryId, connect, octokit: connect(started.token) }
}

t.test('a repository secret lives its whole life through Octokit', async (t) => {
  const { server, octokit, repositoryId, printed } = await prepare(t)
  const repository = { owner: 'mona', repo: 'web' }
  const { codespaces } = octokit.rest

  const { data: found } = await octokit.rest.repos.get(repository)
  t.equal(found.id, repositoryId)
  const { data: none } = await codespaces.listRepoSecrets(repository)
  t.same(none, { total_count: 0, secrets: [] })

  const { data: publicKey } = await codespaces.getRepoPublicKey(repository)
  t.type(publicKey.key_id, 'string')
  const secret = { ...repository, secret_name: 'db_url' }
  const put = (value: string) =>
    codespaces.createOrUpdateRepoSecret({
      ...secret,
      encrypted_value: sealFor(publicKey.key, value),
      key_id: publicKey.key_id
    })
  const created = await put('postgres://one')
  t.equal(created.status, 201)
  t.same(created.data, {})
  const updated = await put('postgres://two\nwith a second line ✓')
  t.equal(updated.status, 204)

  const shown = await codespaces.getRepoSecret(secret)
  t.equal(shown.status, 200)
  t.equal(shown.data.name, 'DB_URL')
  t.same(Object.keys(shown.data), ['name', 'created_at', 'updated_at'])
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  t.equal(
    (await server.reveal('repository', uid, 'DB_URL'))?.toString(),
    'postgres://two\nwith a second line ✓'
  )

  const { etag } = shown.headers
  const unchanged = await failure(
    t,
    codespaces.getRepoSecret({ ...secret, headers: { 'if-none-match': etag! } })
  )
  t.equal(unchanged.status, 304)

  t.equal((await codespaces.deleteRepoSecret(secret)).status, 204)
  const gone = await failure(t, codespaces.getRepoSecret(secret))
  t.equal(gone.status, 404)
  t.equal(
    gone.message,
    'Not Found - https://docs.github.com/rest/codespaces/repository-secrets#get-a-repository-secret'
  )
  t.notMatch(printed.join('\n'), /deprecat/i)
})

t.test('a user secret and its repositories live their whole life through Octokit', async (t) => {
  const { server, mona, octokit, repositoryId } = await prepare(t)
  const apiId = await server.createRepository(mona, 'api')
  const { codespaces } = octokit.rest
  const secret_name = 'TOKEN'
  const { data: publicKey } = await codespaces.getPublicKeyForAuthenticatedUser()
  const created = await codespaces.createOrUpdateSecretForAuthenticatedUser({
    secret_name,
    encrypted_value: sealFor(publicKey.key, 'one'),
    key_id: publicKey.key_id,
    selected_repository_ids: [repositoryId, String(apiId)]
  })
  t.equal(created.status, 201)
  const { data: shown } = await codespaces.getSecretForAuthenticatedUser({ secret_name })
  t.equal(shown.visibility, 'selected')

  const selected = async () => {
    const { data } = await codespaces.listRepositoriesForSecretForAuthenticatedUser({ secret_name })
    t.equal(data.total_count, data.repositories.length)
    return data.repositories.map(({ full_name }) => full_name)
  }
  t.same(await selected(), ['mona/web', 'mona/api'])
  const { data: followed } = await octokit.request(`GET ${shown.selected_repositories_url}`)
  t.equal(followed.total_count, 2, 'the URL in the answer works as it is')

  const one = { secret_name, repository_id: apiId }
  t.equal((await codespaces.removeRepositoryForSecretForAuthenticatedUser(one)).status, 204)
  t.same(await selected(), ['mona/web'])
  t.equal((await codespaces.addRepositoryForSecretForAuthenticatedUser(one)).status, 204)
  t.same(await selected(), ['mona/web', 'mona/api'])
  const set = await codespaces.setRepositoriesForSecretForAuthenticatedUser({
    secret_name,
    selected_repository_ids: [apiId]
  })
  t.equal(set.status, 204)
  t.same(await selected(), ['mona/api'])

  const { data: listed } = await codespaces.listSecretsForAuthenticatedUser()
  t.same(
    listed.secrets.map(({ name }) => name),
    ['TOKEN']
  )
  t.equal((await server.reveal('user', mona.uid, 'TOKEN'))?.toString(), 'one')
  t.equal((await codespaces.deleteSecretForAuthenticatedUser({ secret_name })).status, 204)
  t.equal((await codespaces.listSecretsForAuthenticatedUser()).data.total_count, 0)
})

t.test('paginate() follows the links through more than a hundred secrets', async (t) => {
  const { server, octokit, token } = await prepare(t, { maxSecrets: 200 })
  const repository = { owner: 'mona', repo: 'web' }
  const names = Array.from({ length: 107 }, (_, index) => `S${String(index).padStart(3, '0')}`)
  const path = '/repos/mona/web/codespaces/secrets'
  const body = await server.seal(path, token, 'value')
  for (const name of names) await server.request('PUT', `${path}/${name}`, { token, body })

  const namesOf = (secrets: { name: string }[]) => secrets.map(({ name }) => name)
  const { listRepoSecrets } = octokit.rest.codespaces
  t.same(namesOf(await octokit.paginate(listRepoSecrets, { ...repository, per_page: 100 })), names)
  t.same(namesOf(await octokit.paginate(listRepoSecrets, repository)), names, 'in pages of 30')
  const sizes: number[] = []
  type Page = RestEndpointMethodTypes['codespaces']['listRepoSecrets']['response']
  for await (const { data } of octokit.paginate.iterator(listRepoSecrets, { ...repository, per_page: 50 })) {
    sizes.push((data as unknown as Page['data']['secrets']).length)
  }
  t.same(sizes, [50, 50, 7])
})

t.test('paginate() follows the links of a user’s selected repositories', async (t) => {
  const { server, mona, octokit, token } = await prepare(t)
  const ids: number[] = []
  for (const name of ['a', 'b', 'c']) ids.push(await server.createRepository(mona, name))
  const path = '/user/codespaces/secrets'
  const body = { ...(await server.seal(path, token, 'value')), selected_repository_ids: ids }
  await server.request('PUT', `${path}/TOKEN`, { token, body })
  const repositories = (await octokit.paginate('GET /user/codespaces/secrets/{secret_name}/repositories', {
    secret_name: 'TOKEN',
    per_page: 1
  } as { secret_name: string })) as unknown as { id: number }[]
  t.same(
    repositories.map(({ id }) => id),
    ids
  )
})

t.test('what is refused arrives as an HttpError that explains itself', async (t) => {
  const { connect, octokit, server, token, printed } = await prepare(t)
  const secret = { owner: 'mona', repo: 'web', secret_name: 'TOKEN' }
  const { getRepoSecret, createOrUpdateRepoSecret } = octokit.rest.codespaces
  const docs = 'https://docs.github.com/rest/codespaces/repository-secrets#'

  const anonymous = await failure(t, connect(undefined).rest.codespaces.getRepoSecret(secret))
  t.equal(anonymous.status, 401)
  t.equal(anonymous.message, `Requires authentication - ${docs}get-a-repository-secret`)
  const wrong = await failure(t, connect('wrong').rest.codespaces.getRepoSecret(secret))
  t.equal(wrong.message, 'Bad credentials - https://docs.github.com/rest')

  const missing = await failure(t, getRepoSecret({ ...secret, repo: 'a b/c' }))
  t.equal(missing.status, 404)
  t.match(missing.response.headers['x-github-request-id'], /^[0-9A-F:]+$/)
  t.ok(
    printed.some((line) => line.includes(missing.response.headers['x-github-request-id']!)),
    'the log names the request'
  )

  const dropped = await failure(
    t,
    createOrUpdateRepoSecret({ ...secret, encrypted_value: undefined!, key_id: '1' })
  )
  t.equal(dropped.status, 422, 'a value that the client dropped')
  t.match(dropped.message, /^Invalid request\.\n\n"encrypted_value" wasn't supplied\./)

  const sealed = await server.seal('/repos/mona/web/codespaces/secrets', token, 'value')
  const stale = await failure(t, createOrUpdateRepoSecret({ ...secret, ...sealed, key_id: '1' }))
  t.equal(stale.status, 422)
  t.ok(stale.message.startsWith('Bad request - validation failed due to an improperly encrypted secret: {'))
  t.ok(stale.message.includes('"field":"key_id"'))
  t.ok(stale.message.endsWith(` - ${docs}create-or-update-a-repository-secret`))

  const version = await failure(
    t,
    getRepoSecret({ ...secret, headers: { 'x-github-api-version': '1999-01-01' } })
  )
  t.equal(version.status, 400)
  t.same(Object.keys(version.response.data), ['message', 'documentation_url', 'status'])
})

t.test('GraphQL through Octokit goes beside the REST API', async (t) => {
  const { server, mona, octokit, repositoryId, connect } = await prepare(t)
  await server.createRepository(mona, 'other')
  const query =
    'query($name:String!){viewer{login} repository(owner:"mona",name:$name){databaseId isPrivate}}'
  t.same(await octokit.graphql(query, { name: 'web' }), {
    viewer: { login: 'mona' },
    repository: { databaseId: repositoryId, isPrivate: true }
  })
  const partial = await octokit.graphql(query, { name: 'none' }).catch((error) => error)
  t.match(partial, {
    name: 'GraphqlResponseError',
    message: /Could not resolve to a Repository with the name 'mona\/none'\./,
    data: { viewer: { login: 'mona' }, repository: null },
    errors: [{ type: 'NOT_FOUND', path: ['repository'] }]
  })
  const wrong = await failure(t, connect('wrong').graphql('{viewer{login}}'))
  t.equal(wrong.status, 401)
  t.equal(wrong.message, 'Bad credentials - https://docs.github.com/rest')
})
