import t, { type Test } from 'tap'
import { offlineAdministration } from '../../src/cli/admin/offline.ts'
import { onlineAdministration } from '../../src/cli/admin/online.ts'
import { createTestDatabase, getAccount, startTestServer, type TestServer } from '../helper.ts'
import { coffer, makeFolder, makeMasterKey } from './helper.ts'

async function startOnline(t: Test) {
  const server = await startTestServer(t, { logLevel: 'silent' })
  const url = await server.listen()
  const mona = await server.createUser('mona')
  await server.createUser('hubot')
  await server.createOrganization('Octo', mona)
  const owner = await server.createToken(mona, { scopes: ['admin:org', 'repo'] })
  return { server, url, mona, owner, as: (token: string) => onlineAdministration({ url, token }) }
}

async function memberships({ db }: Pick<TestServer, 'db'>): Promise<string[]> {
  const rows = await db
    .selectFrom('memberships as m')
    .innerJoin('accounts as a', 'a.id', 'm.account_id')
    .select(['a.login', 'm.role'])
    .orderBy('a.login')
    .execute()
  return rows.map(({ login, role }) => `${login} ${role}`)
}

t.test('an owner manages members, and deletes the organization, over HTTP', async (t) => {
  const { server, owner, as } = await startOnline(t)
  const administration = as(owner)
  await administration.setMember('octo', 'HUBOT', 'member')
  t.strictSame(await memberships(server), ['hubot member', 'mona admin'])
  t.match(await administration.listMembers('octo'), [
    { id: Number, login: 'mona', role: 'admin' },
    { id: Number, login: 'hubot', role: 'member' }
  ])
  await administration.setMember('octo', 'hubot', 'admin')
  await administration.removeMember('octo', 'mona')
  t.strictSame(await memberships(server), ['hubot admin'])
  await t.rejects(administration.listMembers('octo'), /There is no organization octo to which/)

  const hubot = as(await server.createToken(await getAccount(server.db, 'hubot'), { scopes: ['admin:org'] }))
  await hubot.deleteOrganization('OCTO')
  t.strictSame(await memberships(server), [])
  t.strictSame(
    await server.db.selectFrom('accounts').select('login').where('kind', '=', 'organization').execute(),
    []
  )
})

t.test('all pages of members are listed, owners first', async (t) => {
  const { server, owner, as } = await startOnline(t)
  await server.db
    .insertInto('accounts')
    .values(Array.from({ length: 101 }, (_, n) => ({ kind: 'user' as const, login: `m${n}` })) as never)
    .execute()
  const { rows } = { rows: await server.db.selectFrom('accounts').select(['id', 'login', 'kind']).execute() }
  const octo = rows.find(({ kind }) => kind === 'organization')!
  await server.db
    .insertInto('memberships')
    .values(
      rows
        .filter(({ login }) => /^m\d/.test(login))
        .map(({ id }) => ({ organization_id: octo.id, account_id: id, role: 'member' as const }))
    )
    .execute()
  const listed = await as(owner).listMembers('octo')
  t.equal(listed.length, 102)
  t.match(listed[0], { login: 'mona', role: 'admin' })
  t.match(listed.at(-1), { login: 'm100', role: 'member' })
  const offline = offlineAdministration(server.db, { tokenDefaultDays: 90, tokenMaxDays: 366 })
  t.strictSame(await offline.listMembers('octo'), listed, 'and offline the same')
})

t.test('what the server refuses is told with a way out', async (t) => {
  const { server, owner, as } = await startOnline(t)
  const administration = as(owner)
  const stranger = as(server.admin.token)
  const before = await memberships(server)
  const remedy =
    /Use a token of an owner:\n {2}COFFER_TOKEN=.*--scopes admin:org.*\n {2}--offline works on all/
  const attempts: (() => Promise<unknown>)[] = [
    () => stranger.setMember('octo', 'hubot', 'member'),
    () => stranger.removeMember('octo', 'mona'),
    () => stranger.listMembers('octo'),
    () => stranger.deleteOrganization('octo')
  ]
  for (const attempt of attempts) {
    const { message } = await attempt().then(
      () => new Error('it was not refused'),
      (error) => error
    )
    t.match(message, /There is no organization octo to which the token's account belongs/)
    t.match(message, remedy)
  }
  await t.rejects(administration.setMember('octo', 'none', 'member'), /There is no user none\./)
  await t.rejects(administration.removeMember('octo', 'hubot'), /hubot is no member of octo\./)
  await t.rejects(administration.removeMember('octo', 'mona'), /^This is the last owner of the organization/)
  await t.rejects(administration.setMember('octo', 'mona', 'member'), /Make somebody else an owner first/)
  t.strictSame(await memberships(server), before)
})

t.test('offline every organization is within reach, one that has no owner left too', async (t) => {
  const { db } = await createTestDatabase(t)
  const administration = offlineAdministration(db, { tokenDefaultDays: 90, tokenMaxDays: 366 })
  for (const login of ['mona', 'hubot']) await administration.createUser({ login })
  await administration.createOrganization('octo', 'mona')
  await administration.createRepository({ owner: 'octo', name: 'web' }, true)
  const before = await memberships({ db })
  await t.rejects(administration.removeMember('octo', 'mona'), /last owner/)
  await t.rejects(administration.setMember('octo', 'mona', 'member'), /last owner/)
  await t.rejects(administration.setMember('octo', 'none', 'admin'), /There is no user none/)
  await t.rejects(administration.setMember('mona', 'hubot', 'admin'), /There is no organization mona/)
  await t.rejects(administration.removeMember('octo', 'hubot'), /hubot is no member of octo/)
  await t.rejects(administration.listMembers('none'), /There is no organization none/)
  await t.rejects(administration.deleteOrganization('mona'), /There is no organization mona/)
  t.strictSame(await memberships({ db }), before)

  await administration.deleteUser('mona')
  t.strictSame(await administration.listMembers('octo'), [])
  await administration.setMember('octo', 'hubot', 'admin')
  t.match(await administration.listMembers('octo'), [{ login: 'hubot', role: 'admin' }])
  await administration.deleteOrganization('OCTO')
  t.strictSame(await db.selectFrom('repositories').select('id').execute(), [])
  const actors = await db
    .selectFrom('audit_events')
    .select(['actor_kind', 'actor_uid'])
    .where('action', 'like', 'organization.%')
    .distinct()
    .execute()
  t.strictSame(actors, [{ actor_kind: 'system', actor_uid: null }])
})

t.test('the commands say what they did, online and offline', async (t) => {
  const { server, url, owner } = await startOnline(t)
  const folder = await makeFolder(t)
  const online = { COFFER_URL: url, COFFER_TOKEN: owner }
  const run = (line: string, variables: Record<string, string>) =>
    coffer(folder, ['admin', 'org', ...line.split(' ')], variables)
  t.match(await run('member set octo hubot', online), {
    code: 0,
    stdout: 'hubot is a member of octo.\n',
    stderr: ''
  })
  const offline = {
    DATABASE_URL: server.databaseUrl,
    COFFER_MASTER_KEY_FILE: await makeMasterKey(folder),
    COFFER_SOCKET: 'off'
  }
  t.match(await run('member set octo hubot --role admin --offline', offline), {
    code: 0,
    stdout: 'hubot is an owner of octo.\n'
  })
  const listed = await run('member list octo', online)
  t.match(listed, { code: 0, stdout: /^ID +LOGIN +ROLE\n\d+ +mona +admin\n\d+ +hubot +admin\n$/ })
  const json = await run('member list octo --json --offline', offline)
  t.match(JSON.parse(json.stdout), [
    { login: 'mona', role: 'admin' },
    { login: 'hubot', role: 'admin' }
  ])
  t.match(await run('member remove octo hubot', online), {
    code: 0,
    stdout: 'hubot is no member of octo any more.\n'
  })
  t.match(await run('member remove octo mona', online), {
    code: 2,
    stdout: '',
    stderr: /^coffer: .*last owner/
  })
  t.match(await run('delete octo', online), { code: 2, stderr: /deletes octo .* Add --yes/ })
  t.match(await run('delete octo --yes', online), { code: 0, stdout: 'Organization octo deleted.\n' })
  t.match(await run('delete octo --yes --offline', offline), {
    code: 2,
    stderr: /There is no organization octo/
  })
})
