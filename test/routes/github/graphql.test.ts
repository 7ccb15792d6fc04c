import { buildClientSchema, getIntrospectionQuery, type IntrospectionQuery } from 'graphql'
import pg from 'pg'
import t, { type Test } from 'tap'
import { makeToken } from '../../../src/auth/token.ts'
import { startTestServer, type TestRequest } from '../../helper.ts'
import { isRefusal } from './refusal.ts'

/** What `introspectionFromSchema` asks for: all that there is. */
const WHOLE = {
  specifiedByUrl: true,
  directiveIsRepeatable: true,
  schemaDescription: true,
  inputValueDeprecation: true,
  experimentalDirectiveDeprecation: true,
  oneOf: true
}

const server = await startTestServer(t)

/** A user of this name with a token, and how to ask with it. */
async function join(t: Test, login: string) {
  const account = await server.createUser(login)
  const token = await server.createToken(account, { scopes: ['repo'] })
  const post = (body: unknown, request: TestRequest = {}) =>
    server.request('POST', '/graphql', { token, body, ...request })
  return {
    account,
    token,
    post,
    /** the answer to a query that is answered with 200 */
    async ask(query: string, parameters: object = {}, request: TestRequest = {}) {
      const response = await post({ query, ...parameters }, request)
      t.equal(response.statusCode, 200, query.slice(0, 80))
      t.equal(response.headers['content-type'], 'application/json; charset=utf-8')
      return response.json()
    }
  }
}

t.test('viewer has what was asked for, and nothing else', async (t) => {
  const { account: mona, ask, post } = await join(t, 'mona')
  await server.db
    .updateTable('accounts')
    .set({ email: 'mona@x', name: 'Mona' })
    .where('id', '=', mona.id)
    .execute()
  const response = await post({ query: 'query UserCurrent{viewer{login}}' })
  t.equal(response.body, '{"data":{"viewer":{"login":"mona"}}}', 'gh decodes it strictly')
  const { node_id } = (await server.request('GET', '/users/mona', { token: server.admin.token })).json()
  t.same(await ask('{viewer{__typename login id databaseId name email isViewer isSiteAdmin url}}'), {
    data: {
      viewer: {
        __typename: 'User',
        login: 'mona',
        id: node_id,
        databaseId: mona.id,
        name: 'Mona',
        email: 'mona@x',
        isViewer: true,
        isSiteAdmin: false,
        url: 'http://coffer.test/mona'
      }
    }
  })
})

t.test('a repository is told as the REST API tells it', async (t) => {
  const { account: paula, token, ask } = await join(t, 'paula')
  const acme = await server.createOrganization('acme', paula)
  await server.createRepository(paula, 'web')
  await server.createRepository(acme, 'open', { private: false })
  const rest = async (path: string) => (await server.request('GET', path, { token })).json()
  const fields = `
    id databaseId name nameWithOwner isPrivate visibility description createdAt updatedAt pushedAt url sshUrl
    viewerPermission viewerCanAdminister isFork isArchived isTemplate isInOrganization forkCount
    stargazerCount hasIssuesEnabled homepageUrl mirrorUrl resourcePath defaultBranchRef{name} parent{id}
    owner{__typename id login url avatarUrl ...on User{databaseId}...on Organization{number:databaseId}}`
  for (const name of ['paula/web', 'acme/open']) {
    const [owner, repo] = name.split('/')
    const { repository } = (await ask(`{repository(owner:"${owner}",name:"${repo}"){${fields}}}`)).data
    const expected = await rest(`/repos/${name}`)
    const { type, id, node_id, login, html_url, avatar_url } = expected.owner
    t.same(repository, {
      id: expected.node_id,
      databaseId: expected.id,
      name: expected.name,
      nameWithOwner: expected.full_name,
      isPrivate: expected.private,
      visibility: expected.visibility.toUpperCase(),
      description: expected.description,
      createdAt: expected.created_at,
      updatedAt: expected.updated_at,
      pushedAt: expected.pushed_at,
      url: expected.html_url,
      sshUrl: expected.ssh_url,
      viewerPermission: expected.role_name.toUpperCase(),
      viewerCanAdminister: expected.permissions.admin,
      isFork: expected.fork,
      isArchived: expected.archived,
      isTemplate: expected.is_template,
      isInOrganization: type === 'Organization',
      forkCount: expected.forks_count,
      stargazerCount: expected.stargazers_count,
      hasIssuesEnabled: expected.has_issues,
      homepageUrl: expected.homepage,
      mirrorUrl: expected.mirror_url,
      resourcePath: `/${name}`,
      defaultBranchRef: { name: expected.default_branch },
      parent: null,
      owner: {
        __typename: type,
        id: node_id,
        login,
        url: html_url,
        avatarUrl: avatar_url,
        ...(type === 'User' ? { databaseId: id } : { number: id })
      }
    })
  }
})

t.test('names in any case, names of before, and names that are none', async (t) => {
  const { account: rita, token, ask } = await join(t, 'rita')
  const id = await server.createRepository(rita, 'Web')
  const find = async (owner: string, name: string, rest = '') =>
    await ask(
      `query($owner:String!,$name:String!){repository(owner:$owner,name:$name${rest}){databaseId name}}`,
      { variables: { owner, name } }
    )
  const found = { data: { repository: { databaseId: id, name: 'Web' } } }
  t.same(await find('rita', 'Web'), found)
  t.same(await find('RITA', 'wEB'), found)

  await server.request('PATCH', '/repos/rita/web', { token, body: { name: 'site' } })
  const renamed = { data: { repository: { databaseId: id, name: 'site' } } }
  t.same(await find('rita', 'site'), renamed)
  t.same(await find('Rita', 'WEB'), renamed)
  t.same(await find('rita', 'web', ',followRenames:true'), renamed)
  t.same(await find('rita', 'web', ',followRenames:null'), renamed)
  t.equal((await find('rita', 'web', ',followRenames:false')).errors[0].type, 'NOT_FOUND')
  const taken = await server.createRepository(rita, 'web')
  t.equal((await find('rita', 'WEB')).data.repository.databaseId, taken, 'a name that is taken again')

  for (const [owner, name] of [
    ['rita', 'a\0b'],
    ['\0', 'web'],
    ['rita', ''],
    ['', ''],
    ['rita', '\ud800'],
    ['rita', 'ｗeb'],
    ['rita', 'web.git\n'],
    ['Kelvin\u212a', 'web'],
    ['rita', 'x'.repeat(101)],
    ['rita', "'; drop table accounts; --"]
  ] as const) {
    const { data, errors } = await find(owner, name)
    t.same(data, { repository: null })
    t.equal(errors[0].message, 'Could not resolve to a Repository with that name.', 'it is not repeated')
  }
})

t.test(
  'the ids of many repositories take one query, and one more for names that are not found',
  async (t) => {
    const { account: dora, ask } = await join(t, 'dora')
    const ids = new Map<string, number>()
    for (let n = 0; n < 40; n += 1) ids.set(`repo-${n}`, await server.createRepository(dora, `repo-${n}`))
    const mapOf = (names: string[]) =>
      `query MapRepositoryNames {${names
        .map((name, n) => `repo_${n}: repository(owner: "dora", name: "${name}") { databaseId }`)
        .join('\n')}}`
    await ask('{viewer{login}}')

    let statements = 0
    const { query } = pg.Client.prototype
    pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
      statements += 1
      return Reflect.apply(query, this, args)
    } as typeof query
    t.teardown(() => Object.assign(pg.Client.prototype, { query }))

    const names = [...ids.keys()].reverse()
    const { data, errors } = await ask(mapOf(names), { variables: null })
    t.equal(errors, undefined)
    t.same(
      names.map((_, n) => data[`repo_${n}`].databaseId),
      names.map((name) => ids.get(name)),
      'each has its own'
    )
    t.ok(statements >= 1 && statements <= 2, `${statements} statements, with one for the token`)

    statements = 0
    const mixed = names.flatMap((name) => [name, `${name}-none`])
    const answer = await ask(mapOf(mixed))
    t.equal(answer.errors.length, 40)
    t.same(
      mixed.map((_, n) => answer.data[`repo_${n}`]?.databaseId),
      mixed.map((name) => ids.get(name))
    )
    t.ok(statements >= 2 && statements <= 3, `${statements} statements, with one for the token`)
  }
)

t.test('users and organizations are found by login, with what anybody may know', async (t) => {
  const { account: olga, ask } = await join(t, 'olga')
  const hub = await server.createUser('hub')
  await server.db
    .updateTable('accounts')
    .set({ email: 'hub@x', name: 'Hub' })
    .where('id', '=', hub.id)
    .execute()
  const acme = await server.createOrganization('umbrella', olga)
  t.same(
    await ask(`{
      user(login:"HUB"){login name email databaseId isViewer}
      organization(login:"Umbrella"){login name databaseId description}
      a:repositoryOwner(login:"hub"){__typename login}
      b:repositoryOwner(login:"umbrella"){__typename ...on Organization{databaseId}}
      c:repositoryOwner(login:"nobody"){login}
    }`),
    {
      data: {
        user: { login: 'hub', name: 'Hub', email: '', databaseId: hub.id, isViewer: false },
        organization: { login: 'umbrella', name: null, databaseId: acme.id, description: null },
        a: { __typename: 'User', login: 'hub' },
        b: { __typename: 'Organization', databaseId: acme.id },
        c: null
      }
    }
  )
  t.same(await ask('{user(login:"umbrella"){id} organization(login:"hub"){id} x:user(login:"a b"){id}}'), {
    data: { user: null, organization: null, x: null },
    errors: [
      {
        type: 'NOT_FOUND',
        path: ['user'],
        locations: [{ line: 1, column: 2 }],
        message: "Could not resolve to a User with the login of 'umbrella'."
      },
      {
        type: 'NOT_FOUND',
        path: ['organization'],
        locations: [{ line: 1, column: 29 }],
        message: "Could not resolve to an Organization with the login of 'hub'."
      },
      {
        type: 'NOT_FOUND',
        path: ['x'],
        locations: [{ line: 1, column: 59 }],
        message: 'Could not resolve to a User with that login.'
      }
    ]
  })
})

t.test('the repositories of an owner come in pages, in the order asked for', async (t) => {
  const { account: peggy, ask } = await join(t, 'peggy')
  for (const name of ['c', 'a', 'B', 'd'])
    await server.createRepository(peggy, name, { private: name !== 'd' })
  const acme = await server.createOrganization('initech', peggy)
  await server.createRepository(acme, 'tools')
  const list = async (args: string) => {
    const { data, errors } = await ask(
      `{viewer{repositories(${args}){totalCount nodes{name} edges{cursor node{name}}
        pageInfo{hasNextPage hasPreviousPage startCursor endCursor}}}}`
    )
    if (errors) return errors[0].type
    const { nodes, edges, ...rest } = data.viewer.repositories
    t.same(
      edges.map(({ node }: { node: object }) => node),
      nodes
    )
    return { names: nodes.map(({ name }: { name: string }) => name).join(''), ...rest }
  }
  const first = await list('first:3')
  t.match(first, { names: 'caB', totalCount: 4, pageInfo: { hasNextPage: true, hasPreviousPage: false } })
  const second = await list(`first:3,after:"${first.pageInfo.endCursor}"`)
  t.match(second, { names: 'd', totalCount: 4, pageInfo: { hasNextPage: false, hasPreviousPage: true } })
  const beyond = await list(`first:3,after:"${second.pageInfo.endCursor}"`)
  t.same(beyond, {
    names: '',
    totalCount: 4,
    pageInfo: { hasNextPage: false, hasPreviousPage: true, startCursor: null, endCursor: null }
  })
  for (const [args, names] of [
    ['orderBy:{field:NAME,direction:ASC}', 'aBcd'],
    ['orderBy:{field:NAME,direction:DESC}', 'dcBa'],
    ['orderBy:{field:CREATED_AT,direction:DESC}', 'dBac'],
    ['orderBy:{field:PUSHED_AT,direction:ASC}', 'caBd'],
    ['orderBy:{field:STARGAZERS,direction:DESC}', 'caBd'],
    ['orderBy:null,after:null,privacy:null,isFork:null,affiliations:null', 'caBd'],
    ['privacy:PUBLIC', 'd'],
    ['privacy:PRIVATE', 'caB'],
    ['isFork:true', ''],
    ['isFork:false', 'caBd'],
    ['affiliations:[OWNER]', 'caBd'],
    ['affiliations:[COLLABORATOR]', ''],
    ['ownerAffiliations:[ORGANIZATION_MEMBER]', ''],
    ['ownerAffiliations:OWNER', 'caBd']
  ] as const) {
    t.equal((await list(`first:100,${args}`)).names, names, args)
  }
  t.match(await list('first:0'), { names: '', totalCount: 4, pageInfo: { hasNextPage: true } })
  t.equal(await list('after:null'), 'MISSING_PAGINATION_BOUNDARIES')
  t.equal(await list('first:null'), 'MISSING_PAGINATION_BOUNDARIES')
  t.equal(await list('first:101'), 'EXCESSIVE_PAGINATION')
  t.equal(await list('first:-1'), 'EXCESSIVE_PAGINATION')
  for (const cursor of [
    '',
    'x',
    'Y3Vyc29yOnYyOi0x',
    Buffer.from('cursor:v2:9999999999').toString('base64')
  ]) {
    t.equal(await list(`first:1,after:"${cursor}"`), 'INVALID_CURSOR_ARGUMENTS', cursor)
  }
  const { data } = await ask('{organization(login:"initech"){repositories(first:9){nodes{nameWithOwner}}}}')
  t.same(data.organization.repositories.nodes, [{ nameWithOwner: 'initech/tools' }])
})

t.test('it is served at /graphql and /api/graphql, to POST', async (t) => {
  const { token, post } = await join(t, 'hana')
  const body = { query: '{viewer{login}}' }
  const expected = (await post(body)).body
  t.equal(expected, '{"data":{"viewer":{"login":"hana"}}}')
  for (const url of ['/graphql', '/api/graphql', '/api/v3/graphql', '/graphql?x=1', '/api/graphql?x=1']) {
    const response = await server.request('POST', url, { token, body })
    t.equal(response.statusCode, 200, url)
    t.equal(response.body, expected, url)
  }
  const notFound = { status: 404, message: 'Not Found' }
  for (const url of [
    '/graphql/',
    '/api/graphql/',
    '/api/graphqls',
    '/api/graphql/x',
    '/API/graphql',
    '/api//graphql'
  ]) {
    isRefusal(t, await server.request('POST', url, { token, body }), notFound, url)
  }
  for (const method of ['PUT', 'PATCH', 'DELETE'] as const) {
    isRefusal(t, await server.request(method, '/api/graphql', { token, body }), notFound, method)
  }
  const preflight = await server.request('OPTIONS', '/api/graphql', {
    headers: { origin: 'https://x.example', 'access-control-request-method': 'POST' }
  })
  t.equal(preflight.statusCode, 204)
  t.equal(preflight.headers['access-control-allow-origin'], '*', 'as for the REST API')
  t.equal(preflight.headers['access-control-allow-credentials'], undefined)
})

t.test('GET answers with the schema, as GitHub does', async (t) => {
  const { token, ask } = await join(t, 'gina')
  const response = await server.request('GET', '/api/graphql', { token })
  t.equal(response.statusCode, 200)
  const { data } = response.json()
  const schema = buildClientSchema(data as IntrospectionQuery)
  t.same(Object.keys(schema.getQueryType()!.getFields()).sort(), [
    'organization',
    'repository',
    'repositoryOwner',
    'user',
    'viewer'
  ])
  t.same([schema.getMutationType(), schema.getSubscriptionType()], [undefined, undefined])
  t.same((await ask(getIntrospectionQuery(WHOLE))).data, data, 'the usual introspection query gives the same')

  const head = await server.request('HEAD', '/graphql', { token })
  t.equal(head.statusCode, 200)
  t.equal(head.body, '')
  const etag = String(response.headers.etag)
  const again = await server.request('GET', '/graphql', { token, headers: { 'if-none-match': etag } })
  t.equal(again.statusCode, 304)
  const browser = await server.request('GET', '/graphql', { token, headers: { accept: 'text/html' } })
  t.equal(browser.statusCode, 415, 'there is no page to explore it')
  const queried = await server.request('GET', '/graphql?query={viewer{login}}', { token })
  t.same(queried.json().data, data, 'a query in the URL is not run')
})

t.test('it takes a token, whatever is asked', async (t) => {
  const { post } = await join(t, 'tina')
  const docs = 'https://docs.github.com/graphql/guides/forming-calls-with-graphql'
  for (const body of [{ query: '{viewer{login}}' }, { query: '{__typename}' }, '{broken', undefined]) {
    const anonymous = await post(body, { token: undefined })
    isRefusal(t, anonymous, { status: 401, message: 'Requires authentication' }, 'without')
    t.equal(anonymous.json().documentation_url, docs)
    for (const token of ['wrong', makeToken('classic'), makeToken('fine-grained')]) {
      isRefusal(t, await post(body, { token }), { status: 401, message: 'Bad credentials' }, 'wrong')
    }
  }
  for (const method of ['GET', 'HEAD'] as const) {
    t.equal((await server.request(method, '/api/graphql')).statusCode, 401, method)
  }
  const login = await server.createUser('gone')
  const token = await server.createToken(login, { scopes: ['repo'] })
  t.equal((await post({ query: '{viewer{login}}' }, { token })).statusCode, 200)
  await server.db.deleteFrom('accounts').where('id', '=', login.id).execute()
  isRefusal(
    t,
    await post({ query: '{viewer{login}}' }, { token }),
    { status: 401, message: 'Bad credentials' },
    'of an account that is gone, while the token is remembered'
  )
  for (let n = 0; n < 40; n += 1) await post({ query: '{viewer{login}}' }, { token: 'wrong' })
  const limited = await post({ query: '{viewer{login}}' }, { token: 'wrong' })
  t.equal(limited.statusCode, 403, 'failed logins are counted here too')
  t.match(limited.headers['retry-after'], /^\d+$/)
})

t.test('headers are those of the REST API', async (t) => {
  const { post } = await join(t, 'heidi')
  const { headers } = await post({ query: '{viewer{login}}' })
  t.match(headers, {
    'x-oauth-scopes': 'repo',
    'x-accepted-oauth-scopes': '',
    'x-github-request-id': /^[0-9A-F:]{20,}$/,
    'x-github-media-type': 'github.v3; format=json',
    'access-control-allow-origin': '*',
    'content-security-policy': "default-src 'none'"
  })
  t.equal(headers['cache-control'], undefined)
  t.equal(headers.etag, undefined)
  for (const accept of [
    '',
    '*/*',
    'application/json',
    'application/graphql-response+json',
    'application/vnd.github.v4+json'
  ]) {
    t.equal((await post({ query: '{viewer{login}}' }, { headers: { accept } })).statusCode, 200, accept)
  }
})

t.test('a body is read as JSON, whatever it is called', async (t) => {
  const { post } = await join(t, 'berta')
  const query = '{"query":"{viewer{login}}"}'
  for (const type of [
    'application/json',
    'text/plain',
    'application/graphql',
    'application/x-www-form-urlencoded',
    ''
  ]) {
    t.equal(
      (await post(query, { headers: { 'content-type': type } })).json().data.viewer.login,
      'berta',
      type
    )
  }
  for (const body of ['{', 'query={viewer{login}}', '{viewer{login}}', '\u0000']) {
    isRefusal(t, await post(body), { status: 400, message: 'Problems parsing JSON' }, body)
  }
  for (const body of ['[]', '"x"', '5', 'null', `[${query}]`, `[${query},${query}]`]) {
    isRefusal(t, await post(body), { status: 400, message: 'Body should be a JSON object' }, body)
  }
  const NO_QUERY = { errors: [{ message: 'A query attribute must be specified and must be a string.' }] }
  for (const body of [
    undefined,
    '',
    '{}',
    ...['""', 'null', '5', '[]', '{}'].map((value) => `{"query":${value}}`)
  ]) {
    const response = await post(body)
    t.equal(response.statusCode, 200, String(body))
    t.same(response.json(), NO_QUERY, String(body))
  }
})
