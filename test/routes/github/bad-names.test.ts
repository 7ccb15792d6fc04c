import t from 'tap'
import { startTestServer } from '../../helper.ts'
import { type Refusal, refuses } from './refusal.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }
const CHARACTERS: Refusal = {
  status: 422,
  message:
    'Secret names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or underscores (_). Spaces are ' +
    'not allowed. Must start with a letter ([a-z], [A-Z]) or underscores (_).'
}
const RESERVED: Refusal = { status: 422, message: 'Secret names must not start with GITHUB_.' }
const TOO_LONG: Refusal = { status: 422, message: 'Secret names must not be longer than 255 characters.' }

const server = await startTestServer(t)
const mona = await server.createUser('mona')
await server.createRepository(mona, 'web')
const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })

/** As they stand in a path. */
const BAD_NAMES: [string, Refusal][] = [
  ['', { status: 404, message: 'Not Found' }],
  ['1A', CHARACTERS],
  ['A-B', CHARACTERS],
  ['A.B', CHARACTERS],
  ['A%20B', CHARACTERS],
  ['%20A', CHARACTERS],
  ['A%0A', CHARACTERS],
  ['A%0D%0AX-Injected:%20MARKER', CHARACTERS],
  ['A+B', CHARACTERS],
  ['A%2FB', CHARACTERS],
  ['%2F', CHARACTERS],
  ['%2E%2E%2FMARKER', CHARACTERS],
  ['%00', CHARACTERS],
  ['A%00', CHARACTERS],
  ['%7F', CHARACTERS],
  ['MARKER%C3%9C', CHARACTERS],
  ['%C4%B1D', CHARACTERS],
  ['%C5%BF', CHARACTERS],
  ['%EF%BC%A1', CHARACTERS],
  ['%F0%9F%94%91', CHARACTERS],
  ["A';--", CHARACTERS],
  ['$%7BMARKER%7D', CHARACTERS],
  ['%25', CHARACTERS],
  ['GITHUB_X', RESERVED],
  ['github_x', RESERVED],
  ['GitHub_', RESERVED],
  ['A'.repeat(256), TOO_LONG],
  ['a'.repeat(1000), TOO_LONG]
]

t.test('a name that GitHub does not allow is not stored', async (t) => {
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, 'value')
    for (const [name, expected] of BAD_NAMES) {
      const secret = name.length >= 6 && name !== 'GITHUB_X' ? [name.slice(0, 100)] : []
      await refuses(
        t,
        server,
        { method: 'PUT', url: `${path}/${name}`, token, body, secret: [...secret, 'MARKER'] },
        expected,
        `PUT ${path}/${name.slice(0, 40)}`
      )
    }
  }
})

t.test('a name that no secret can have is not found', async (t) => {
  for (const path of [REPO, USER]) {
    for (const [name] of BAD_NAMES) {
      for (const method of ['GET', 'DELETE'] as const) {
        await refuses(
          t,
          server,
          { method, url: `${path}/${name}`, token, secret: ['MARKER'] },
          NOT_FOUND,
          `${method} ${path}/${name.slice(0, 40)}`
        )
      }
    }
  }
  for (const [name] of BAD_NAMES) {
    const url = `${USER}/${name}/repositories`
    await refuses(t, server, { method: 'GET', url, token }, NOT_FOUND, `GET ${url.slice(0, 80)}`)
    await refuses(
      t,
      server,
      { method: 'PUT', url, token, body: { selected_repository_ids: [] } },
      NOT_FOUND,
      `PUT ${url.slice(0, 80)}`
    )
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${url}/1000`, token },
      NOT_FOUND,
      `PUT ${url.slice(0, 80)}/1000`
    )
    await refuses(
      t,
      server,
      { method: 'DELETE', url: `${url}/1000`, token },
      NOT_FOUND,
      `DELETE ${url.slice(0, 80)}/1000`
    )
  }
})

t.test('a path that names nothing is not found, whatever is sent to it', async (t) => {
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, 'value')
    const urls = [
      `${path}//`,
      `${path}//A`,
      `${path}/A/B`,
      `${path}/A/`,
      `/${path}/A`,
      `${path}/%`,
      `${path}/%ZZ`,
      `${path}/A%`,
      `${path}/%C3%28`,
      `${path}/%ED%A0%80`,
      `${path}/${'A'.repeat(1025)}`,
      `${path}/${'A'.repeat(12_000)}`,
      path.toUpperCase().concat('/A')
    ]
    for (const url of urls) {
      for (const method of ['PUT', 'GET', 'DELETE'] as const) {
        await refuses(
          t,
          server,
          { method, url, token, ...(method === 'PUT' && { body }) },
          NOT_FOUND,
          `${method} ${url.slice(0, 80)}`
        )
      }
    }
  }
  for (const url of [
    '/MARKER',
    '/api/v3/MARKER',
    '/repos',
    '/repos/mona',
    '/user/codespaces',
    '/user/codespaces/secrets/A/repositories/1/2'
  ]) {
    for (const method of ['GET', 'PUT', 'POST', 'PATCH', 'DELETE'] as const) {
      await refuses(
        t,
        server,
        { method, url, token, body: '{"MARKER": 1}', secret: ['MARKER'] },
        NOT_FOUND,
        `${method} ${url}`
      )
    }
  }
})

t.test('an owner, a repository or a login that cannot be is not found', async (t) => {
  const names = [
    '%00',
    'mona%00',
    'm%C3%B6na',
    '%F0%9F%94%91',
    'x'.repeat(300),
    '%2F',
    '..%2Fmona',
    'mona%20',
    '%27%3B--',
    '.',
    '-'
  ]
  for (const name of names) {
    const urls = [
      `/repos/${name}/web`,
      `/repos/mona/${name}`,
      `/repos/${name}/web/codespaces/secrets`,
      `/repos/mona/${name}/codespaces/secrets`,
      `/repos/${name}/web/codespaces/secrets/public-key`,
      `/repos/mona/${name}/codespaces/secrets/A`,
      `/users/${name}`,
      `/orgs/${name}`,
      `/repos/mona/web/collaborators/${name}`,
      `/repos/mona/web/collaborators/${name}/permission`
    ].filter((url) => !/\/\.(\/|$)/.test(url))
    for (const url of urls)
      await refuses(t, server, { method: 'GET', url, token }, NOT_FOUND, `GET ${url.slice(0, 80)}`)
    if (name === '.') continue
    const body = await server.seal(REPO, token, 'value')
    const writes = [
      { method: 'PUT', url: `/repos/${name}/web/codespaces/secrets/A`, token, body },
      { method: 'PUT', url: `/repos/mona/${name}/codespaces/secrets/A`, token, body },
      { method: 'DELETE', url: `/repos/mona/${name}/codespaces/secrets/A`, token },
      { method: 'DELETE', url: `/repos/mona/${name}`, token },
      { method: 'PATCH', url: `/repos/${name}/web`, token, body: { private: false } },
      { method: 'PUT', url: `/repos/mona/web/collaborators/${name}`, token, body: {} },
      { method: 'DELETE', url: `/repos/mona/web/collaborators/${name}`, token },
      { method: 'POST', url: `/orgs/${name}/repos`, token, body: { name: 'fresh' } },
      { method: 'DELETE', url: `/admin/users/${name}`, token: server.admin.token },
      { method: 'POST', url: `/admin/users/${name}/authorizations`, token: server.admin.token, body: {} },
      { method: 'DELETE', url: `/admin/users/${name}/authorizations`, token: server.admin.token }
    ] as const
    for (const write of writes)
      await refuses(t, server, write, NOT_FOUND, `${write.method} ${write.url.slice(0, 80)}`)
  }
})

t.test('the longest name, and any of its forms, is one secret', async (t) => {
  for (const path of [REPO, USER]) {
    const body = await server.seal(path, token, 'value')
    const name = `_${'A1_'.repeat(84)}Zz`
    t.equal(name.length, 255)
    t.equal((await server.request('PUT', `${path}/${name}`, { token, body })).statusCode, 201)
    const escaped = [...name].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join('')
    t.equal((await server.request('PUT', `${path}/${escaped}`, { token, body })).statusCode, 204)
    const shown = await server.request('GET', `${path}/${name.toLowerCase()}`, { token })
    t.equal(shown.json().name, name.toUpperCase())
    t.equal((await server.request('GET', path, { token })).json().total_count, 1)
  }
})
