import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { Keyring } from '../../../src/keyring/index.ts'
import {
  activateWhenReady,
  beginRotation,
  loadGenerations,
  reencryptAll
} from '../../../src/secrets/generations.ts'
import { reveal } from '../../../src/secrets/vault.ts'
import { isConsistent } from '../../consistency.ts'
import { sealFor } from '../../helper.ts'
import { startOnaServer } from './helper.ts'
import { isRefusal } from './refusal.ts'

// One set of secrets behind both APIs: what one of them does, the other one shows.

const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/codespaces/secrets'

/** olga owns acme. `sides` are the collections that both APIs know. */
async function setStage(t: Test, options: Parameters<typeof startOnaServer>[1] = {}) {
  const server = await startOnaServer(t, options)
  const { owner, acme, db } = server
  const { token } = owner
  const call = async (method: string, message: object) => {
    const answer = await server.call(`SecretService/${method}`, token, message)
    if (answer.status !== 200) throw new Error(`${method}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const github = (
    method: 'GET' | 'PUT' | 'DELETE',
    url: string,
    body?: object,
    headers?: Record<string, string>
  ) => server.request(method, url, { token, ...(body && { body }), ...(headers && { headers }) })
  const sides = [
    {
      kind: 'user',
      path: USER,
      ownerUid: owner.account.uid,
      scope: { userId: owner.account.uid },
      extra: {}
    },
    {
      kind: 'organization',
      path: ORG,
      ownerUid: acme.uid,
      scope: { organizationId: acme.uid },
      extra: { visibility: 'all' }
    }
  ] as const
  type Side = (typeof sides)[number]
  return {
    server,
    db,
    token,
    call,
    github,
    sides,
    /** as a client of GitHub's API does, with a box */
    async put(
      { path, extra }: Pick<Side, 'path' | 'extra'>,
      name: string,
      value: string | Uint8Array,
      more: object = {}
    ) {
      const body = { ...(await server.seal(path, token, value)), ...extra, ...more }
      return (await github('PUT', `${path}/${name}`, body)).statusCode
    },
    async make(
      { scope }: Pick<Side, 'scope'>,
      name: string,
      value: string,
      mount: object = { environmentVariable: true }
    ) {
      return (await call('CreateSecret', { name, value, scope, ...mount })).secret
    },
    async list({ scope }: Pick<Side, 'scope'>) {
      return (await call('ListSecrets', { filter: { scope }, pagination: { pageSize: 100 } })).secrets ?? []
    },
    async shown({ path }: Pick<Side, 'path'>) {
      const response = await github('GET', `${path}?per_page=100`)
      const { total_count, secrets } = response.json()
      return { total_count, names: secrets.map(({ name }: { name: string }) => name), secrets }
    },
    stored: async ({ kind, ownerUid }: Pick<Side, 'kind' | 'ownerUid'>, name: string) =>
      (await server.reveal(kind, ownerUid, name))?.toString()
  }
}

t.test("what GitHub's API stores is listed by Ona's", async (t) => {
  const { sides, put, list, server, stored, call, github } = await setStage(t)
  for (const side of sides) {
    t.equal(await put(side, 'FROM_GH', 'sealed'), 201)
    const [secret, ...others] = await list(side)
    t.strictSame(others, [])
    const { id, createdAt, updatedAt, ...rest } = secret
    t.strictSame(rest, {
      name: 'FROM_GH',
      environmentVariable: true,
      scope: side.scope,
      creator: { id: server.owner.account.uid, principal: 'PRINCIPAL_USER' }
    })
    t.equal(createdAt, updatedAt)

    await call('UpdateSecretValue', { secretId: id, value: 'from the SDK' })
    t.equal(await stored(side, 'FROM_GH'), 'from the SDK')
    const after = (await github('GET', `${side.path}/FROM_GH`)).json()
    t.ok(Date.parse(after.updated_at) >= Date.parse(after.created_at))
    t.equal(await put(side, 'FROM_GH', 'sealed again'), 204)
    t.equal(await stored(side, 'FROM_GH'), 'sealed again')
    t.equal((await list(side))[0].id, id, 'it is the same one')
  }
})

t.test("what Ona's API makes is in GitHub's list, for all", async (t) => {
  const { sides, make, shown, github, stored, put, server, list, call } = await setStage(t)
  for (const side of sides) {
    await make(side, 'FROM_ONA', 'in plain')
    const { total_count, secrets } = await shown(side)
    t.equal(total_count, 1)
    t.match(secrets, [{ name: 'FROM_ONA', visibility: 'all' }])
    const one = await github('GET', `${side.path}/FROM_ONA`)
    t.equal(one.statusCode, 200)
    t.match(one.json(), { name: 'FROM_ONA', visibility: 'all' })
    t.equal(await put(side, 'FROM_ONA', 'sealed'), 204)
    t.equal(await stored(side, 'FROM_ONA'), 'sealed')
  }
  t.match(
    (await github('GET', `${USER}/FROM_ONA`)).json(),
    { visibility: 'all' },
    'a new value changes nothing else'
  )
  const repositoryId = await server.createRepository(server.owner.account, 'web')
  t.equal(
    (await github('PUT', `${USER}/FROM_ONA/repositories/${repositoryId}`)).statusCode,
    409,
    'it is for all'
  )
  const body = { selected_repository_ids: [repositoryId] }
  t.equal(
    (await github('PUT', `${USER}/FROM_ONA/repositories`, body)).statusCode,
    204,
    'until some are named'
  )
  t.match((await github('GET', `${USER}/FROM_ONA`)).json(), { visibility: 'selected' })
  const [{ id }] = await list(sides[0]!)
  await call('UpdateSecretValue', { secretId: id, value: 'in plain again' })
  t.match(
    (await github('GET', `${USER}/FROM_ONA`)).json(),
    { visibility: 'selected' },
    'which a new value leaves'
  )
  const { repositories } = (await github('GET', `${USER}/FROM_ONA/repositories`)).json()
  t.strictSame(
    repositories.map(({ id }: { id: number }) => id),
    [repositoryId]
  )
})

t.test('mounts that GitHub does not know stay when GitHub writes', async (t) => {
  const { sides, make, put, list, shown, stored } = await setStage(t)
  const credentialProxy = { targetHosts: ['*.example'], header: 'Authorization' }
  const mounts = {
    A_FILE: { filePath: '/run/a' },
    A_REGISTRY: { containerRegistryBasicAuthHost: 'ghcr.example' },
    API_ONLY: { apiOnly: true },
    PROXIED: { environmentVariable: true, credentialProxy }
  }
  for (const side of sides) {
    for (const [name, mount] of Object.entries(mounts)) {
      const made = await make(side, name, 'first', mount)
      t.ok((await shown(side)).names.includes(name), `${name} is in GitHub's list`)
      t.equal(await put(side, name, 'second'), 204)
      t.equal(await stored(side, name), 'second')
      const after = (await list(side)).find(({ id }: { id: string }) => id === made.id)
      t.match(after, { ...mount, name, scope: side.scope })
      t.strictSame({ ...after, updatedAt: made.updatedAt }, made, 'nothing but its value and its time')
    }
  }
})

t.test('names that GitHub cannot have', async (t) => {
  const { sides, make, put, list, shown, github, stored, call } = await setStage(t, { maxSecrets: 5 })
  for (const side of sides) {
    const foo = await make(side, 'foo', 'of foo')
    const digit = await make(side, '0abc', 'of 0abc')
    const prefixed = await make(side, 'GITHUB_TOKEN', 'of GITHUB_TOKEN')
    t.strictSame(await shown(side), { total_count: 0, names: [], secrets: [] }, 'not listed, not counted')
    for (const name of ['foo', 'FOO', '0abc', 'GITHUB_TOKEN']) {
      t.equal((await github('GET', `${side.path}/${name}`)).statusCode, 404, name)
      t.equal((await github('DELETE', `${side.path}/${name}`)).statusCode, 404, name)
    }
    t.equal(await put(side, 'foo', 'of FOO'), 201, "GitHub's foo is FOO, beside it")
    t.equal(await stored(side, 'foo'), 'of foo')
    t.equal(await stored(side, 'FOO'), 'of FOO')
    t.strictSame((await shown(side)).names, ['FOO'])
    t.equal((await github('GET', `${side.path}/foo`)).statusCode, 200, 'which is found in any case')
    t.strictSame(
      (await list(side)).map(({ name }: { name: string }) => name),
      ['0abc', 'FOO', 'GITHUB_TOKEN', 'foo']
    )

    t.equal(await put(side, 'FIFTH', 'fits'), 201)
    const body = { ...(await sealedFor(side)), ...side.extra }
    const full = await github('PUT', `${side.path}/SIXTH`, body)
    t.equal(full.statusCode, 422, 'what is not listed counts')
    t.match(full.json().message, /holds 5 secrets.*secrets whose names this API does not list count too/)
    await call('DeleteSecret', { secretId: foo.id })
    t.equal((await github('PUT', `${side.path}/SIXTH`, body)).statusCode, 201, 'one was removed')
    t.equal(await stored(side, 'FOO'), 'of FOO', 'the other one stayed')
    for (const { id } of [digit, prefixed]) await call('DeleteSecret', { secretId: id })
    t.equal((await shown(side)).total_count, 3)
  }

  async function sealedFor({ path }: { path: string }) {
    const { key_id, key } = (await github('GET', `${path}/public-key`)).json()
    return { key_id, encrypted_value: sealFor(key, 'one too many') }
  }
})

t.test("what only GitHub's limits allow is listed, and can be replaced", async (t) => {
  const { sides, put, list, stored, call, server } = await setStage(t)
  for (const side of sides) {
    const large = 'x'.repeat(49_152)
    const binary = Uint8Array.from([0, 255, 254, 0xed, 0xa0, 0x80])
    t.equal(await put(side, 'A', 'short name'), 201)
    t.equal(await put(side, 'L'.repeat(255), 'long name'), 201)
    t.equal(await put(side, 'LARGE', large), 201)
    t.equal(await put(side, 'BINARY', binary), 201)
    t.equal(await put(side, 'EMPTY', ''), 201)
    t.equal(await put(side, 'PATH', 'reserved'), 201)
    const listed: { id: string; name: string }[] = await list(side)
    t.strictSame(
      listed.map(({ name }) => name),
      ['A', 'BINARY', 'EMPTY', 'LARGE', 'L'.repeat(255), 'PATH']
    )
    t.equal(await stored(side, 'LARGE'), large)
    t.ok((await server.reveal(side.kind, side.ownerUid, 'BINARY'))?.equals(binary))
    for (const { id, name } of listed) {
      t.strictSame(await call('UpdateSecretValue', { secretId: id, value: `new ${name.length}` }), {})
      t.equal(await stored(side, name), `new ${name.length}`)
    }
    for (const { id } of listed) await call('DeleteSecret', { secretId: id })
    t.strictSame(await list(side), [])
  }
})

t.test('what is deleted on one side is gone on the other', async (t) => {
  const { sides, make, put, list, shown, github, stored, call, server, token } = await setStage(t)
  for (const side of sides) {
    const { id } = await make(side, 'GONE', 'value')
    t.equal((await github('DELETE', `${side.path}/GONE`)).statusCode, 204)
    t.strictSame(await list(side), [])
    for (const [method, more] of [
      ['DeleteSecret', {}],
      ['UpdateSecretValue', { value: 'x' }]
    ] as const) {
      const answer = await server.call(`SecretService/${method}`, token, { secretId: id, ...more })
      isRefusal(t, answer, { code: 'not_found' }, method)
    }
    t.equal(await put(side, 'GONE', 'anew'), 201)
    const [{ id: other }] = await list(side)
    t.not(other, id, 'another one')
    await call('DeleteSecret', { secretId: other })
    t.equal((await github('GET', `${side.path}/GONE`)).statusCode, 404)
    t.equal((await github('DELETE', `${side.path}/GONE`)).statusCode, 404)
    t.equal((await shown(side)).total_count, 0)
    t.equal(await stored(side, 'GONE'), undefined)
  }
})

t.test("secrets of other apps and of repositories are GitHub's alone", async (t) => {
  const { server, token, github, list, sides } = await setStage(t)
  await server.createRepository(server.acme, 'web')
  const paths = [
    '/orgs/acme/actions/secrets',
    '/orgs/acme/dependabot/secrets',
    '/orgs/acme/agents/secrets',
    '/repos/acme/web/codespaces/secrets',
    '/repos/acme/web/actions/secrets'
  ]
  for (const path of paths) {
    const body = { ...(await server.seal(path, token, 'theirs')), visibility: 'all' }
    t.equal((await github('PUT', `${path}/THEIRS`, body)).statusCode, 201, path)
  }
  for (const side of sides) t.strictSame(await list(side), [])
  t.strictSame((await server.call('SecretService/ListSecrets', token, {})).body, { pagination: {} })
})

t.test('what a client of one side knew is out of date when the other one wrote', async (t) => {
  const { sides, make, github, call, stored, server, token } = await setStage(t)
  for (const side of sides) {
    const { id } = await make(side, 'TAGGED', 'first')
    const url = `${side.path}/TAGGED`
    const before = await github('GET', url)
    const etag = String(before.headers.etag)
    t.equal((await github('GET', url, undefined, { 'if-none-match': etag })).statusCode, 304)
    await call('UpdateSecretValue', { secretId: id, value: 'second' })
    const after = await github('GET', url, undefined, { 'if-none-match': etag })
    t.equal(after.statusCode, 200, 'a new value has another tag')
    t.not(after.headers.etag, etag)
    const body = { ...(await server.seal(side.path, token, 'third')), ...side.extra }
    t.equal((await github('PUT', url, body, { 'if-match': etag })).statusCode, 412)
    t.equal((await github('DELETE', url, undefined, { 'if-match': etag })).statusCode, 412)
    t.equal(await stored(side, 'TAGGED'), 'second')
    t.equal((await github('PUT', url, body, { 'if-match': String(after.headers.etag) })).statusCode, 204)
  }
})

t.test('both sides at the same moment', async (t) => {
  const { sides, server, token, github, stored, call, list, db } = await setStage(t)
  for (const side of sides) {
    const sealed = { ...(await server.seal(side.path, token, 'sealed')), ...side.extra }
    for (let round = 0; round < 15; round++) {
      const name = `RACE_${side.kind.toUpperCase()}_${round}`
      const url = `${side.path}/${name}`
      const create = { name, value: 'in plain', environmentVariable: true, scope: side.scope }
      const [put, made] = await Promise.all([
        github('PUT', url, sealed),
        server.call('SecretService/CreateSecret', token, create)
      ])
      if (made!.status === 200) t.equal(put!.statusCode, 204, 'made by one, updated by the other')
      else {
        t.equal(put!.statusCode, 201)
        isRefusal(t, made!, { code: 'already_exists' }, 'who came second is told')
      }
      t.equal(await stored(side, name), 'sealed', 'the box was the last, or the only one')
      const [{ id }] = (await list(side)).filter((secret: { name: string }) => secret.name === name)
      const update = () =>
        server.call('SecretService/UpdateSecretValue', token, { secretId: id, value: 'both' })
      const [again, updated] = await Promise.all([github('PUT', url, sealed), update()])
      t.strictSame([again!.statusCode, updated!.status], [204, 200], 'two new values, one after the other')
      t.ok(['sealed', 'both'].includes((await stored(side, name))!))
      const [removed, deleted] = await Promise.all([
        github('DELETE', url),
        server.call('SecretService/DeleteSecret', token, { secretId: id })
      ])
      const statuses = [removed!.statusCode, deleted!.status]
      t.ok([204, 404].includes(statuses[0]!) && [200, 404].includes(statuses[1]!))
      t.equal(statuses.filter((status) => status !== 404).length, 1, `it is deleted once: ${statuses}`)
      const rows = await db.selectFrom('secrets').select('uid').where('name', '=', name).execute()
      t.strictSame(rows, [])
    }
  }
  await isConsistent(t, db)
  await call('ListSecrets', {})
})

t.test('the audit of both sides is one', async (t) => {
  const { sides, server, token, put, make, github, call, db, list } = await setStage(t)
  const { owner, acme } = server
  const { body } = await server.call('ProjectService/CreateProject', token, { name: 'web', initializer: {} })
  const projectId = body.project.id
  const { uid: serviceAccountId } = await db
    .insertInto('service_accounts')
    .values({ organization_id: acme.id, name: 'robot', creator_kind: 'system', creator_uid: null })
    .returning('uid')
    .executeTakeFirstOrThrow()
  for (const side of sides) {
    await put(side, 'AUDITED', 'one')
    const [{ id }] = await list(side)
    await call('UpdateSecretValue', { secretId: id, value: 'two' })
    await put(side, 'AUDITED', 'three')
    await call('DeleteSecret', { secretId: id })
    await make(side, 'AUDITED', 'one')
    await github('DELETE', `${side.path}/AUDITED`)
  }
  for (const scope of [{ projectId }, { serviceAccountId }]) {
    const { secret } = await call('CreateSecret', { name: 'AUDITED', value: 'one', apiOnly: true, scope })
    await call('UpdateSecretValue', { secretId: secret.id, value: 'two' })
    await call('DeleteSecret', { secretId: secret.id })
  }
  const { id: tokenId } = await db
    .selectFrom('tokens')
    .select('id')
    .where('account_id', '=', owner.account.id)
    .executeTakeFirstOrThrow()
  const events = await db
    .selectFrom('audit_events')
    .select([
      'stream_uid',
      'collection',
      'action',
      'value_version',
      'actor_kind',
      'actor_uid',
      'token_id',
      'request_id',
      sql<boolean>`envelope_sha256 is not null`.as('hashed')
    ])
    .where('name', '=', 'AUDITED')
    .orderBy('id')
    .execute()
  const expected = (collection: string, stream: string, actions: string[]) =>
    actions.map((action) => {
      const [verb, version] = action.split(' ')
      return {
        stream_uid: stream,
        collection,
        action: `secret.${verb}`,
        value_version: Number(version),
        actor_kind: 'user',
        actor_uid: owner.account.uid,
        token_id: tokenId,
        hashed: verb !== 'remove'
      }
    })
  const both = ['create 1', 'update 2', 'update 3', 'remove 3', 'create 1', 'remove 1']
  const once = ['create 1', 'update 2', 'remove 2']
  t.strictSame(
    events.map(({ request_id, ...event }) => event),
    [
      ...expected(`codespaces/user/${owner.account.uid}`, owner.account.uid, both),
      ...expected(`codespaces/organization/${acme.uid}`, acme.uid, both),
      ...expected(`codespaces/project/${projectId}`, acme.uid, once),
      ...expected(`codespaces/service-account/${serviceAccountId}`, acme.uid, once)
    ]
  )
  t.equal(new Set(events.map(({ request_id }) => request_id)).size, events.length, 'each by its own request')
  const log = (
    await server.request('GET', '/orgs/acme/audit-log?phrase=action:secret&per_page=100', { token })
  ).json()
  const shown = log.filter(
    (entry: { name?: string }) => entry.name === 'AUDITED' || JSON.stringify(entry).includes('AUDITED')
  )
  t.equal(shown.length, both.length + once.length * 2, "GitHub's audit log of the organization shows them")
  await isConsistent(t, db)
})

t.test('rotation and re-encryption cover the collections of Ona', async (t) => {
  const { server, token, call, put, sides, db } = await setStage(t)
  const { acme, keyring, vault } = server
  const { body } = await server.call('ProjectService/CreateProject', token, { name: 'web', initializer: {} })
  const projectId = body.project.id
  const { uid: serviceAccountId } = await db
    .insertInto('service_accounts')
    .values({ organization_id: acme.id, name: 'robot', creator_kind: 'system', creator_uid: null })
    .returning('uid')
    .executeTakeFirstOrThrow()
  const owners = [
    ['project', projectId, { projectId }],
    ['service-account', serviceAccountId, { serviceAccountId }],
    ['user', server.owner.account.uid, sides[0]!.scope],
    ['organization', acme.uid, sides[1]!.scope]
  ] as const
  const credentialProxy = { targetHosts: ['a.example'], header: 'X-Token' }
  for (const [kind, , scope] of owners) {
    for (let n = 0; n < 5; n++) {
      await call('CreateSecret', {
        name: `${kind.replace('-', '_')}_${n}`,
        value: `value ${n} of ${kind}`,
        filePath: `/run/${n}`,
        credentialProxy,
        scope
      })
    }
  }
  for (const side of sides) await put(side, 'SEALED', 'sealed')
  const rows = () =>
    db
      .selectFrom('secrets')
      .select([
        'uid',
        'name',
        'kind',
        'mount',
        'mount_target',
        'credential_proxy',
        'visibility',
        'value_version',
        'row_version',
        'created_at',
        'updated_at'
      ])
      .orderBy('id')
      .execute()
  const before = await rows()
  const revealed = async (by: Keyring) => {
    for (const [kind, ownerUid] of owners) {
      for (let n = 0; n < 5; n++) {
        const collection = { app: 'codespaces', kind, ownerUid } as const
        const value = await reveal({ db, keyring: by }, collection, `${kind.replace('-', '_')}_${n}`)
        t.equal(String(value), `value ${n} of ${kind}`)
      }
    }
  }
  const listed = (await call('ListSecrets', { pagination: { pageSize: 100 } })).secrets
  t.equal(listed.length, 22)

  const { id: next } = await beginRotation(db, keyring)
  await loadGenerations(db, keyring)
  t.equal((await activateWhenReady(db, 3600)).state, 'activated')
  await loadGenerations(db, keyring)
  await revealed(keyring)
  t.strictSame(await reencryptAll(vault, () => {}), { done: 22, unreadable: [] })
  const generations = await db.selectFrom('secrets').select('generation_id').distinct().execute()
  t.strictSame(generations, [{ generation_id: next }], 'nothing is left under the old generation')
  t.strictSame(await rows(), before, 'neither versions nor times moved')
  t.strictSame((await call('ListSecrets', { pagination: { pageSize: 100 } })).secrets, listed)
  const fresh = new Keyring([keyring.wrappingKey])
  await loadGenerations(db, fresh)
  await revealed(fresh)

  const { secret } = await call('CreateSecret', {
    name: 'afterwards',
    value: 'new',
    apiOnly: true,
    scope: { projectId }
  })
  await call('UpdateSecretValue', { secretId: listed[0].id, value: 'newer' })
  const after = await db
    .selectFrom('secrets')
    .select(['uid', 'generation_id'])
    .where('uid', '=', secret.id)
    .execute()
  t.strictSame(after, [{ uid: secret.id, generation_id: next }])
})
