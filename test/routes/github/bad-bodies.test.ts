import t from 'tap'
import { startTestServer } from '../../helper.ts'
import { type Refusal, refuses } from './refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const ORG = '/orgs/acme/codespaces/secrets'
const ENVIRONMENT = '/repos/mona/web/environments/production/secrets'
const MARKER = 'MARKER-of-a-body-5d1f'

const NOT_JSON: Refusal = { status: 400, message: 'Problems parsing JSON' }
const NO_OBJECT: Refusal = { status: 400, message: 'Body should be a JSON object' }
const TOO_LARGE: Refusal = { status: 413, message: 'The request body is too large.' }

const server = await startTestServer(t)
const mona = await server.createUser('mona')
await server.createRepository(mona, 'web')
const acme = await server.createOrganization('acme', mona)
const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
const admin = server.admin.token

await server.request('PUT', '/repos/mona/web/environments/production', { token })
for (const path of [REPO, USER, ORG]) {
  const sealed = await server.seal(path, token, 'the value that stays')
  const body = { ...sealed, ...(path === ORG && { visibility: 'selected' }) }
  await server.request('PUT', `${path}/KEPT`, { token, body })
}

/** Every operation that reads a body, with the token it needs. */
const OPERATIONS = [
  { method: 'PUT', url: `${REPO}/NEW`, token },
  { method: 'PUT', url: `${REPO}/KEPT`, token },
  { method: 'PUT', url: `${USER}/NEW`, token },
  { method: 'PUT', url: `${USER}/KEPT`, token },
  { method: 'PUT', url: `${USER}/KEPT/repositories`, token },
  { method: 'PUT', url: `${ORG}/KEPT`, token },
  { method: 'PUT', url: `${ORG}/KEPT/repositories`, token },
  { method: 'PUT', url: `${ENVIRONMENT}/NEW`, token },
  { method: 'PUT', url: '/repos/mona/web/environments/staging', token },
  { method: 'PUT', url: '/orgs/acme/memberships/root', token },
  { method: 'PUT', url: '/repos/mona/web/collaborators/root', token },
  { method: 'PATCH', url: '/repos/mona/web', token },
  { method: 'POST', url: '/user/repos', token },
  { method: 'POST', url: '/orgs/nobody/repos', token },
  { method: 'POST', url: '/admin/users', token: admin },
  { method: 'POST', url: '/admin/organizations', token: admin },
  { method: 'POST', url: '/admin/users/mona/authorizations', token: admin }
] as const

const nested = (open: string, close: string) => open.repeat(100_000) + close.repeat(100_000)

t.test('a body that is no JSON object is refused by every operation that reads one', async (t) => {
  const bodies: [string, string, Refusal][] = [
    ['no JSON', MARKER, NOT_JSON],
    ['JSON that stops', `{"encrypted_value": "${MARKER}`, NOT_JSON],
    ['JSON and more', `{"name": "${MARKER}"} more`, NOT_JSON],
    ['single quotes', `{'name': '${MARKER}'}`, NOT_JSON],
    ['a byte order mark', `\ufeff{"name": "${MARKER}"}`, NOT_JSON],
    ['a form', `encrypted_value=${MARKER}&key_id=1`, NOT_JSON],
    ['blanks', '   ', NOT_JSON],
    ['a NUL', '\0', NOT_JSON],
    ['NaN', 'NaN', NOT_JSON],
    ['an array', `["${MARKER}"]`, NO_OBJECT],
    ['an array of what would be right', `[{"name": "${MARKER}"}]`, NO_OBJECT],
    ['a string', JSON.stringify(MARKER), NO_OBJECT],
    ['null', 'null', NO_OBJECT],
    ['a number', '12345', NO_OBJECT],
    ['true', 'true', NO_OBJECT],
    ['arrays 100,000 deep', nested('[', ']'), NO_OBJECT],
    ['arrays that do not close', '['.repeat(100_000), NOT_JSON],
    ['objects that do not close', '{"a":'.repeat(100_000), NOT_JSON]
  ]
  for (const { method, url, token } of OPERATIONS) {
    for (const [name, body, expected] of bodies) {
      await refuses(
        t,
        server,
        { method, url, token, body, secret: [MARKER] },
        expected,
        `${method} ${url}, ${name}`
      )
    }
  }
})

t.test('a body is refused for its size before it is read', async (t) => {
  const large = `{"encrypted_value": "${MARKER}${'A'.repeat(10 * 1024 * 1024)}", "key_id": "1"}`
  for (const { method, url, token } of OPERATIONS) {
    await refuses(
      t,
      server,
      { method, url, token, body: large, secret: [MARKER] },
      TOO_LARGE,
      `${method} ${url}, 10 MB`
    )
  }
})

t.test('members nested 100,000 deep are refused where they are read, and ignored where not', async (t) => {
  const { key_id } = await server.seal(REPO, token, 'x')
  const deep = nested('[', ']')
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${REPO}/NEW`, token, body: `{"encrypted_value": ${deep}, "key_id": "${key_id}"}` },
    {
      status: 422,
      message:
        'Invalid request.\n\nInvalid property /encrypted_value is not valid: it is not of type string.',
      errors: [['encrypted_value', 'custom', 'encrypted_value is not valid: it is not of type string']]
    },
    'a deep encrypted_value'
  )
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${USER}/KEPT/repositories`, token, body: `{"selected_repository_ids": ${deep}}` },
    {
      status: 422,
      message: /^Invalid request\.\n\nInvalid property \/selected_repository_ids\/0 is not valid: /,
      errors: [['selected_repository_ids', 'custom', /is not valid/]]
    },
    'deep ids'
  )
  const body = await server.seal(REPO, token, 'beside something deep')
  const text = JSON.stringify(body).replace('{', `{"unknown": ${deep}, `)
  const { statusCode } = await server.request('PUT', `${REPO}/DEEP`, { token, body: text })
  t.equal(statusCode, 201, 'an unknown member is ignored')
})

const wrongTypes: [string, unknown][] = [
  ['null', null],
  ['a number', 1704273144566984],
  ['true', true],
  ['an array', [MARKER]],
  ['an object', { value: MARKER }]
]

const badMember = (field: string, rule: string | RegExp = /is not valid: it /): Refusal => ({
  status: 422,
  message: new RegExp(`^Invalid request\\.\\n\\nInvalid property /${field}(/|\\b)`),
  errors: [[field, 'custom', rule]]
})

const notSupplied = (...fields: string[]): Refusal => ({
  status: 422,
  message:
    `Invalid request.\n\n${fields.map((field) => `"${field}"`).join(', ')} ` +
    `${fields.length === 1 ? "wasn't" : "weren't"} supplied.`,
  errors: fields.map((field) => [field, 'missing_field', `${field} wasn't supplied`])
})

t.test(
  'a member of a secret that is missing or of another type is named, and nothing is stored',
  async (t) => {
    for (const path of [REPO, USER]) {
      for (const name of ['NEW', 'KEPT']) {
        const url = `${path}/${name}`
        const sealed = await server.seal(path, token, MARKER)
        for (const field of ['encrypted_value', 'key_id'] as const) {
          for (const [kind, value] of wrongTypes) {
            const body = { ...sealed, [field]: value }
            await refuses(
              t,
              server,
              { method: 'PUT', url, token, body },
              badMember(field, `${field} is not valid: it is not of type string`),
              `${url}, ${field} is ${kind}`
            )
          }
        }
        const { encrypted_value, key_id } = sealed
        await refuses(
          t,
          server,
          { method: 'PUT', url, token, body: { encrypted_value } },
          notSupplied('key_id'),
          `${url} without key_id`
        )
        await refuses(
          t,
          server,
          { method: 'PUT', url, token, body: { key_id } },
          notSupplied('encrypted_value'),
          `${url} without encrypted_value`
        )
      }
    }
    for (const body of [undefined, '', '{}', '{"unknown": 1}']) {
      const name = `the body ${JSON.stringify(body)}`
      const repo = notSupplied('encrypted_value', 'key_id')
      await refuses(t, server, { method: 'PUT', url: `${REPO}/KEPT`, token, body }, repo, `${REPO}, ${name}`)
      const user = notSupplied('encrypted_value')
      await refuses(t, server, { method: 'PUT', url: `${USER}/KEPT`, token, body }, user, `${USER}, ${name}`)
    }
  }
)

t.test('a member that the prototype has does not count as supplied', async (t) => {
  const { encrypted_value, key_id } = await server.seal(REPO, token, MARKER)
  const body = `{"__proto__": {"encrypted_value": "${encrypted_value}", "key_id": "${key_id}"}}`
  const expected = notSupplied('encrypted_value', 'key_id')
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${REPO}/NEW`, token, body, secret: [MARKER] },
    expected,
    '__proto__'
  )
})

t.test('a user secret with a value that is null is not taken for one without a value', async (t) => {
  const body = { encrypted_value: null, key_id: '1', selected_repository_ids: [] }
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${USER}/KEPT`, token, body },
    badMember('encrypted_value'),
    'null'
  )
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${USER}/KEPT`, token, body: { ...body, encrypted_value: '' } },
    {
      status: 422,
      message: 'Bad request - validation failed due to an improperly encrypted secret',
      errors: [['encrypted_value', 'custom', 'encrypted_value is not standard, padded base64']]
    },
    'empty'
  )
})

t.test('a visibility that GitHub does not know for user secrets is refused', async (t) => {
  for (const visibility of ['private', 'everyone-MARKER', '', 1, null, ['all'], {}]) {
    const body = { ...(await server.seal(USER, token, MARKER)), visibility }
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${USER}/NEW`, token, body },
      badMember('visibility'),
      `visibility ${JSON.stringify(visibility)}`
    )
  }
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${USER}/KEPT`, token, body: { visibility: 'all', selected_repository_ids: [1] } },
    {
      status: 422,
      message: 'Validation Failed',
      errors: [
        [
          'selected_repository_ids',
          'custom',
          'selected_repository_ids can be given only when visibility is selected'
        ]
      ]
    },
    'all, and some'
  )
})

const validation = (field: string, code: string, message: string | RegExp): Refusal => ({
  status: 422,
  message: 'Validation Failed',
  errors: [[field, code, message]]
})

t.test('repositories are made only from a good body', async (t) => {
  const create = (body: unknown) => ({ method: 'POST', url: '/user/repos', token, body }) as const
  await refuses(t, server, create({}), notSupplied('name'), 'no name')
  await refuses(t, server, create(undefined), notSupplied('name'), 'no body')
  for (const [kind, value] of wrongTypes) {
    await refuses(t, server, create({ name: value }), badMember('name'), `name is ${kind}`)
    if (kind !== 'true')
      await refuses(
        t,
        server,
        create({ name: 'fresh', private: value }),
        badMember('private'),
        `private is ${kind}`
      )
    await refuses(
      t,
      server,
      create({ name: 'fresh', visibility: value }),
      badMember('visibility'),
      `visibility is ${kind}`
    )
    if (kind !== 'null')
      await refuses(
        t,
        server,
        create({ name: 'fresh', description: value }),
        badMember('description'),
        `description is ${kind}`
      )
  }
  const rule = 'name may only contain letters, digits, ".", "-" and "_", and is 100 characters at most'
  for (const name of [
    '',
    '.',
    '..',
    'a/b-MARKER',
    'MARKER with space',
    'nul\0-MARKER',
    'ünï-MARKER',
    '\ud800-MARKER',
    'x'.repeat(101)
  ]) {
    await refuses(
      t,
      server,
      create({ name }),
      validation('name', 'invalid', rule),
      `name ${JSON.stringify(name)}`
    )
    const patch = { method: 'PATCH', url: '/repos/mona/web', token, body: { name } } as const
    await refuses(t, server, patch, validation('name', 'invalid', rule), `renamed to ${JSON.stringify(name)}`)
  }
  for (const description of ['x'.repeat(351), 'nul\0-MARKER']) {
    const expected = validation(
      'description',
      'custom',
      'description is 350 characters at most, and holds no NUL'
    )
    await refuses(t, server, create({ name: 'fresh', description }), expected, 'description')
  }
  const taken: Refusal = {
    status: 422,
    message: 'Repository creation failed.',
    errors: [['name', 'custom', 'name already exists on this account']]
  }
  await refuses(t, server, create({ name: 'WEB' }), taken, 'a name that is taken, in another case')
  const branches = ['', 'with space', 'nul\0', 'a..b~', 'x'.repeat(256)]
  for (const default_branch of branches) {
    const body = { default_branch }
    const patch = { method: 'PATCH', url: '/repos/mona/web', token, body } as const
    const expected =
      default_branch === ''
        ? badMember('default_branch')
        : validation('default_branch', 'custom', 'default_branch is not the name of a branch')
    await refuses(t, server, patch, expected, `branch ${JSON.stringify(default_branch)}`)
  }
})

t.test('accounts and tokens are made only from a good body', async (t) => {
  const post = (url: string, body: unknown) => ({ method: 'POST', url, token: admin, body }) as const
  await refuses(t, server, post('/admin/users', {}), notSupplied('login'), 'no login')
  await refuses(t, server, post('/admin/organizations', { login: 'octo' }), notSupplied('admin'), 'no admin')
  await refuses(t, server, post('/admin/organizations', {}), notSupplied('login', 'admin'), 'neither')
  for (const [kind, value] of wrongTypes) {
    await refuses(t, server, post('/admin/users', { login: value }), badMember('login'), `login is ${kind}`)
    if (kind !== 'true')
      await refuses(
        t,
        server,
        post('/admin/users', { login: 'fresh', site_admin: value }),
        badMember('site_admin'),
        `site_admin is ${kind}`
      )
    await refuses(
      t,
      server,
      post('/admin/organizations', { login: 'octo', admin: value }),
      badMember('admin'),
      `admin is ${kind}`
    )
  }
  const rule = /^login may only contain letters, digits, underscores and single hyphens/
  for (const login of [
    '',
    '-MARKER',
    'MARKER-',
    'MAR--KER',
    'MAR KER',
    'MAR/KER',
    'nul\0-MARKER',
    'ünïMARKER',
    'x'.repeat(40)
  ]) {
    await refuses(
      t,
      server,
      post('/admin/users', { login }),
      validation('login', 'invalid', rule),
      `login ${JSON.stringify(login)}`
    )
    const organization = post('/admin/organizations', { login, admin: 'mona' })
    await refuses(
      t,
      server,
      organization,
      validation('login', 'invalid', rule),
      `organization ${JSON.stringify(login)}`
    )
  }
  await refuses(
    t,
    server,
    post('/admin/users', { login: 'MONA' }),
    validation('login', 'already_exists', 'login is already taken'),
    'taken'
  )
  for (const field of ['name', 'email'] as const) {
    await refuses(
      t,
      server,
      post('/admin/users', { login: 'fresh', [field]: 'nul\0-MARKER' }),
      validation(field, 'custom', `${field} holds a NUL`),
      `${field} with NUL`
    )
    await refuses(
      t,
      server,
      post('/admin/users', { login: 'fresh', [field]: 'x'.repeat(400) }),
      badMember(field),
      `${field} too long`
    )
  }
  await refuses(
    t,
    server,
    post('/admin/organizations', { login: 'octo', admin: 'nobody-MARKER' }),
    validation('admin', 'invalid', 'admin is not the login of a user'),
    'admin'
  )

  const tokens = '/admin/users/mona/authorizations'
  const unknownScopes = { scopes: ['repo', 'everything-MARKER'] }
  await refuses(
    t,
    server,
    post(tokens, unknownScopes),
    validation('scopes', 'invalid', /^scopes may only contain /),
    'scopes'
  )
  for (const [kind, value] of wrongTypes) {
    if (kind !== 'null' && kind !== 'an array')
      await refuses(t, server, post(tokens, { scopes: value }), badMember('scopes'), `scopes is ${kind}`)
    if (kind !== 'an object')
      await refuses(
        t,
        server,
        post(tokens, { permissions: value }),
        badMember('permissions'),
        `permissions is ${kind}`
      )
    if (kind !== 'a number')
      await refuses(t, server, post(tokens, { expires: value }), badMember('expires'), `expires is ${kind}`)
  }
  for (const expires of [0, -1, 367, 2 ** 53]) {
    await refuses(
      t,
      server,
      post(tokens, { expires }),
      validation('expires', 'invalid', /^expires is a number of days from 1 to 366, /),
      `${expires} days`
    )
  }
  for (const expires of ['1e400', '1.5', '"1"']) {
    await refuses(t, server, post(tokens, `{"expires": ${expires}}`), badMember('expires'), `${expires} days`)
  }
  const none = /^repositories names one, as owner\/name, that does not exist or that the account cannot see$/
  for (const name of ['mona/none-MARKER', 'MARKER', '', 'mona/web/MARKER', 'mona/web\0', 'ünï/cödé']) {
    const body = { permissions: { codespaces_secrets: 'write' }, repositories: [name] }
    await refuses(
      t,
      server,
      post(tokens, body),
      validation('repositories', 'custom', none),
      `repository ${JSON.stringify(name)}`
    )
  }
  const permissions: [unknown, RegExp][] = [
    [{ 'everything-MARKER': 'read' }, /^permissions may only contain /],
    [JSON.parse('{"__proto__": "write"}'), /^permissions may only contain /],
    [{ codespaces_secrets: 'admin-MARKER' }, /^the level of codespaces_secrets is one of read, write$/],
    [{ metadata: 'write' }, /^the level of metadata is one of read$/]
  ]
  for (const [value, message] of permissions) {
    await refuses(
      t,
      server,
      post(tokens, { permissions: value }),
      validation('permissions', 'invalid', message),
      JSON.stringify(value)
    )
  }
})

t.test('a role is one of those that there are', async (t) => {
  const url = '/repos/mona/web/collaborators/root'
  for (const permission of ['owner-MARKER', '', '__proto__', 'constructor', 'PUSH']) {
    const expected = validation(
      'permission',
      'custom',
      'permission is one of pull, triage, push, maintain, admin'
    )
    await refuses(t, server, { method: 'PUT', url, token, body: { permission } }, expected, permission)
  }
  for (const [kind, permission] of wrongTypes) {
    await refuses(
      t,
      server,
      { method: 'PUT', url, token, body: { permission } },
      badMember('permission'),
      kind
    )
  }
  const owner = { method: 'PUT', url: '/repos/mona/web/collaborators/mona', token, body: {} } as const
  await refuses(
    t,
    server,
    owner,
    validation('username', 'invalid', 'Repository owner cannot be a collaborator'),
    'owner'
  )
})

t.test('a request without a body is one without members', async (t) => {
  const add = await server.request('PUT', '/repos/mona/web/collaborators/root', { token })
  t.equal(add.statusCode, 204, 'which gives the role that GitHub gives then')
  const role = await server.request('GET', '/repos/mona/web/collaborators/root/permission', { token })
  t.equal(role.json().role_name, 'write')
})

t.test('what was there before is still there', async (t) => {
  t.equal((await server.reveal('user', mona.uid, 'KEPT'))?.toString(), 'the value that stays')
  t.equal((await server.reveal('organization', acme.uid, 'KEPT'))?.toString(), 'the value that stays')
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('name', '=', 'web')
    .executeTakeFirstOrThrow()
  t.equal((await server.reveal('repository', uid, 'KEPT'))?.toString(), 'the value that stays')
})
