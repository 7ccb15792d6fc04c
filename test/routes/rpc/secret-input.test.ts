import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { insertAuditEvents } from '../../../src/store/audit.ts'
import { isConsistent } from '../../consistency.ts'
import { SYSTEM } from '../../helper.ts'
import { startOnaServer } from './helper.ts'
import { isRefusal, refuses } from './refusal.ts'

const MARKER = 'MARKER-of-a-secret-91d4'
const NOT_HERE = 'There is nothing of that id that this token may know of.'
const NOT_FOUND = { code: 'not_found', message: NOT_HERE } as const
const MOUNTS = 'environmentVariable, filePath, containerRegistryBasicAuthHost, gitCredentialHost, apiOnly'

const server = await startOnaServer(t)
const { owner, member, stranger, acme, db } = server
const token = owner.token
const projectOf = async (token: string, name = 'web'): Promise<string> => {
  const { body } = await server.call('ProjectService/CreateProject', token, { name, initializer: {} })
  return body.project.id
}
const projectId = await projectOf(token)
const foreignProjectId = await projectOf(stranger.token)
const serviceAccountOf = async (organizationId: number): Promise<string> => {
  const { uid } = await db
    .insertInto('service_accounts')
    .values({ organization_id: organizationId, name: 'robot', creator_kind: 'system', creator_uid: null })
    .returning('uid')
    .executeTakeFirstOrThrow()
  return uid
}
const serviceAccountId = await serviceAccountOf(acme.id)
const foreignServiceAccountId = await serviceAccountOf(stranger.organization.id)

let number = 0
const freshName = () => `SECRET_${++number}`
const scope = { projectId }
const creation = (rest: object = {}) => ({
  name: freshName(),
  value: MARKER,
  environmentVariable: true,
  scope,
  ...rest
})

/** Makes a secret; gives it as it is shown. */
async function create(rest: object = {}, by = token) {
  const { status, body } = await server.call('SecretService/CreateSecret', by, creation(rest))
  if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`)
  return body.secret
}

async function auditOf(secretId: string): Promise<string[]> {
  const rows = await db
    .selectFrom('audit_events')
    .select(['action', 'value_version'])
    .where('subject_uid', '=', secretId)
    .where('outcome', '=', 'allowed')
    .orderBy('id')
    .execute()
  return rows.map(({ action, value_version }) => `${action} ${value_version}`)
}

const invalid = (...violations: string[]) => ({ code: 'invalid_argument', violations }) as const

t.test('every constraint of CreateSecret, by field and rule', async (t) => {
  const host = 'must be a host, or *. and one'
  const header = 'must be the name of an HTTP header'
  const path = 'must be an absolute path, as /path/to/file'
  const letters = 'must have letters, digits and underscores alone'
  const proxy = (credentialProxy: object) => ({
    credentialProxy: { targetHosts: ['a.example'], header: 'X', ...credentialProxy }
  })
  const cases: [object, ...string[]][] = [
    [{ name: undefined }, 'name: is required'],
    [{ name: null }, 'name: is required'],
    [{ name: '' }, 'name: is required'],
    [{ name: 'ab' }, 'name: must have at least 3 characters'],
    [{ name: 'a'.repeat(128) }, 'name: must have at most 127 characters'],
    [{ name: 'with-hyphen' }, `name: ${letters}`],
    [{ name: 'with space' }, `name: ${letters}`],
    [{ name: 'trailing\n' }, `name: ${letters}`],
    [{ name: 'ÄÖÜäöü' }, `name: ${letters}`],
    [{ name: '../../etc' }, `name: ${letters}`],
    [{ name: 'nul\0nul' }, 'name: must not contain NUL'],
    [{ name: 'lone\ud800lone' }, 'name: must be Unicode without lone surrogates'],
    [{ name: 123_456 }, 'name: must be a string'],
    [{ value: undefined }, 'value: is required'],
    [{ value: null }, 'value: is required'],
    [{ value: '' }, 'value: is required'],
    [{ value: 123_456 }, 'value: must be a string'],
    [{ value: [MARKER] }, 'value: must be a string'],
    [{ value: 'x'.repeat(10_241) }, 'value: must have at most 10240 characters'],
    [{ value: '𝒳'.repeat(10_241) }, 'value: must have at most 10240 characters'],
    [{ value: `${MARKER}\ud800` }, 'value: must be Unicode without lone surrogates'],
    [{ environmentVariable: undefined }, `mount: one must be set of ${MOUNTS}`],
    [{ environmentVariable: false }, `mount: one must be set of ${MOUNTS}`],
    [{ environmentVariable: undefined, apiOnly: false }, `mount: one must be set of ${MOUNTS}`],
    [{ environmentVariable: 'true' }, 'environmentVariable: must be true or false'],
    [{ filePath: '/etc/x' }, `mount: only one may be set of ${MOUNTS}; environmentVariable and filePath are`],
    [
      { apiOnly: true, containerRegistryBasicAuthHost: 'ghcr.example' },
      `mount: only one may be set of ${MOUNTS}; environmentVariable and containerRegistryBasicAuthHost and apiOnly are`
    ],
    ...['', 'relative/path', '/', '//double', 'C:\\windows', '/line\nbreak', ' /blank'].map(
      (filePath): [object, string] => [{ environmentVariable: null, filePath }, `filePath: ${path}`]
    ),
    [
      { environmentVariable: null, filePath: `/${'a'.repeat(4096)}` },
      'filePath: must have at most 4096 characters'
    ],
    [{ environmentVariable: null, filePath: '/nul\0' }, 'filePath: must not contain NUL'],
    [
      { environmentVariable: null, containerRegistryBasicAuthHost: '' },
      'containerRegistryBasicAuthHost: must have at least 1 character'
    ],
    [
      { environmentVariable: null, containerRegistryBasicAuthHost: 'h'.repeat(1025) },
      'containerRegistryBasicAuthHost: must have at most 1024 characters'
    ],
    [
      { scope: { projectId, userId: owner.account.uid } },
      'scope.scope: only one may be set of projectId, userId, organizationId, serviceAccountId; projectId and userId are'
    ],
    [{ scope: MARKER }, 'scope: must be an object'],
    [{ scope: { projectId: MARKER } }, 'scope.projectId: must be a UUID'],
    [{ scope: { userId: MARKER } }, 'scope.userId: must be a UUID'],
    [{ scope: { organizationId: MARKER } }, 'scope.organizationId: must be a UUID'],
    [{ scope: { serviceAccountId: 'root; drop' } }, 'scope.serviceAccountId: must be a UUID'],
    [{ scope: undefined, projectId: MARKER }, 'projectId: must be a UUID'],
    [
      { credentialProxy: {} },
      'credentialProxy.targetHosts: is required',
      'credentialProxy.header: is required'
    ],
    [{ credentialProxy: [] }, 'credentialProxy: must be an object'],
    [proxy({ targetHosts: [] }), 'credentialProxy.targetHosts: must have at least 1 entry'],
    [proxy({ targetHosts: [''] }), 'credentialProxy.targetHosts[0]: is required'],
    [proxy({ targetHosts: [null] }), 'credentialProxy.targetHosts[0]: must not be null'],
    [proxy({ targetHosts: 'a.example' }), 'credentialProxy.targetHosts: must be a list'],
    [
      proxy({ targetHosts: Array(101).fill('many.example') }),
      'credentialProxy.targetHosts: must have at most 100 entries'
    ],
    ...[
      'https://a.example',
      'a.example/path',
      'a b.example',
      '**.example',
      'user@a.example',
      'a.*.example'
    ].map((wrong): [object, string] => [
      proxy({ targetHosts: ['fine.example', wrong] }),
      `credentialProxy.targetHosts[1]: ${host}`
    ]),
    [proxy({ header: '' }), 'credentialProxy.header: is required'],
    [proxy({ header: 'h'.repeat(256) }), 'credentialProxy.header: must have at most 255 characters'],
    ...['with space', 'colon:', 'line\r\nbreak', 'Ünïcode', '(comment)'].map((wrong): [object, string] => [
      proxy({ header: wrong }),
      `credentialProxy.header: ${header}`
    ]),
    [
      { source: { verbatim: true, oidcJfrog: {} } },
      'source.source: only one may be set of verbatim, oidcJfrog; verbatim and oidcJfrog are'
    ],
    [
      { source: { oidcJfrog: { host: 'jfrog.example' } } },
      'source.oidcJfrog: is not supported by this server'
    ],
    [
      { scope: undefined },
      'scope: set scope (projectId, userId, organizationId or serviceAccountId), or projectId'
    ],
    [{ scope: {} }, 'scope: set scope (projectId, userId, organizationId or serviceAccountId), or projectId'],
    [
      { scope: { userId: owner.account.uid }, projectId },
      'projectId: is not what scope says; set one of the two'
    ],
    [{ scope: { userId: projectId }, projectId }, 'projectId: is not what scope says; set one of the two'],
    [
      { scope: { projectId: foreignProjectId }, projectId },
      'projectId: is not what scope says; set one of the two'
    ],
    [
      { name: 1, value: '', environmentVariable: null, scope: 1 },
      'name: must be a string',
      'value: is required',
      'scope: must be an object',
      `mount: one must be set of ${MOUNTS}`
    ]
  ]
  for (const [index, [change, ...violations]] of cases.entries()) {
    const message = creation(change)
    const name = `${index}: ${violations.join('; ')}`
    await refuses(t, server, ['SecretService/CreateSecret', token, message], invalid(...violations), name)
  }
})

t.test('every constraint of the other methods', async (t) => {
  const { id } = await create()
  const cases: [string, object | undefined, ...string[]][] = [
    ['UpdateSecretValue', undefined, 'secretId: is required', 'value: is required'],
    ['UpdateSecretValue', { secretId: null, value: null }, 'secretId: is required', 'value: is required'],
    ['UpdateSecretValue', { secretId: id }, 'value: is required'],
    ['UpdateSecretValue', { secretId: id, value: '' }, 'value: is required'],
    ['UpdateSecretValue', { secretId: id, value: 5 }, 'value: must be a string'],
    [
      'UpdateSecretValue',
      { secretId: id, value: '\udc00' },
      'value: must be Unicode without lone surrogates'
    ],
    [
      'UpdateSecretValue',
      { secretId: id, value: 'x'.repeat(10_241) },
      'value: must have at most 10240 characters'
    ],
    ['DeleteSecret', {}, 'secretId: is required'],
    ['DeleteSecret', { secretId: [id] }, 'secretId: must be a UUID'],
    ['ListSecrets', { pagination: { pageSize: -1 } }, 'pagination.pageSize: must be at least 0'],
    ['ListSecrets', { pagination: { pageSize: 101 } }, 'pagination.pageSize: must be at most 100'],
    [
      'ListSecrets',
      { pagination: { pageSize: 1.5 } },
      'pagination.pageSize: must be a whole number of 32 bits'
    ],
    ['ListSecrets', { pagination: { token: 5 } }, 'pagination.token: must be a string'],
    ['ListSecrets', { pagination: [] }, 'pagination: must be an object'],
    ['ListSecrets', { filter: MARKER }, 'filter: must be an object'],
    ['ListSecrets', { filter: { scope: { projectId: MARKER } } }, 'filter.scope.projectId: must be a UUID'],
    [
      'ListSecrets',
      { filter: { scope: { projectId, organizationId: acme.uid } } },
      'filter.scope.scope: only one may be set of projectId, userId, organizationId, serviceAccountId; projectId and organizationId are'
    ],
    [
      'ListSecrets',
      { filter: { projectIds: Array.from({ length: 26 }, () => randomUUID()) } },
      'filter.projectIds: must have at most 25 entries'
    ],
    [
      'ListSecrets',
      { filter: { projectIds: [projectId, MARKER, ''] } },
      'filter.projectIds[1]: must be a UUID',
      'filter.projectIds[2]: must be a UUID'
    ],
    ['ListSecrets', { filter: { projectIds: projectId } }, 'filter.projectIds: must be a list']
  ]
  for (const malformed of [
    MARKER,
    '',
    `${id}0`,
    id.replaceAll('-', ''),
    `{${id}}`,
    ' ',
    `${id}\n`,
    5,
    true,
    {}
  ]) {
    cases.push(
      ['UpdateSecretValue', { secretId: malformed, value: MARKER }, 'secretId: must be a UUID'],
      ['DeleteSecret', { secretId: malformed }, 'secretId: must be a UUID']
    )
  }
  for (const [method, message, ...violations] of cases) {
    const name = `${method} ${JSON.stringify(message)?.slice(0, 100)}`
    await refuses(t, server, [`SecretService/${method}`, token, message], invalid(...violations), name)
  }
  t.equal(String(await server.reveal('project', projectId, `SECRET_${number}`)), MARKER, 'the value stayed')
})

t.test('names', async (t) => {
  const taken = [
    'abc',
    'A_1',
    '123',
    '___',
    '0abc',
    'a'.repeat(127),
    'GITHUB_TOKEN',
    'constructor',
    '__proto__'
  ]
  for (const name of taken) {
    const secret = await create({ name })
    t.equal(secret.name, name, 'its case stays')
    t.equal(String(await server.reveal('project', projectId, name)), MARKER)
  }
  const other = await create({ name: 'ABC' })
  t.equal(other.name, 'ABC', 'another name than abc')
})

t.test('what no variable can be called', async (t) => {
  const reserved =
    'HOME, LD_PRELOAD, PATH, PWD, SHELL, USER, BASH_ENV, ENV, NODE_OPTIONS, DOCKER_CONFIG, LD_*, GIT_*, COFFER_*'
  const names = reserved.split(', ').map((name) => name.replace('*', 'whatever'))
  for (const name of names) {
    for (const spelling of [name, name.toLowerCase(), `${name[0]}${name.slice(1).toLowerCase()}`]) {
      await refuses(
        t,
        server,
        ['SecretService/CreateSecret', token, creation({ name: spelling })],
        invalid(`name: is reserved, as a variable's: ${reserved}`),
        spelling
      )
    }
  }
  for (const mount of [
    { filePath: '/run/secret' },
    { containerRegistryBasicAuthHost: 'ghcr.example' },
    { apiOnly: true }
  ]) {
    const prefix = Object.keys(mount)[0]!
    const target = await projectOf(token, prefix)
    for (const name of names) {
      const secret = await create({
        name,
        environmentVariable: false,
        ...mount,
        scope: { projectId: target }
      })
      t.match(secret, { name, ...mount }, `${name} as ${prefix}`)
    }
  }
  for (const name of ['HOMEPAGE', 'MY_PATH', 'GITHUB', 'LDAP', 'ENVIRONMENT', 'USERNAME']) {
    t.equal((await create({ name })).name, name, 'is not reserved')
  }
})

t.test('values are kept byte for byte', async (t) => {
  const values = {
    'one character': 'x',
    'a NUL': '\0',
    'NULs around': '\0a\0',
    'blanks around': ' \t value \t ',
    'line ends': '\r\nline\r\nline\n\n',
    'a byte order mark': '\ufeffvalue',
    'all of ASCII': String.fromCharCode(...Array(128).keys()),
    'composed and decomposed': 'é e\u0301',
    'non-characters': '\ufffe\uffff\u{10ffff}',
    'a replacement character': '\ufffd',
    JSON: '{"a": "\\u0000"}',
    '10,240 characters': 'x'.repeat(10_240),
    '10,240 characters of 4 bytes': '𝒳'.repeat(10_240)
  }
  for (const [what, value] of Object.entries(values)) {
    const { id, name } = await create({ value })
    const stored = await server.reveal('project', projectId, name)
    t.ok(stored?.equals(Buffer.from(value)), `${what}, created`)
    const other = value.startsWith('x') ? value : `${value.slice(0, -2)}y`
    t.strictSame(
      await server
        .call('SecretService/UpdateSecretValue', token, { secretId: id, value: other })
        .then(({ body }) => body),
      {}
    )
    const updated = await server.reveal('project', projectId, name)
    t.ok(updated?.equals(Buffer.from(other)), `${what}, updated`)
  }
})

t.test('mounts, scopes and the proxy are stored and shown', async (t) => {
  const mounts: object[] = [
    { environmentVariable: true },
    { filePath: '/home/me/.ssh/id with blank' },
    { filePath: '/ä/𝒳/..' },
    { containerRegistryBasicAuthHost: 'ghcr.example' },
    { containerRegistryBasicAuthHost: 'https://index.docker.example/v1/' },
    { apiOnly: true }
  ]
  const scopes = [
    { projectId },
    { userId: owner.account.uid },
    { organizationId: acme.uid },
    { serviceAccountId }
  ]
  const proxies = [
    undefined,
    { targetHosts: ['*.github.example', 'api.example:8443', '[::1]'], header: 'Authorization' },
    { targetHosts: ['a.example'], header: "x-odd!#$%&'*+.^_`|~" }
  ]
  for (const mount of mounts) {
    for (const scope of scopes) {
      for (const credentialProxy of proxies) {
        const secret = await create({ environmentVariable: null, ...mount, scope, credentialProxy })
        const { id, name, createdAt, updatedAt, ...rest } = secret
        t.match(id, /^[0-9a-f-]{36}$/)
        t.match(createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
        t.equal(updatedAt, createdAt)
        t.strictSame(
          rest,
          {
            ...('projectId' in scope && { projectId }),
            creator: { id: owner.account.uid, principal: 'PRINCIPAL_USER' },
            ...mount,
            scope,
            ...(credentialProxy && { credentialProxy })
          },
          `${JSON.stringify(mount)} ${JSON.stringify(scope)}`
        )
        const { body } = await server.call('SecretService/ListSecrets', token, {
          filter: { scope },
          pagination: { pageSize: 100 }
        })
        t.strictSame(
          body.secrets.find((listed: { id: string }) => listed.id === id),
          secret,
          'and listed the same'
        )
      }
    }
  }
  const secret = await create({ scope: undefined, projectId })
  t.strictSame([secret.projectId, secret.scope], [projectId, { projectId }], 'the old way to name a project')
  const both = await create({ scope: { project_id: projectId.toUpperCase() }, project_id: projectId })
  t.strictSame([both.projectId, both.scope], [projectId, { projectId }], 'both ways at once')
  const verbatim = await create({ source: { verbatim: true } })
  t.equal(String(await server.reveal('project', projectId, verbatim.name)), MARKER)
})

t.test('scopes that are not there, or not for who asks', async (t) => {
  const nowhere = randomUUID()
  const scopes = [
    { projectId: nowhere },
    { projectId: foreignProjectId },
    { projectId: acme.uid },
    { userId: nowhere },
    { userId: member.account.uid },
    { userId: acme.uid },
    { organizationId: nowhere },
    { organizationId: stranger.organization.uid },
    { organizationId: projectId },
    { serviceAccountId: nowhere },
    { serviceAccountId: foreignServiceAccountId },
    { serviceAccountId: owner.account.uid }
  ]
  for (const scope of scopes) {
    const name = JSON.stringify(scope)
    await refuses(t, server, ['SecretService/CreateSecret', token, creation({ scope })], NOT_FOUND, name)
    await refuses(t, server, ['SecretService/ListSecrets', token, { filter: { scope } }], NOT_FOUND, name)
  }
  const { body } = await server.call('SecretService/ListSecrets', token, {
    filter: { projectIds: [nowhere, foreignProjectId] }
  })
  t.strictSame(body, { pagination: {} }, 'the old filter lists what is seen among them: nothing')
})

t.test('ids that are not there, or not for who asks', async (t) => {
  const repositoryId = await server.createRepository(owner.account, 'web')
  const { uid } = await db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  const paths = [
    '/repos/olga/web/codespaces/secrets',
    '/repos/olga/web/actions/secrets',
    '/orgs/acme/actions/secrets',
    '/orgs/acme/dependabot/secrets'
  ]
  for (const path of paths) {
    const body = { ...(await server.seal(path, token, MARKER)), visibility: 'all' }
    t.equal((await server.request('PUT', `${path}/ONLY_THERE`, { token, body })).statusCode, 201)
  }
  const onlyThere = await db.selectFrom('secrets').select('uid').where('name', '=', 'ONLY_THERE').execute()
  t.equal(onlyThere.length, paths.length)
  const mine = await create({ scope: { userId: stranger.account.uid } }, stranger.token)
  const foreign = await create({ scope: { projectId: foreignProjectId } }, stranger.token)
  const foreignOrganization = await create(
    { scope: { organizationId: stranger.organization.uid } },
    stranger.token
  )
  const foreignRobot = await create({ scope: { serviceAccountId: foreignServiceAccountId } }, stranger.token)
  const deleted = await create()
  await server.call('SecretService/DeleteSecret', token, { secretId: deleted.id })
  const ids = [
    randomUUID(),
    uid,
    projectId,
    ...onlyThere.map(({ uid }) => uid),
    mine.id,
    foreign.id,
    foreignOrganization.id,
    foreignRobot.id,
    deleted.id
  ]
  for (const secretId of ids) {
    const update = ['SecretService/UpdateSecretValue', token, { secretId, value: MARKER }] as const
    await refuses(t, server, update, NOT_FOUND, 'update')
    await refuses(t, server, ['SecretService/DeleteSecret', token, { secretId }], NOT_FOUND, 'delete')
  }

  const robot = await create({ scope: { serviceAccountId } })
  const suspend = (at: Date | null) =>
    db.updateTable('service_accounts').set({ suspended_at: at }).where('uid', '=', serviceAccountId).execute()
  await suspend(new Date())
  await refuses(
    t,
    server,
    ['SecretService/UpdateSecretValue', token, { secretId: robot.id, value: MARKER }],
    NOT_FOUND,
    'of a service account that was deleted'
  )
  await refuses(
    t,
    server,
    ['SecretService/CreateSecret', token, creation({ scope: { serviceAccountId } })],
    NOT_FOUND,
    'for a service account that was deleted'
  )
  await suspend(null)

  const shouted = await create()
  const secretId = shouted.id.toUpperCase()
  t.strictSame(
    (await server.call('SecretService/UpdateSecretValue', token, { secretId, value: 'new' })).body,
    {},
    'an id has no case'
  )
  t.equal(String(await server.reveal('project', projectId, shouted.name)), 'new')
  t.strictSame((await server.call('SecretService/DeleteSecret', token, { secret_id: secretId })).body, {})
  t.equal(await server.reveal('project', projectId, shouted.name), undefined)
})

t.test('limits name the variable that sets them', async (t) => {
  const small = await startOnaServer(t, { maxValueBytes: 100, maxSecrets: 3 })
  const scope = { userId: small.owner.account.uid }
  const make = (name: string, value: string) =>
    ['SecretService/CreateSecret', small.owner.token, { name, value, scope, apiOnly: true }] as const
  const tooLarge = {
    code: 'failed_precondition',
    message: 'The value is larger than 100 bytes, the limit that COFFER_MAX_VALUE_BYTES sets.'
  } as const
  await refuses(t, small, make('LARGE', 'x'.repeat(101)), tooLarge, 'a byte too many')
  await refuses(t, small, make('LARGE', '𝒳'.repeat(26)), tooLarge, '26 characters of 4 bytes')
  const { body } = await small.call(...make('ONE', '𝒳'.repeat(25)))
  t.equal(String(await small.reveal('user', small.owner.account.uid, 'ONE')), '𝒳'.repeat(25))
  const update = (value: string) =>
    ['SecretService/UpdateSecretValue', small.owner.token, { secretId: body.secret.id, value }] as const
  await refuses(t, small, update('x'.repeat(101)), tooLarge, 'an update a byte too large')
  t.equal((await small.call(...update('x'.repeat(100)))).status, 200)

  t.equal((await small.call(...make('two', 'value'))).status, 200)
  t.equal((await small.call(...make('THREE', 'value'))).status, 200)
  const full = {
    code: 'failed_precondition',
    message: /^This collection holds 3 secrets, the limit that COFFER_MAX_SECRETS sets; /
  } as const
  await refuses(t, small, make('FOUR', 'value'), full, 'a secret too many')
  const taken = { code: 'already_exists' } as const
  await refuses(t, small, make('THREE', 'value'), taken, 'a name that is there, when it is full')
  await small.call('SecretService/DeleteSecret', small.owner.token, { secretId: body.secret.id })
  const fourAtOnce = await Promise.all(
    ['A', 'B', 'C', 'D'].map((letter) => small.call(...make(`NEW_${letter}`, 'v')))
  )
  t.strictSame(fourAtOnce.map(({ status }) => status).sort(), [200, 400, 400, 400], 'one place, four at once')
})

t.test('a name is taken once in a collection, and free in every other one', async (t) => {
  const secret = await create({ name: 'TAKEN' })
  const taken = {
    code: 'already_exists',
    message: 'There is a secret of that name already; update its value, or delete it first.'
  } as const
  for (const mount of [
    {},
    { environmentVariable: false, apiOnly: true },
    { environmentVariable: null, filePath: '/a' }
  ]) {
    const message = creation({ name: 'TAKEN', value: 'another', ...mount })
    await refuses(t, server, ['SecretService/CreateSecret', token, message], taken, JSON.stringify(mount))
  }
  for (const scope of [{ userId: owner.account.uid }, { organizationId: acme.uid }]) {
    t.equal((await create({ name: 'TAKEN', scope })).name, 'TAKEN')
  }
  t.strictSame(await auditOf(secret.id), ['secret.create 1'])
})

t.test('of two creates at the same moment one wins', async (t) => {
  for (let round = 0; round < 25; round++) {
    const name = freshName()
    const values = ['first', 'second', 'third', 'fourth']
    const answers = await Promise.all(
      values.map((value) => server.call('SecretService/CreateSecret', token, creation({ name, value })))
    )
    const won = answers.flatMap(({ status }, index) => (status === 200 ? [index] : []))
    t.equal(won.length, 1, `${name}: one wins`)
    for (const answer of answers.filter(({ status }) => status !== 200)) {
      isRefusal(t, answer, { code: 'already_exists' }, `${name}: the others are told`)
    }
    const rows = await db.selectFrom('secrets').select('uid').where('name', '=', name).execute()
    t.strictSame(rows, [{ uid: answers[won[0]!]!.body.secret.id }], `${name}: one row`)
    t.equal(
      String(await server.reveal('project', projectId, name)),
      values[won[0]!],
      'with the value of who won'
    )
    const records = await db
      .selectFrom('audit_events')
      .select(['action', 'subject_uid'])
      .where('name', '=', name)
      .execute()
    t.strictSame(records, [{ action: 'secret.create', subject_uid: rows[0]!.uid }], `${name}: one record`)
  }
})

t.test('updates at the same moment all count', async (t) => {
  const { id, name } = await create()
  const values = Array.from({ length: 12 }, (_, n) => `value ${n}`)
  const answers = await Promise.all(
    values.map((value) => server.call('SecretService/UpdateSecretValue', token, { secretId: id, value }))
  )
  t.ok(answers.every(({ status, body }) => status === 200 && Object.keys(body).length === 0))
  t.ok(values.includes(String(await server.reveal('project', projectId, name))))
  const versions = (await auditOf(id)).slice(1)
  t.strictSame(
    versions,
    values.map((_, n) => `secret.update ${n + 2}`)
  )
})

t.test('an update and a delete at the same moment', async (t) => {
  const seen = new Set<number>()
  for (let round = 0; round < 40; round++) {
    const { id, name } = await create()
    const [updated, removed, again] = await Promise.all([
      server.call('SecretService/UpdateSecretValue', token, { secretId: id, value: 'late' }),
      server.call('SecretService/DeleteSecret', token, { secretId: id }),
      ...(round % 2 ? [server.call('SecretService/DeleteSecret', token, { secretId: id })] : [])
    ])
    seen.add(updated!.status)
    if (updated!.status !== 200) isRefusal(t, updated!, NOT_FOUND, 'the update came too late')
    const removals = [removed!, ...(again ? [again] : [])]
    t.equal(removals.filter(({ status }) => status === 200).length, 1, 'it is deleted once')
    for (const answer of removals.filter(({ status }) => status !== 200))
      isRefusal(t, answer, NOT_FOUND, 'and not twice')
    t.equal(await server.reveal('project', projectId, name), undefined)
    const expected =
      updated!.status === 200
        ? ['secret.create 1', 'secret.update 2', 'secret.remove 2']
        : ['secret.create 1', 'secret.remove 1']
    t.strictSame(await auditOf(id), expected)
  }
  t.comment(`updates were answered with ${[...seen].join(' and ')}`)
})

t.test('what is deleted is gone', async (t) => {
  const { id, name } = await create()
  t.strictSame((await server.call('SecretService/DeleteSecret', token, { secretId: id })).body, {})
  await refuses(
    t,
    server,
    ['SecretService/DeleteSecret', token, { secretId: id }],
    NOT_FOUND,
    'deleted twice'
  )
  const update = ['SecretService/UpdateSecretValue', token, { secretId: id, value: MARKER }] as const
  await refuses(t, server, update, NOT_FOUND, 'updated')
  const again = await create({ name })
  t.not(again.id, id, 'one of the same name is another one')
  await refuses(
    t,
    server,
    ['SecretService/DeleteSecret', token, { secretId: id }],
    NOT_FOUND,
    'by the old id'
  )
  await refuses(t, server, update, NOT_FOUND, 'by the old id')
  t.equal(String(await server.reveal('project', projectId, name)), MARKER)
})

/** Until so many statements wait for a lock. */
async function untilWaiting(count: number): Promise<void> {
  for (;;) {
    const { rows } = await sql<{ total: number }>`select count(*) as total from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`.execute(db)
    if (rows[0]!.total >= count) return
    await setImmediate()
  }
}

/** Calls by the id of a secret, while another one takes its place that has its name. */
async function whileReplaced(t: Test, calls: (secretId: string) => ReturnType<typeof server.call>[]) {
  const { id, name } = await create()
  const { answers, fresh } = await db.transaction().execute(async (tx) => {
    const row = await tx
      .selectFrom('secrets')
      .selectAll()
      .where('uid', '=', id)
      .forUpdate()
      .executeTakeFirstOrThrow()
    const answers = calls(id)
    await untilWaiting(answers.length)
    await tx.deleteFrom('secrets').where('uid', '=', id).execute()
    await insertAuditEvents(tx, [
      { streamUid: acme.uid, principal: SYSTEM, action: 'secret.remove', subjectUid: id, valueVersion: 1 }
    ])
    const fresh = randomUUID()
    const context = { collection: `codespaces/project/${projectId}`, secretUid: fresh, name, valueVersion: 1 }
    const { envelope, generationId } = server.keyring.sealValue(context, Buffer.from('the new one'))
    const { id: _, github_name: __, ...columns } = row
    await tx
      .insertInto('secrets')
      .values({ ...columns, uid: fresh, envelope, generation_id: String(generationId), value_version: 1 })
      .execute()
    return { answers, fresh }
  })
  for (const answer of await Promise.all(answers))
    isRefusal(t, answer, NOT_FOUND, 'it is not that one any more')
  t.equal(String(await server.reveal('project', projectId, name)), 'the new one')
  const rows = await db
    .selectFrom('secrets')
    .select(['uid', 'row_version'])
    .where('name', '=', name)
    .execute()
  t.strictSame(rows, [{ uid: fresh, row_version: 1 }], 'untouched')
  await db.deleteFrom('secrets').where('uid', '=', fresh).execute()
}

t.test('a delete and an update by the id of the secret before leave the new one alone', async (t) => {
  await whileReplaced(t, (secretId) => [server.call('SecretService/DeleteSecret', token, { secretId })])
  await whileReplaced(t, (secretId) => [
    server.call('SecretService/UpdateSecretValue', token, { secretId, value: MARKER })
  ])
  await whileReplaced(t, (secretId) => [
    server.call('SecretService/DeleteSecret', token, { secretId }),
    server.call('SecretService/UpdateSecretValue', token, { secretId, value: MARKER })
  ])
  for (let round = 0; round < 20; round++) {
    const { id, name } = await create()
    const remove = () => server.call('SecretService/DeleteSecret', token, { secretId: id })
    const [, made] = await Promise.all([remove(), remove().then(() => create({ name })), remove(), remove()])
    const rows = await db.selectFrom('secrets').select('uid').where('name', '=', name).execute()
    t.strictSame(rows, [{ uid: made!.id }])
  }
})

t.test('creates while the project is deleted leave nothing behind', async (t) => {
  for (let round = 0; round < 10; round++) {
    const doomed = await projectOf(token, 'doomed')
    const make = () =>
      server.call('SecretService/CreateSecret', token, creation({ scope: { projectId: doomed } }))
    await make()
    const [removed, ...made] = await Promise.all([
      server.call('ProjectService/DeleteProject', token, { projectId: doomed }),
      make(),
      make(),
      make()
    ])
    t.equal(removed!.status, 200)
    for (const answer of made.filter(({ status }) => status !== 200))
      isRefusal(t, answer!, { code: 'not_found' }, 'too late')
    const rows = await db.selectFrom('secrets').select('uid').where('owner_uid', '=', doomed).execute()
    t.strictSame(rows, [])
  }
})

t.test('afterwards', async (t) => {
  await isConsistent(t, db)
  const lines = server.log.join('')
  t.notMatch(lines, MARKER, 'no value in the log')
  t.strictSame(
    server.log.map((line) => JSON.parse(line)).filter(({ level }) => level === 'error' || level === 'fatal'),
    []
  )
})
