import t from 'tap'
import type { TokenRequest } from '../../../src/directory/tokens.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { startTestServer } from '../../helper.ts'

// GraphQL shows a token what the REST API shows it, and what it may not know of like what does not exist.

const server = await startTestServer(t, { logLevel: 'warn' })
const mona = await server.createUser('mona')
const acme = await server.createOrganization('acme', mona)
// Names of the same length, so that answers can be compared byte by byte.
const hidden = await server.createRepository(mona, 'hidden')
const open = await server.createRepository(mona, 'open', { private: false })
const tools = await server.createRepository(acme, 'tools')
await server.createRepository(mona, 'before')
const member = await server.createUser('member')
await server.db
  .insertInto('memberships')
  .values({ organization_id: acme.id, account_id: member.id, role: 'member' })
  .execute()
const stranger = await server.createUser('stranger')
const ROLES = ['read', 'triage', 'write', 'maintain', 'admin'] as const
const collaborators = new Map<string, Account>()
for (const role of ROLES) {
  const account = await server.createUser(`with-${role}`)
  collaborators.set(role, account)
  await server.setRole(mona, 'hidden', account, role)
}
const owner = await server.createToken(mona, { scopes: ['repo'] })
await server.request('PATCH', '/repos/mona/before', { token: owner, body: { name: 'after' } })

const post = (token: string, query: string) => server.request('POST', '/graphql', { token, body: { query } })

async function ask(account: Account, request: TokenRequest, query: string) {
  const response = await post(await server.createToken(account, request), query)
  t.equal(response.statusCode, 200)
  return response.json()
}

const ALL = `{
  hidden:repository(owner:"mona",name:"hidden"){databaseId viewerPermission viewerCanAdminister}
  open:repository(owner:"mona",name:"open"){databaseId viewerPermission viewerCanAdminister}
  tools:repository(owner:"acme",name:"tools"){databaseId viewerPermission viewerCanAdminister}
  before:repository(owner:"mona",name:"before"){name}
}`

t.test('a role is told as GitHub names it', async (t) => {
  const repo = { scopes: ['repo'] }
  const permission = async (account: Account, alias: string) => {
    const { data } = await ask(account, repo, ALL)
    return data[alias] && [data[alias].viewerPermission, data[alias].viewerCanAdminister]
  }
  for (const role of ROLES) {
    const expected = [role.toUpperCase(), role === 'admin']
    t.same(await permission(collaborators.get(role)!, 'hidden'), expected, role)
    t.same(await permission(collaborators.get(role)!, 'open'), ['READ', false], 'a public one')
    t.equal(await permission(collaborators.get(role)!, 'tools'), null, 'another one')
  }
  t.same(await permission(mona, 'hidden'), ['ADMIN', true])
  t.same(await permission(mona, 'tools'), ['ADMIN', true], 'owner of the organization')
  t.same(await permission(member, 'tools'), ['READ', false])
  t.equal(await permission(member, 'hidden'), null)
  t.same(await permission(stranger, 'open'), ['READ', false])
})

const PERMISSIONS = { codespaces_secrets: 'write', codespaces_user_secrets: 'write', administration: 'write' }
const SIGHT: Record<string, [Account, TokenRequest, sees: string[]]> = {
  'the owner with the scope repo': [mona, { scopes: ['repo'] }, ['hidden', 'open', 'tools', 'before']],
  'the owner without it': [mona, { scopes: ['public_repo', 'codespace', 'admin:org'] }, ['open']],
  'the owner without any': [mona, { scopes: [] }, ['open']],
  'all repositories, no permission': [
    mona,
    { permissions: {}, allRepositories: true },
    ['hidden', 'open', 'tools', 'before']
  ],
  'a list': [mona, { permissions: PERMISSIONS, repositoryIds: [hidden] }, ['hidden', 'open']],
  'another list': [mona, { permissions: PERMISSIONS, repositoryIds: [open, tools] }, ['open', 'tools']],
  'an empty list': [mona, { permissions: PERMISSIONS, repositoryIds: [] }, ['open']],
  'a reader': [collaborators.get('read')!, { scopes: ['repo'] }, ['hidden', 'open']],
  'a reader without the scope': [collaborators.get('read')!, { scopes: ['codespace'] }, ['open']],
  'a member': [member, { scopes: ['repo'] }, ['open', 'tools']],
  'a stranger': [stranger, { scopes: ['repo', 'codespace', 'admin:org'] }, ['open']],
  'a stranger with all repositories': [
    stranger,
    { permissions: PERMISSIONS, allRepositories: true },
    ['open']
  ],
  'a site administrator': [server.admin.account, { scopes: ['repo', 'site_admin'] }, ['open']]
}

t.test('a token sees what it sees through the REST API', async (t) => {
  for (const [who, [account, request, sees]] of Object.entries(SIGHT)) {
    const token = await server.createToken(account, request)
    const response = await post(token, ALL)
    const { data, errors = [] } = response.json()
    t.same(
      Object.keys(data)
        .filter((alias) => data[alias])
        .sort(),
      [...sees].sort(),
      who
    )
    for (const { type, path, message } of errors) {
      t.equal(type, 'NOT_FOUND')
      t.match(message, new RegExp(`^Could not resolve to a Repository with the name '\\w+/${path[0]}'\\.$`))
    }
    for (const path of ['mona/hidden', 'mona/open', 'acme/tools']) {
      const { statusCode } = await server.request('GET', `/repos/${path}`, { token })
      t.equal(statusCode === 200, sees.includes(path.split('/')[1]!), `${who}: ${path}`)
    }

    const listed = await post(
      token,
      '{a:user(login:"mona"){repositories(first:9){totalCount nodes{name}}} b:organization(login:"acme"){repositories(first:9){totalCount nodes{name}}}}'
    )
    const { a, b } = listed.json().data
    const names = (connection: { nodes: { name: string }[] }) => connection.nodes.map(({ name }) => name)
    const expected = ['hidden', 'open'].filter((name) => sees.includes(name))
    if (sees.includes('before')) expected.push('after')
    t.same(names(a.repositories), expected, who)
    t.equal(a.repositories.totalCount, expected.length, who)
    t.same(names(b.repositories), sees.includes('tools') ? ['tools'] : [], who)
    t.equal(b.repositories.totalCount, sees.includes('tools') ? 1 : 0, who)
  }
})

t.test('what is invisible is answered like what does not exist, byte for byte', async (t) => {
  const fields = '{id databaseId name owner{login repositories(first:5){totalCount}} viewerPermission}'
  const queries = (owner: string, name: string) => [
    `{repository(owner:"${owner}",name:"${name}")${fields}}`,
    `{a:repository(owner:"${owner}",name:"${name}")${fields} b:repository(owner:"${owner}",name:"open")${fields}}`,
    `{viewer{login} repository(owner:"${owner}",name:"${name}",followRenames:false){...f}} fragment f on Repository${fields}`,
    `query Q($n:String="${name}"){repository(owner:"${owner}",name:$n)${fields}}`
  ]
  let compared = 0
  for (const [who, [account, request, sees]] of Object.entries(SIGHT)) {
    const token = await server.createToken(account, request)
    for (const [name, absent] of [
      ['hidden', 'absent'],
      ['before', 'absent']
    ] as const) {
      if (sees.includes(name)) continue
      const unknown = queries('mona', absent)
      for (const [index, query] of queries('mona', name).entries()) {
        const one = await post(token, query)
        const other = await post(token, unknown[index]!)
        const headers = ({ date: _date, 'x-github-request-id': _id, ...rest }: typeof one.headers) => rest
        t.equal(one.body.replaceAll(name, absent), other.body, `${who}: ${query}`)
        t.match(one.body, /NOT_FOUND/)
        t.equal(one.body.length, other.body.length)
        t.same(headers(one.headers), headers(other.headers), who)
        compared += 1
      }
    }
  }
  t.ok(compared > 50, `${compared} compared`)
})

t.test('an address is told to its owner alone', async (t) => {
  await server.db
    .updateTable('accounts')
    .set({ email: 'mona@secret.example' })
    .where('id', '=', mona.id)
    .execute()
  const query = `{
    user(login:"mona"){email} viewer{login email}
    repository(owner:"mona",name:"open"){owner{...on User{email}}}
    repositoryOwner(login:"mona"){...on User{email}}
  }`
  const own = await post(owner, query)
  t.equal(own.body.match(/mona@secret\.example/g)?.length, 4)
  for (const [account, request] of [
    [stranger, { scopes: ['repo'] }],
    [server.admin.account, { scopes: ['repo', 'site_admin'] }],
    [collaborators.get('admin')!, { scopes: ['repo'] }]
  ] as const) {
    const other = await post(await server.createToken(account, { scopes: [...request.scopes] }), query)
    t.match(other.json().data, { user: { email: '' }, viewer: { login: account.login, email: '' } })
    t.notMatch(other.body, 'secret.example')
  }
})

t.test('rights that are taken away are gone with the next query', async (t) => {
  const guest = await server.createUser('guest')
  await server.setRole(mona, 'hidden', guest, 'write')
  const token = await server.createToken(guest, { scopes: ['repo'] })
  const query = '{repository(owner:"mona",name:"hidden"){viewerPermission}}'
  t.same((await post(token, query)).json().data, { repository: { viewerPermission: 'WRITE' } })
  await server.setRole(mona, 'hidden', guest, 'read')
  t.same((await post(token, query)).json().data, { repository: { viewerPermission: 'READ' } })
  await server.request('DELETE', '/repos/mona/hidden/collaborators/guest', { token: owner })
  t.same((await post(token, query)).json().data, { repository: null })
})
