import t from 'tap'
import { issueEnvironmentToken } from '../../src/directory/environment-tokens.ts'
import { NotFound } from '../../src/errors.ts'
import { SYSTEM } from '../helper.ts'
import { startOnaServer } from '../routes/rpc/helper.ts'

const HOUR = 3600
const DELIVERY = { purpose: 'deliver', leaseEpoch: 0, lifetimeSeconds: HOUR } as const

async function startWithEnvironments(t: Parameters<typeof startOnaServer>[0]) {
  const server = await startOnaServer(t)
  const { db, acme, owner } = server
  const makeEnvironment = async () => {
    const { id, uid } = await db
      .insertInto('environments')
      .values({
        organization_id: acme.id,
        project_id: null,
        creator_kind: 'user',
        creator_uid: owner.account.uid
      })
      .returning(['id', 'uid'])
      .executeTakeFirstOrThrow()
    return {
      environment_id: id,
      environment_uid: uid,
      organization_id: acme.id,
      organization_uid: acme.uid
    }
  }
  const makeSecret = async (name: string, value: string): Promise<string> => {
    const { body } = await server.call('SecretService/CreateSecret', owner.token, {
      name,
      value,
      environmentVariable: true,
      scope: { organizationId: acme.uid }
    })
    return body.secret.id
  }
  const give = async (environmentId: number, secretUid: string) => {
    const { id } = await db
      .selectFrom('secrets')
      .select('id')
      .where('uid', '=', secretUid)
      .executeTakeFirstOrThrow()
    await db
      .insertInto('environment_secrets')
      .values({ environment_id: environmentId, secret_id: id })
      .execute()
  }
  const read = (token: string | undefined, secretId: string) =>
    server.call('SecretService/GetSecretValue', token, { secretId })
  return { server, makeEnvironment, makeSecret, give, read }
}

t.test('an environment reads what it receives, and nothing else', async (t) => {
  const { server, makeEnvironment, makeSecret, give, read } = await startWithEnvironments(t)
  const [given, kept] = [await makeSecret('GIVEN', 'open sesame'), await makeSecret('KEPT', 'hush')]
  const [mine, others] = [await makeEnvironment(), await makeEnvironment()]
  await give(mine.environment_id, given)
  await give(others.environment_id, kept)
  const { token, expiresAt } = await issueEnvironmentToken(server.db, SYSTEM, mine, DELIVERY)
  t.match(token, /^coffer_env_/)
  const lifetime = expiresAt.getTime() - Date.now()
  t.ok(lifetime > 0 && lifetime <= HOUR * 1000)

  const answer = await read(token, given)
  t.equal(answer.status, 200)
  t.strictSame(answer.body, { value: 'open sesame' })
  t.match((await read(token, kept)).body, { code: 'not_found' })
  t.match((await read(server.owner.token, given)).body, { code: 'permission_denied' })
  const removed = await server.call('SecretService/DeleteSecret', token, { secretId: given })
  t.match(removed.body, { code: 'permission_denied' })

  const records = await server.db
    .selectFrom('audit_events')
    .select(['stream_uid', 'action', 'actor_kind', 'actor_uid', 'subject_uid', 'name'])
    .where('action', 'in', ['token.create', 'secret.read'])
    .where('stream_uid', '=', server.acme.uid)
    .orderBy('id')
    .execute()
  const { id } = await server.db
    .selectFrom('tokens')
    .select('id')
    .where('environment_id', '=', mine.environment_id)
    .executeTakeFirstOrThrow()
  const stream_uid = server.acme.uid
  t.strictSame(records, [
    {
      stream_uid,
      action: 'token.create',
      actor_kind: 'system',
      actor_uid: null,
      subject_uid: mine.environment_uid,
      name: `${mine.environment_uid}#${id}`
    },
    {
      stream_uid,
      action: 'secret.read',
      actor_kind: 'environment',
      actor_uid: mine.environment_uid,
      subject_uid: given,
      name: 'GIVEN'
    }
  ])
})

t.test('what is read at the same moment is recorded one by one, and fails one by one', async (t) => {
  const { server, makeEnvironment, makeSecret, give, read } = await startWithEnvironments(t)
  const environment = await makeEnvironment()
  const { token } = await issueEnvironmentToken(server.db, SYSTEM, environment, DELIVERY)
  const names = Array.from({ length: 99 }, (_, index) => `SECRET_${index}`)
  const ids = await Promise.all(names.map((name) => makeSecret(name, `value of ${name}`)))
  for (const id of ids) await give(environment.environment_id, id)
  const kept = await makeSecret('KEPT', 'hush')
  await server.db
    .updateTable('secrets')
    .set({ envelope: Buffer.alloc(64) })
    .where('name', '=', 'SECRET_98')
    .execute()

  const twice = [...ids, ...ids.map((id) => id.toUpperCase())]
  const answers = await Promise.all(twice.map((id) => read(token, id)))
  t.match((await read(token, kept)).body, { code: 'not_found' })
  for (const [index, { status, body }] of answers.entries()) {
    const name = names[index % 99]
    if (name === 'SECRET_98') t.equal(status, 500, 'one that was altered fails alone')
    else t.strictSame(body, { value: `value of ${name}` })
  }
  const records = await server.db
    .selectFrom('audit_events')
    .select(['name', 'subject_uid', 'request_id', 'envelope_sha256', 'canonical'])
    .where('action', '=', 'secret.read')
    .orderBy('id')
    .execute()
  t.same(records.map(({ name }) => name).sort(), [...names, ...names].sort())
  t.equal(new Set(records.map(({ request_id }) => request_id)).size, records.length)
  for (const { name, subject_uid, request_id, envelope_sha256, canonical } of records) {
    const text = canonical.toString()
    const told = [name, subject_uid, request_id, envelope_sha256!.toString('hex')]
    t.ok(
      told.every((part) => text.includes(`"${part}"`)),
      'what is hashed says the same'
    )
  }
})

t.test('within the process it is the same, with the same records', async (t) => {
  const { server, makeEnvironment, makeSecret, give } = await startWithEnvironments(t)
  const [given, kept] = [await makeSecret('GIVEN', 'open sesame'), await makeSecret('KEPT', 'hush')]
  const environment = await makeEnvironment()
  await give(environment.environment_id, given)
  const { token } = await issueEnvironmentToken(server.db, SYSTEM, environment, DELIVERY)
  const { readValue } = server.app
  t.equal((await readValue(token, given)).toString(), 'open sesame')
  await t.rejects(readValue(token, kept), { code: 'not_found' })
  await t.rejects(readValue(server.owner.token, given), { code: 'forbidden' })
  await t.rejects(readValue(`${token}x`, given), { code: 'unauthenticated' })
  await server.db
    .updateTable('secrets')
    .set({ envelope: Buffer.alloc(64) })
    .where('uid', '=', given)
    .execute()
  await t.rejects(readValue(token, given), { code: 'corrupt_envelope' })
  await server.app.close()
  const log = server.log.join('')
  t.match(log, /request failed/)
  t.notMatch(log, /open sesame|hush/)

  const records = await server.db
    .selectFrom('audit_events')
    .select(['action', 'actor_kind', 'name', 'request_id'])
    .where('action', 'in', ['secret.read', 'access.denied', 'login.failed'])
    .orderBy('action')
    .orderBy('id')
    .execute()
  const method = 'SecretService/GetSecretValue'
  t.match(records, [
    { action: 'access.denied', actor_kind: 'environment', name: method },
    { action: 'access.denied', actor_kind: 'user', name: method },
    { action: 'login.failed', actor_kind: 'anonymous', name: method },
    { action: 'secret.read', actor_kind: 'environment', name: 'GIVEN' },
    { action: 'secret.read', actor_kind: 'environment', name: 'GIVEN' }
  ])
  t.equal(new Set(records.map(({ request_id }) => request_id)).size, 5)
})

t.test('what an environment no longer receives it no longer reads', async (t) => {
  const { server, makeEnvironment, makeSecret, give, read } = await startWithEnvironments(t)
  const secret = await makeSecret('GIVEN', 'open sesame')
  const environment = await makeEnvironment()
  await give(environment.environment_id, secret)
  const { token } = await issueEnvironmentToken(server.db, SYSTEM, environment, DELIVERY)
  t.equal((await read(token, secret)).status, 200)
  await server.db.deleteFrom('environment_secrets').execute()
  t.match((await read(token, secret)).body, { code: 'not_found' })
})

t.test('a token ends with its environment, and none is made for one that is gone', async (t) => {
  const { server, makeEnvironment, makeSecret, give, read } = await startWithEnvironments(t)
  const secret = await makeSecret('GIVEN', 'open sesame')
  const environment = await makeEnvironment()
  await give(environment.environment_id, secret)
  const { token } = await issueEnvironmentToken(server.db, SYSTEM, environment, DELIVERY)
  await server.db.deleteFrom('environments').where('id', '=', environment.environment_id).execute()
  t.equal((await read(token, secret)).status, 401)
  await t.rejects(issueEnvironmentToken(server.db, SYSTEM, environment, DELIVERY), NotFound)
})
