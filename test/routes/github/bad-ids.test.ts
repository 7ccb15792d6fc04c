import t from 'tap'
import { startTestServer } from '../../helper.ts'
import { type Refusal, refuses } from './refusal.ts'

const PATH = '/user/codespaces/secrets'
const NOT_FOUND: Refusal = { status: 404, message: 'Not Found' }
const UNKNOWN: Refusal = {
  status: 422,
  message: 'Validation Failed',
  errors: [
    [
      'selected_repository_ids',
      'custom',
      'selected_repository_ids names a repository that does not exist, or that this token cannot see'
    ]
  ]
}
const WRONG_FORM: Refusal = {
  status: 422,
  message: /^Invalid request\.\n\nInvalid property \/selected_repository_ids/,
  errors: [['selected_repository_ids', 'custom', /^selected_repository_ids/]]
}

const server = await startTestServer(t)
const mona = await server.createUser('mona')
const hubot = await server.createUser('hubot')
const first = await server.createRepository(mona, 'first')
const second = await server.createRepository(mona, 'second')
const hidden = await server.createRepository(hubot, 'hidden')
const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
const sealed = await server.seal(PATH, token, 'value')
await server.request('PUT', `${PATH}/KEPT`, { token, body: { ...sealed, selected_repository_ids: [first] } })

const selected = async (name: string): Promise<number[]> => {
  const { repositories } = (await server.request('GET', `${PATH}/${name}/repositories`, { token })).json()
  return repositories.map(({ id }: { id: number }) => id)
}

/** As they stand in JSON: beyond what a number of JavaScript can hold. */
const BAD_IDS: [string, Refusal][] = [
  ['999999999', UNKNOWN],
  [String(hidden), UNKNOWN],
  [`"${hidden}"`, UNKNOWN],
  ['0', UNKNOWN],
  ['-0', UNKNOWN],
  ['-1', UNKNOWN],
  [`-${first}`, UNKNOWN],
  ['9007199254740991', UNKNOWN],
  ['9007199254740992', UNKNOWN],
  ['9007199254740993', UNKNOWN],
  ['9223372036854775807', UNKNOWN],
  ['9223372036854775808', UNKNOWN],
  ['18446744073709551616', UNKNOWN],
  ['1e30', UNKNOWN],
  ['1e308', UNKNOWN],
  ['"0"', UNKNOWN],
  ['"9007199254740993"', UNKNOWN],
  ['"9223372036854775808"', UNKNOWN],
  [`"${'9'.repeat(300)}"`, UNKNOWN],
  ['1e400', WRONG_FORM],
  ['-1e400', WRONG_FORM],
  ['1.5', WRONG_FORM],
  [`${first}.25`, WRONG_FORM],
  ['"1.5"', WRONG_FORM],
  [`"${'9'.repeat(400)}"`, WRONG_FORM],
  ['"abc"', WRONG_FORM],
  ['"MARKER-of-an-id"', WRONG_FORM],
  ['""', WRONG_FORM],
  ['" "', WRONG_FORM],
  [`" ${first}"`, WRONG_FORM],
  [`"${first} "`, WRONG_FORM],
  [`"+${first}"`, WRONG_FORM],
  ['"-1"', WRONG_FORM],
  ['"1e3"', WRONG_FORM],
  ['"0x3e8"', WRONG_FORM],
  ['"١٠٠٠"', WRONG_FORM],
  ['"mona/first"', WRONG_FORM],
  ['null', WRONG_FORM],
  ['true', WRONG_FORM],
  ['{}', WRONG_FORM],
  [`[${first}]`, WRONG_FORM]
]

t.test('an id that names no repository that the token sees changes nothing', async (t) => {
  const { encrypted_value, key_id } = sealed
  for (const [id, expected] of BAD_IDS) {
    for (const ids of [id, `${second}, ${id}`, `${id}, ${id}, ${second}`]) {
      const members = `"selected_repository_ids": [${ids}]`
      const value = `"encrypted_value": "${encrypted_value}", "key_id": "${key_id}"`
      const attempts: [string, string][] = [
        [`${PATH}/NEW`, `{${value}, ${members}}`],
        [`${PATH}/KEPT`, `{${value}, ${members}}`],
        [`${PATH}/KEPT`, `{${members}}`],
        [`${PATH}/KEPT/repositories`, `{${members}}`]
      ]
      for (const [url, body] of attempts) {
        const attempt = {
          method: 'PUT',
          url,
          token,
          body,
          secret: ['MARKER', '99999999', '9007199']
        } as const
        await refuses(t, server, attempt, expected, `${url} with ${ids.slice(0, 60)}`)
      }
    }
  }
  t.strictSame(await selected('KEPT'), [first])
})

t.test('ids that are no list are refused', async (t) => {
  for (const value of ['"1000"', '1000', 'true', '{}', '{"0": 1000, "length": 1}', '"MARKER"']) {
    for (const url of [`${PATH}/KEPT`, `${PATH}/KEPT/repositories`]) {
      const body = `{"selected_repository_ids": ${value}}`
      await refuses(
        t,
        server,
        { method: 'PUT', url, token, body, secret: ['MARKER'] },
        WRONG_FORM,
        `${url}, ${value}`
      )
    }
  }
  const missing: Refusal = {
    status: 422,
    message: 'Invalid request.\n\n"selected_repository_ids" wasn\'t supplied.',
    errors: [['selected_repository_ids', 'missing_field', "selected_repository_ids wasn't supplied"]]
  }
  for (const body of [undefined, '{}', '{"ids": [1]}']) {
    await refuses(
      t,
      server,
      { method: 'PUT', url: `${PATH}/KEPT/repositories`, token, body },
      missing,
      `${body}`
    )
  }
})

t.test('integers and decimal strings name the same, and what is repeated counts once', async (t) => {
  const set = async (ids: string) => {
    const body = `{"selected_repository_ids": [${ids}]}`
    return (await server.request('PUT', `${PATH}/KEPT/repositories`, { token, body })).statusCode
  }
  t.equal(await set(`"${second}", ${second}, "00${second}", ${second}.0, ${second}e0`), 204)
  t.strictSame(await selected('KEPT'), [second])
  t.equal(await set(Array(70_000).fill(first).join(',')), 204)
  t.strictSame(await selected('KEPT'), [first])
})

t.test('100,000 ids are refused as one unknown is, or for their size', async (t) => {
  const from = (start: number) =>
    `{"selected_repository_ids": [${Array.from({ length: 100_000 }, (_, n) => start + n).join(',')}]}`
  for (const url of [`${PATH}/KEPT`, `${PATH}/KEPT/repositories`]) {
    await refuses(t, server, { method: 'PUT', url, token, body: from(0) }, UNKNOWN, `${url}, short ids`)
    await refuses(
      t,
      server,
      { method: 'PUT', url, token, body: from(1_000_000) },
      { status: 413, message: 'The request body is too large.' },
      `${url}, long ids`
    )
  }
})

t.test('an id in a path that names no repository is not found', async (t) => {
  const ids = [
    '999999999',
    '0',
    '-1',
    `-${first}`,
    '9007199254740991',
    '9007199254740992',
    '9007199254740993',
    '9223372036854775807',
    '9223372036854775808',
    '18446744073709551616',
    '1e400',
    '1e3',
    '1.5',
    `${first}.0`,
    'abc',
    '%22abc%22',
    `%22${first}%22`,
    `%20${first}`,
    `${first}%20`,
    `+${first}`,
    `0x${first.toString(16)}`,
    '%00',
    `${first}%00`,
    'NaN',
    'Infinity',
    'null',
    'undefined',
    '%D9%A1',
    '9'.repeat(400),
    String(hidden)
  ]
  for (const id of ids) {
    const write = await server.seal(PATH, token, 'value')
    const attempts = [
      { method: 'PUT', url: `${PATH}/KEPT/repositories/${id}`, token },
      { method: 'DELETE', url: `${PATH}/KEPT/repositories/${id}`, token },
      { method: 'GET', url: `/repositories/${id}`, token },
      { method: 'PATCH', url: `/repositories/${id}`, token, body: { private: false } },
      { method: 'DELETE', url: `/repositories/${id}`, token },
      { method: 'GET', url: `/repositories/${id}/codespaces/secrets`, token },
      { method: 'GET', url: `/repositories/${id}/codespaces/secrets/public-key`, token },
      { method: 'GET', url: `/repositories/${id}/codespaces/secrets/A`, token },
      { method: 'PUT', url: `/repositories/${id}/codespaces/secrets/A`, token, body: write },
      { method: 'DELETE', url: `/repositories/${id}/codespaces/secrets/A`, token }
    ] as const
    for (const attempt of attempts)
      await refuses(t, server, attempt, NOT_FOUND, `${attempt.method} ${attempt.url.slice(0, 80)}`)
  }
  await refuses(
    t,
    server,
    { method: 'DELETE', url: `${PATH}/KEPT/repositories/${second}`, token },
    NOT_FOUND,
    'one that is not selected'
  )
  await refuses(
    t,
    server,
    { method: 'PUT', url: `${PATH}/NONE/repositories/${first}`, token },
    NOT_FOUND,
    'no such secret'
  )
})

t.test('one repository is not added to a secret that all receive', async (t) => {
  t.equal(
    (await server.request('PUT', `${PATH}/ALL`, { token, body: { ...sealed, visibility: 'all' } }))
      .statusCode,
    201
  )
  for (const method of ['PUT', 'DELETE'] as const) {
    const conflict: Refusal = {
      status: 409,
      message:
        "The secret's visibility is all, so repositories cannot be added or removed one by one. Set its selected " +
        'repositories first, which makes it selected.'
    }
    await refuses(t, server, { method, url: `${PATH}/ALL/repositories/${first}`, token }, conflict, method)
  }
})
