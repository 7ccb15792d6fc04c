import t from 'tap'
import { startTestServer } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'
const TOTAL = 35

const server = await startTestServer(t, { maxSecrets: 200 })
const mona = await server.createUser('mona')
await server.createRepository(mona, 'web')
const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
for (const path of [REPO, USER]) {
  const body = await server.seal(path, token, 'value')
  for (let n = 0; n < TOTAL; n++) await server.request('PUT', `${path}/N${n + 10}`, { token, body })
}
const ids: number[] = []
for (let n = 0; n < TOTAL; n++) ids.push(await server.createRepository(mona, `r${n}`))
await server.request('PUT', `${USER}/N10/repositories`, { token, body: { selected_repository_ids: ids } })

/** Every list, and how many it has. */
const LISTS: [string, number, (body: never) => unknown[]][] = [
  [REPO, TOTAL, ({ secrets }: { secrets: unknown[] }) => secrets],
  [USER, TOTAL, ({ secrets }: { secrets: unknown[] }) => secrets],
  [`${USER}/N10/repositories`, TOTAL, ({ repositories }: { repositories: unknown[] }) => repositories],
  ['/user/repos', TOTAL + 1, (list: unknown[]) => list]
]

const get = async (url: string) => {
  const response = await server.request('GET', url, { token })
  return {
    status: response.statusCode,
    body: response.json(),
    link: response.headers.link as string | undefined
  }
}

t.test('a size that is no number, or below one, is the default; one too large is cut', async (t) => {
  for (const [path, total, entries] of LISTS) {
    for (const size of [
      '0',
      'abc',
      '-1',
      '1.5',
      '',
      '%00',
      '%20',
      '1e2',
      '0x10',
      '٣',
      'null',
      'MARKER',
      '9'.repeat(400),
      '-99999999999'
    ]) {
      const { status, body, link } = await get(`${path}?per_page=${size}`)
      t.equal(status, 200, `${path}, per_page=${size.slice(0, 20)}`)
      t.equal(entries(body as never).length, 30, `${path}, per_page=${size.slice(0, 20)} is 30`)
      t.match(link, /page=2>; rel="next"/)
    }
    for (const size of ['1000', '101', '100', '999999999']) {
      const { status, body, link } = await get(`${path}?per_page=${size}`)
      t.equal(status, 200, `${path}, per_page=${size}`)
      t.equal(entries(body as never).length, total, `${path}, per_page=${size} is 100`)
      t.equal(link, undefined, 'one page')
    }
    for (const query of [
      'per_page=1&per_page=2',
      'per_page[]=1',
      'per_page[a]=1',
      '__proto__[per_page]=1',
      '%',
      '&&&=&',
      'per_page=%'
    ]) {
      const { status, body } = await get(`${path}?${query}`)
      t.equal(status, 200, `${path}?${query}`)
      t.equal(entries(body as never).length, 30, `${path}?${query}`)
    }
  }
})

t.test('a page that is no number, or below one, is the first; one past the end is empty', async (t) => {
  for (const [path, total, entries] of LISTS) {
    const first = await get(`${path}?per_page=2`)
    for (const page of [
      '0',
      'abc',
      '-1',
      '1.5',
      '',
      '%00',
      '1e9',
      'MARKER',
      '9'.repeat(400),
      '9223372036854775808'
    ]) {
      const { status, body } = await get(`${path}?per_page=2&page=${page}`)
      t.equal(status, 200, `${path}, page=${page.slice(0, 20)}`)
      t.strictSame(
        entries(body as never),
        entries(first.body as never),
        `${path}, page=${page.slice(0, 20)} is the first`
      )
    }
    for (const page of ['100', '999999999']) {
      const { status, body, link } = await get(`${path}?per_page=100&page=${page}`)
      t.equal(status, 200, `${path}, page=${page}`)
      t.strictSame(entries(body as never), [], `${path}, page=${page} is empty`)
      if (!Array.isArray(body)) t.equal(body.total_count, total, 'with the true count')
      t.match(
        link,
        new RegExp(`page=${Number(page) - 1}>; rel="prev".*page=1>; rel="last".*page=1>; rel="first"`)
      )
    }
  }
})

t.test('what stands in a query does not break out of the Link header', async (t) => {
  for (const [path] of LISTS) {
    const { link } = await get(
      `${path}?per_page=1&x=%3E%3B%20rel%3D%22next%22%0D%0AX-Injected:%201&y=<MARKER>&z=ü`
    )
    t.equal(link!.match(/rel="/g)!.length, 2, 'next and last alone')
    t.equal(link!.match(/</g)!.length, 2)
    t.notMatch(link, /[\r\n]/)
  }
})
