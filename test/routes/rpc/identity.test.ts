import t from 'tap'
import { sdk, startOnaServer } from './helper.ts'
import { makeEnvironment, makeRunner, makeServiceAccount } from './machines.ts'

t.setTimeout(120_000)

const IDENTITY = 'IdentityService/GetAuthenticatedIdentity'

t.test('every kind of bearer learns who it is, and where it acts', async (t) => {
  const server = await startOnaServer(t)
  const { acme, owner, member, stranger, call } = server
  const serviceAccount = await makeServiceAccount(server, owner.token)
  const environment = await makeEnvironment(server, acme)
  const runner = await makeRunner(server, acme)
  const expected = [
    [owner.token, owner.account.uid, 'PRINCIPAL_USER', acme.uid],
    [member.token, member.account.uid, 'PRINCIPAL_USER', acme.uid],
    [stranger.token, stranger.account.uid, 'PRINCIPAL_USER', stranger.organization.uid],
    [serviceAccount.token, serviceAccount.uid, 'PRINCIPAL_SERVICE_ACCOUNT', acme.uid],
    [environment.token, environment.uid, 'PRINCIPAL_ENVIRONMENT', acme.uid],
    [runner.token, runner.uid, 'PRINCIPAL_RUNNER', acme.uid]
  ] as const
  for (const [token, id, principal, organizationId] of expected) {
    const { status, body } = await call(IDENTITY, token)
    t.equal(status, 200, principal)
    t.strictSame(body, {
      subject: { id, principal },
      organizationId,
      organizationTier: 'ORGANIZATION_TIER_ENTERPRISE'
    })
  }
})

t.test('a token that is remembered, and was revoked a moment ago, is refused as that', async (t) => {
  const server = await startOnaServer(t)
  const { call, db, owner, acme } = server
  const environment = await makeEnvironment(server, acme)
  const asks = [
    ['GroupService/ListGroups', {}],
    ['ProjectService/GetProject', { projectId: acme.uid }],
    ['SecretService/ListSecrets', { filter: { scope: { organizationId: acme.uid } } }],
    ['ServiceAccountService/DeleteServiceAccount', { serviceAccountId: acme.uid }]
  ] as const
  const token = await server.createToken(owner.account, { scopes: ['codespace', 'admin:org', 'repo'] })
  t.equal((await call(IDENTITY, token)).status, 200)
  t.match(await call('ProjectService/GetProject', token, asks[1][1]), { status: 404 }, 'while it is valid')
  t.equal((await call(IDENTITY, environment.token)).status, 200)
  // Nobody is told, as when the notification is still on its way.
  await db.deleteFrom('tokens').where('note', 'is', null).where('kind', '=', 'classic').execute()
  await db.deleteFrom('environments').where('uid', '=', environment.uid).execute()
  for (const [method, message] of asks) {
    t.match(await call(method, token, message), { status: 401, body: { code: 'unauthenticated' } }, method)
  }
  const get = ['EnvironmentService/GetEnvironment', { environmentId: environment.uid }] as const
  t.match(await call(get[0], environment.token, get[1]), { status: 401 }, get[0])
})

t.test('a weak token and an empty body do, no token does not', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner } = server
  const weak = await server.createToken(owner.account, { scopes: [] })
  const fine = await server.createToken(owner.account, { permissions: {} })
  for (const token of [weak, fine]) {
    for (const body of [undefined, '', '{}', { empty: true }]) {
      t.equal((await call(IDENTITY, token, body)).body.subject.id, owner.account.uid)
    }
  }
  t.match(await call(IDENTITY, undefined), { status: 401, body: { code: 'unauthenticated' } })
})

t.test('without an organization it is left out, and what is one’s own still works', async (t) => {
  const server = await startOnaServer(t)
  const { call } = server
  const hermit = await server.createUser('hermit')
  const token = await server.createToken(hermit, { scopes: ['codespace', 'admin:org', 'repo'] })
  t.strictSame((await call(IDENTITY, token)).body, {
    subject: { id: hermit.uid, principal: 'PRINCIPAL_USER' }
  })
  const { user } = (await call('UserService/GetAuthenticatedUser', token)).body
  t.strictSame(Object.keys(user).sort(), ['createdAt', 'id', 'name', 'status'])
  const secret = { name: 'MINE', value: 'v', environmentVariable: true, scope: { userId: hermit.uid } }
  t.equal((await call('SecretService/CreateSecret', token, secret)).status, 200)
  for (const method of ['GroupService/ListGroups', 'ServiceAccountService/ListServiceAccounts']) {
    t.match(await call(method, token, {}), { status: 403, body: { code: 'permission_denied' } }, method)
  }
})

t.test('a member that is removed acts in its next organization, or in none', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, acme } = server
  const second = await server.createOrganization('second', member.account)
  const tokens = [
    member.token,
    (await call('UserService/CreatePersonalAccessToken', member.token, {})).body.token
  ]
  t.match((await call(IDENTITY, tokens[1])).body, { organizationId: acme.uid })
  const left = await call('OrganizationService/LeaveOrganization', owner.token, {
    userId: member.account.uid
  })
  t.equal(left.status, 200)
  t.match((await call(IDENTITY, tokens[0])).body, { organizationId: second.uid })
  t.notOk((await call(IDENTITY, tokens[1])).body.organizationId, 'what was made for it acts nowhere')
})

t.test('by the official client', async (t) => {
  const server = await startOnaServer(t)
  const client = sdk(await server.listen(), server.member.token)
  t.strictSame(await client.identity.getAuthenticatedIdentity({}), {
    subject: { id: server.member.account.uid, principal: 'PRINCIPAL_USER' },
    organizationId: server.acme.uid,
    organizationTier: 'ORGANIZATION_TIER_ENTERPRISE'
  } as never)
  const { user } = await client.users.getAuthenticatedUser({})
  t.match(user, { id: server.member.account.uid, name: 'mia', status: 'USER_STATUS_ACTIVE' })
})
