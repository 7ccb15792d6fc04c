import t from 'tap'
import { startTestServer, type TestServerOptions } from '../../helper.ts'

const REPO = '/repos/mona/web/codespaces/secrets'
const USER = '/user/codespaces/secrets'

async function prepare(
  t: Parameters<typeof startTestServer>[0],
  names: string[],
  options: TestServerOptions = {},
  paths = [REPO, USER]
) {
  const server = await startTestServer(t, options)
  const mona = await server.createUser('mona')
  const repositoryId = await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace'] })
  for (const path of paths) {
    const body = await server.seal(path, token, 'value')
    for (const name of names) await server.request('PUT', `${path}/${name}`, { token, body })
  }
  const get = async (url: string, headers = {}) => {
    const response = await server.request('GET', url, { token, headers })
    t.equal(response.statusCode, 200, url)
    const { total_count, secrets } = response.json()
    return {
      total: total_count,
      names: secrets.map(({ name }: { name: string }) => name),
      link: response.headers.link
    }
  }
  return { server, mona, token, get, repositoryId, base: `http://coffer.test/repositories/${repositoryId}` }
}

/** The Link header for pages of a URL that ends where the number belongs. */
function links(url: string, pages: Record<string, number>): string {
  return Object.entries(pages)
    .map(([relation, page]) => `<${url}${page}>; rel="${relation}"`)
    .join(', ')
}

t.test('pages link to each other in GitHub’s forms, by the number of the repository', async (t) => {
  const { get, base } = await prepare(t, ['A', 'B', 'C', 'D', 'E'])
  const url = `${base}/codespaces/secrets?per_page=2&page=`

  t.same(await get(`${REPO}?per_page=2`), {
    total: 5,
    names: ['A', 'B'],
    link: links(url, { next: 2, last: 3 })
  })
  t.same(
    await get(`${REPO}?per_page=2&page=2`),
    { total: 5, names: ['C', 'D'], link: links(url, { prev: 1, next: 3, last: 3, first: 1 }) },
    'the middle'
  )
  t.same(
    await get(`${REPO}?per_page=2&page=3`),
    { total: 5, names: ['E'], link: links(url, { prev: 2, first: 1 }) },
    'the last page'
  )
  t.same(
    await get(`${REPO}?per_page=2&page=9`),
    { total: 5, names: [], link: links(url, { prev: 8, last: 3, first: 1 }) },
    'past the end'
  )
  t.same(
    await get(`${REPO}?per_page=5`),
    { total: 5, names: ['A', 'B', 'C', 'D', 'E'], link: undefined },
    'one page has no links'
  )
  t.equal((await get(REPO)).link, undefined)
})

t.test('a page of an empty collection past the end links back', async (t) => {
  const { get, base } = await prepare(t, [])
  t.same(await get(REPO), { total: 0, names: [], link: undefined })
  t.same(await get(`${REPO}?page=3`), {
    total: 0,
    names: [],
    link: links(`${base}/codespaces/secrets?page=`, { prev: 2, last: 1, first: 1 })
  })
})

t.test('the links of a user’s secrets have the path of the request', async (t) => {
  const { get } = await prepare(t, ['A', 'B', 'C'])
  t.same(await get(`${USER}?per_page=1&page=2`), {
    total: 3,
    names: ['B'],
    link: links('http://coffer.test/user/codespaces/secrets?per_page=1&page=', {
      prev: 1,
      next: 3,
      last: 3,
      first: 1
    })
  })
})

t.test('links keep the other parameters, and the order of all', async (t) => {
  const { get, base } = await prepare(t, ['A', 'B'])
  const { link } = await get(`${REPO}?page=1&x=1&per_page=1&y=a%2Bb`)
  const page2 = `${base}/codespaces/secrets?page=2&x=1&per_page=1&y=a%2Bb`
  t.equal(link, `<${page2}>; rel="next", <${page2}>; rel="last"`)
})

t.test('links keep the prefix by which the request came', async (t) => {
  const { get, repositoryId } = await prepare(t, ['A', 'B'])
  t.equal(
    (await get(`/api/v3${REPO}?per_page=1`)).link,
    links(`http://coffer.test/api/v3/repositories/${repositoryId}/codespaces/secrets?per_page=1&page=`, {
      next: 2,
      last: 2
    })
  )
  t.match(
    (await get(`/api/v3${USER}?per_page=1`)).link,
    /^<http:\/\/coffer\.test\/api\/v3\/user\/codespaces\//
  )
})

t.test('links begin with COFFER_PUBLIC_URL, and never with the Host header', async (t) => {
  const { server, token, get, repositoryId } = await prepare(t, ['A', 'B'], {
    publicUrl: 'https://secrets.example.com/coffer'
  })
  const forged = { host: 'evil.example', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'gopher' }
  t.equal(
    (await get(`${REPO}?per_page=1`, forged)).link,
    links(
      `https://secrets.example.com/coffer/repositories/${repositoryId}/codespaces/secrets?per_page=1&page=`,
      {
        next: 2,
        last: 2
      }
    )
  )
  const shown = await server.request('GET', `${USER}/A`, { token, headers: forged })
  t.equal(
    shown.json().selected_repositories_url,
    'https://secrets.example.com/coffer/user/codespaces/secrets/A/repositories'
  )
})

t.test('each link leads to the next page until all were seen once', async (t) => {
  const names = ['A', 'B', 'C', 'D', 'E', 'F', 'G']
  const { get } = await prepare(t, names)
  const seen: string[] = []
  let url: string | undefined = `${REPO}?per_page=3`
  let pages = 0
  while (url) {
    const page: Awaited<ReturnType<typeof get>> = await get(url)
    seen.push(...page.names)
    pages += 1
    url = /<http:\/\/coffer\.test([^<>]+)>;\s*rel="next"/.exec(page.link as string)?.[1]
  }
  t.equal(pages, 3)
  t.same(seen, names)
})

t.test('per_page is 30, at most 100, and 30 or page 1 when it is no number', async (t) => {
  const names = Array.from({ length: 105 }, (_, index) => `N${String(index).padStart(3, '0')}`)
  const { get } = await prepare(t, names, { maxSecrets: 200 }, [REPO])
  const sizes: Record<string, number> = {
    '': 30,
    '?per_page=1000': 100,
    '?per_page=101': 100,
    '?per_page=100': 100,
    '?per_page=0': 30,
    '?per_page=-1': 30,
    '?per_page=abc': 30,
    '?per_page=': 30,
    '?per_page=1.5': 30,
    '?page=0': 30,
    '?page=-7': 30,
    '?page=abc': 30,
    '?page=99999999999999999999': 30,
    '?per_page=1&per_page=2': 30
  }
  for (const [query, size] of Object.entries(sizes)) {
    const page = await get(REPO + query)
    t.equal(page.total, 105, query)
    t.same(page.names, names.slice(0, size), query)
  }
  t.match((await get(`${REPO}?per_page=1000`)).link, /page=2>; rel="next", <[^>]*page=2>; rel="last"$/)
})

t.test('selected repositories are paged like every list', async (t) => {
  const { server, mona, token } = await prepare(t, ['A'])
  const ids: number[] = []
  for (const name of ['one', 'two', 'three']) ids.push(await server.createRepository(mona, name))
  const path = `${USER}/A/repositories`
  t.equal(
    (await server.request('PUT', path, { token, body: { selected_repository_ids: ids } })).statusCode,
    204
  )
  const response = await server.request('GET', `${path}?per_page=1&page=2`, { token })
  t.equal(response.json().total_count, 3)
  t.same(
    response.json().repositories.map(({ id }: { id: number }) => id),
    [ids[1]],
    'ordered by id'
  )
  t.equal(
    response.headers.link,
    links(`http://coffer.test${path}?per_page=1&page=`, { prev: 1, next: 3, last: 3, first: 1 })
  )
})
