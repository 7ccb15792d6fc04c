// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import t from 'tap'
import { FULL_SCOPES } from '../../src/auth/access.ts'
import { hashToken, lastEight, makeToken } from '../../src/auth/token.ts'
import { issueEnvironmentToken } from '../../src/directory/environment-tokens.ts'
import { insertToken } from '../../src/store/tokens.ts'
import { makeServiceAccount } from '../routes/rpc/machines.ts'
import { furnish, held, names, told, type World } from './world.ts'

// Who is let into an environment, and what the tokens of one read.

const ENTRIES = ['CreateEnvironmentAccessToken', 'CreateEnvironmentLogsToken'] as const

function own({ member }: World): object {
  return { scope: { userId: member.account.uid } }
}

/** A token of mia's that somebody else issued. */
async function issuedForMia({ db, member, admin }: World): Promise<string> {
  const token = makeToken('classic')
  await db.transaction().execute((tx) =>
    insertToken(tx, {
      hash: hashToken(token),
      kind: 'classic',
      accountId: member.account.id,
      scopes: FULL_SCOPES,
      issuedByUid: admin.account.uid,
      lastEight: lastEight(token),
      lifetimeSeconds: 3600
    })
  )
  return token
}

t.test('only a token that delivers reads all; one for inside reads what is not delivered', async (t) => {
  const world = await furnish(t)
  const { ask, db, read, acme } = world
  const mounts: Record<string, object> = {
    VARIABLE: { environmentVariable: true },
    A_FILE: { filePath: '/etc/x' },
    REGISTRY: { containerRegistryBasicAuthHost: 'ghcr.io' },
    GIT_HOST: { gitCredentialHost: 'git.example' },
    ASKED: { apiOnly: true }
  }
  const ids: Record<string, string> = {}
  for (const [name, mount] of Object.entries(mounts)) {
    ids[name] = await world.addSecret(name, 'x', { environmentVariable: undefined, ...mount })
  }
  const other = await world.addSecret('OTHER', 'x', {
    scope: { organizationId: acme.uid },
    apiOnly: true,
    environmentVariable: undefined
  })
  const assignment = await world.start()
  const { environmentId } = assignment
  await ask('SecretService/DeleteSecret', { secretId: other })
  const tokens: Record<string, string> = { deliver: assignment.accessToken }
  for (const method of ENTRIES) {
    tokens[method] = (await ask(`EnvironmentService/${method}`, { environmentId })).accessToken
  }
  const { id } = await db.selectFrom('environments').select('id').executeTakeFirstOrThrow()
  const bearer = {
    environment_id: id,
    environment_uid: environmentId,
    organization_id: acme.id,
    organization_uid: acme.uid
  }
  const principal = {
    kind: 'runner',
    uid: world.runner.id,
    tokenId: null,
    issuedByUid: null,
    requestId: null
  } as const
  const inside = await issueEnvironmentToken(db, principal, bearer, {
    purpose: 'inside',
    lifetimeSeconds: 60
  })
  tokens.inside = inside.token
  const reads = async (token: string) => {
    const found: string[] = []
    for (const [name, secretId] of Object.entries(ids)) {
      const { status } = await read(token, secretId)
      if (status === 200) found.push(name)
      else t.equal(status, 403, name)
    }
    return found.sort()
  }
  t.strictSame(await reads(tokens.deliver!), Object.keys(mounts).sort())
  t.strictSame(await reads(tokens.inside), ['ASKED', 'GIT_HOST'])
  for (const method of ENTRIES) {
    t.strictSame(await reads(tokens[method]!), [], method)
    t.match(await read(tokens[method]!, ids.ASKED!), { status: 403, body: { code: 'permission_denied' } })
  }
  for (const token of [tokens.deliver!, tokens.inside]) t.equal((await read(token, other)).status, 404)
})

t.test('a token for inside is not for another purpose', async (t) => {
  const world = await furnish(t)
  const { ask, call } = world
  const { environmentId } = await world.start()
  const { accessToken } = await ask('EnvironmentService/CreateEnvironmentAccessToken', { environmentId })
  const target = { environmentId }
  t.equal((await call('EnvironmentService/GetEnvironment', accessToken, target)).status, 200)
  for (const method of ['StopEnvironment', 'DeleteEnvironment', 'UpdateEnvironment', ...ENTRIES]) {
    t.match(await call(`EnvironmentService/${method}`, accessToken, target), {
      body: { code: 'permission_denied' }
    })
  }
  const { id: other } = await world.create()
  t.match(await call('EnvironmentService/GetEnvironment', accessToken, { environmentId: other }), {
    body: { code: 'not_found' }
  })
})

t.test('where secrets of its creator are held, nobody else is let in', async (t) => {
  const world = await furnish(t)
  const { ask, call, owner, member } = world
  await world.openProject()
  await world.addSecret('MINE', 'x', own(world), member.token)
  const { environmentId } = await world.start(member.token)
  for (const method of ENTRIES) {
    t.match(await call(`EnvironmentService/${method}`, owner.token, { environmentId }), {
      status: 403,
      body: { code: 'permission_denied', message: /creator/ }
    })
    t.ok((await ask(`EnvironmentService/${method}`, { environmentId }, member.token)).accessToken)
  }
  const record = await world.db
    .selectFrom('audit_events')
    .select('actor_uid')
    .where('action', '=', 'development_environment.enter')
    .execute()
  t.strictSame(
    record.map(({ actor_uid }) => actor_uid),
    [member.account.uid, member.account.uid],
    'who was refused is not recorded as let in'
  )
})

t.test('nor once they are gone again: processes that hold them may be there still', async (t) => {
  const world = await furnish(t)
  const { ask, call, owner, member, acme } = world
  await world.openProject()
  const secretId = await world.addSecret('MINE', 'x', own(world), member.token)
  const assignment = await world.start(member.token)
  const { environmentId } = assignment
  const refused = async () => {
    t.match(await call('EnvironmentService/CreateEnvironmentAccessToken', owner.token, { environmentId }), {
      status: 403
    })
  }
  await ask('OrganizationService/LeaveOrganization', {
    userId: member.account.uid,
    organizationId: acme.uid
  })
  await told(world.runner, assignment, (next) => names(next).length === 0)
  await refused()
  await world.addMember(acme, member.account)
  await ask('SecretService/DeleteSecret', { secretId }, member.token)
  await refused()
})

t.test("after an owner was let in, the creator's own secrets come in no more", async (t) => {
  const world = await furnish(t)
  const { ask, owner, member, runner } = world
  await world.openProject()
  await world.addSecret('OF_PROJECT', 'x')
  const assignment = await world.start(member.token)
  const { environmentId } = assignment
  await ask('EnvironmentService/CreateEnvironmentAccessToken', { environmentId }, owner.token)
  const mine = await world.addSecret('MINE', 'x', own(world), member.token)
  await ask('EnvironmentService/StopEnvironment', { environmentId }, member.token)
  const stopping = await told(runner, assignment)
  await ask('EnvironmentService/StartEnvironment', { environmentId }, member.token)
  const starting = await told(runner, stopping)
  t.strictSame(names(starting), ['OF_PROJECT'])
  t.equal((await world.read(starting.accessToken, mine)).status, 404)
  const { secrets } = await world
    .request('POST', '/coffer.v1.ResolutionService/ExplainSecrets', {
      token: member.token,
      body: { environmentId }
    })
    .then((response) => response.json())
  t.match(
    secrets.find(({ name }: any) => name === 'MINE'),
    { result: 'withheld', reason: /somebody else/ }
  )
  // Another one of the same creator receives them all the same.
  t.strictSame(names(await world.start(member.token)), ['MINE', 'OF_PROJECT'])
})

t.test(
  'a token that somebody else issued brings no secrets of the user, and does not let in to them',
  async (t) => {
    const world = await furnish(t)
    const { ask, call, member } = world
    await world.openProject()
    await world.addSecret('MINE', 'x', own(world), member.token)
    await world.addSecret('OF_PROJECT', 'x')
    const issued = await issuedForMia(world)
    const made = await ask(
      'UserService/CreatePersonalAccessToken',
      { userId: member.account.uid, description: 'derived', validFor: '86400s' },
      issued
    )
    const { environmentId } = await world.start(member.token)
    for (const token of [issued, made.token]) {
      t.strictSame(names(await world.start(token)), ['OF_PROJECT'])
      for (const method of ENTRIES) {
        t.match(await call(`EnvironmentService/${method}`, token, { environmentId }), { status: 403 }, method)
      }
      t.match(
        await call('EnvironmentService/UpdateEnvironment', token, {
          environmentId,
          spec: { sshPublicKeys: [{ id: 'k', value: 'ssh-ed25519 A' }] }
        }),
        { status: 403 }
      )
    }
  }
)

t.test('an owner does not put anything into what holds secrets of its creator', async (t) => {
  const world = await furnish(t)
  const { call, owner, member } = world
  await world.openProject()
  await world.addSecret('MINE', 'x', own(world), member.token)
  const { environmentId } = await world.start(member.token)
  const update = (token: string, more: object) =>
    call('EnvironmentService/UpdateEnvironment', token, { environmentId, ...more })
  const insides = [
    { content: { initializer: { specs: [{ git: { remoteUri: 'https://evil.example/x.git' } }] } } },
    { content: { session: 'again' } },
    { devcontainer: { devcontainerFilePath: 'evil.json' } },
    { automationsFile: { automationsFilePath: 'evil.yaml' } },
    { sshPublicKeys: [{ id: 'k', value: 'ssh-ed25519 A' }] },
    { ports: [{ port: 8080, admission: 'ADMISSION_LEVEL_EVERYONE' }] }
  ]
  for (const spec of insides) {
    t.match(await update(owner.token, { spec }), { status: 403 }, JSON.stringify(spec))
    t.match(await update(member.token, { spec }), { status: 200 }, JSON.stringify(spec))
  }
  t.match(await update(owner.token, { spec: { timeout: { disconnected: '1800s' } } }), { status: 200 })
  t.match(await update(owner.token, { metadata: { name: 'theirs' } }), { status: 200 })
})

t.test('what an owner puts into another one keeps secrets of its creator out', async (t) => {
  const world = await furnish(t)
  const { ask, member, owner, runner } = world
  await world.openProject()
  const assignment = await world.start(member.token)
  const { environmentId } = assignment
  const spec = { content: { session: 'again' } }
  await ask('EnvironmentService/UpdateEnvironment', { environmentId, spec }, owner.token)
  await world.addSecret('MINE', 'x', own(world), member.token)
  await world.addSecret('OF_PROJECT', 'x')
  const next = await told(runner, assignment, (next) => names(next).length > 0)
  t.strictSame(names(next), ['OF_PROJECT'])
})

t.test('what is cloned instead decides whose secrets come in', async (t) => {
  const world = await furnish(t)
  const { ask, owner, acme, runner } = world
  for (const name of ['web', 'api']) {
    await world.createRepository(acme, name)
    const path = `/repos/acme/${name}/codespaces/secrets`
    const body = await world.seal(path, owner.token, 'x')
    await world.request('PUT', `${path}/${name.toUpperCase()}_TOKEN`, { token: owner.token, body })
  }
  const assignment = await world.start()
  t.strictSame(names(assignment), ['WEB_TOKEN'])
  const { environmentId } = assignment
  const initialize = async (spec: object) => {
    const content = { initializer: { specs: [spec] } }
    await ask('EnvironmentService/UpdateEnvironment', { environmentId, spec: { content } })
    return names((await runner.claim())[0])
  }
  t.strictSame(await initialize({ git: { remoteUri: 'http://coffer.test/acme/api.git' } }), ['API_TOKEN'])
  t.strictSame(await initialize({ git: { remoteUri: 'http://git.example/acme/web.git' } }), [])
  const url = 'http://coffer.test/acme/web/tree/main'
  t.strictSame(await initialize({ contextUrl: { url } }), ['WEB_TOKEN'], 'a page of a branch, too')
})

t.test('a service account enters its own, with its own secrets', async (t) => {
  const world = await furnish(t)
  const { ask, call, owner, member } = world
  await world.openProject()
  const bot = await makeServiceAccount(world, owner.token)
  await world.addSecret('OF_BOT', 'x', { scope: { serviceAccountId: bot.uid } })
  const assignment = await world.start(bot.token)
  const { environmentId } = assignment
  t.strictSame(names(assignment), ['OF_BOT'])
  t.ok(
    (await ask('EnvironmentService/CreateEnvironmentAccessToken', { environmentId }, bot.token)).accessToken
  )
  for (const [token, status] of [
    [owner.token, 403],
    [member.token, 404]
  ] as const) {
    const { status: answered } = await call('EnvironmentService/CreateEnvironmentAccessToken', token, {
      environmentId
    })
    t.equal(answered, status)
  }
})

t.test(
  'tokens do not pile up: of a lease, however often it is asked for, and of leases that are over',
  async (t) => {
    const world = await furnish(t)
    const { db, runner } = world
    const secretId = await world.addSecret('ONE', 'x')
    const first = await world.start()
    const tokens = () =>
      db
        .selectFrom('tokens')
        .select(['expires_at', 'lease_epoch'])
        .where('purpose', '=', 'deliver')
        .orderBy('id')
        .execute()
    for (let times = 0; times < 5; times++) await runner.claim()
    const minute = Date.now() + 60 * 60_000
    const [newest, ...older] = (await tokens()).reverse()
    t.ok(newest!.expires_at!.getTime() > minute)
    t.ok(
      older.every(({ expires_at }) => expires_at!.getTime() < minute),
      'those before end soon'
    )
    t.equal((await world.read(first.accessToken, secretId)).status, 200, 'but not while they may be in use')
    await db
      .updateTable('tokens')
      .set({ expires_at: new Date(0) })
      .where('purpose', '=', 'deliver')
      .execute()
    await runner.claim()
    t.equal((await tokens()).length, 1)
    await db
      .updateTable('environments')
      .set({ lease_until: new Date(0) })
      .execute()
    runner.holder = crypto.randomUUID()
    const [taken] = await runner.claim()
    t.strictSame(
      (await tokens()).map(({ lease_epoch }) => lease_epoch),
      [taken.epoch]
    )
    t.same(await runner.claim([held(taken)]), [])
  }
)
