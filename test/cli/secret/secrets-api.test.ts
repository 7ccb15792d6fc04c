import t from 'tap'
import { Patience } from '../../../src/cli/patience.ts'
import { type CollectionOptions, readCollection } from '../../../src/cli/secret/collection.ts'
import { deleteSecret, fetchPublicKey, listSecrets, putSecret } from '../../../src/cli/secret/secrets-api.ts'
import {
  readSelection,
  resolveSelection,
  type SelectionOptions,
  selectionKeeper
} from '../../../src/cli/secret/selection.ts'
import { type Asked, clientOf, makeBoxes, type Scripted, startScripted } from './helper.ts'

const WEB = { owner: 'mona', name: 'web' }
const REPO = readCollection({ repo: WEB })
const USER = readCollection({ user: true })
const ORG = readCollection({ org: 'acme' })
const secret = (name: string) => ({
  name,
  created_at: '2026-01-01T00:00:00Z',
  updated_at: '2026-01-01T00:00:00Z'
})

t.test('every collection of the API has its path, and no other can be meant', async (t) => {
  const paths: [CollectionOptions, string][] = [
    [{ user: true }, '/user/codespaces/secrets'],
    [{ user: true, app: 'codespaces' }, '/user/codespaces/secrets'],
    [{ repo: WEB }, '/repos/mona/web/codespaces/secrets'],
    [{ repo: WEB, app: 'actions' }, '/repos/mona/web/actions/secrets'],
    [{ repo: WEB, app: 'dependabot' }, '/repos/mona/web/dependabot/secrets'],
    [{ repo: WEB, app: 'agents' }, '/repos/mona/web/agents/secrets'],
    [{ repo: WEB, env: 'production' }, '/repos/mona/web/environments/production/secrets'],
    [{ repo: WEB, env: 'eu/west 1', app: 'actions' }, '/repos/mona/web/environments/eu%2Fwest%201/secrets'],
    [{ org: 'acme' }, '/orgs/acme/codespaces/secrets'],
    [{ org: 'acme', app: 'agents' }, '/orgs/acme/agents/secrets']
  ]
  for (const [options, path] of paths) t.equal(readCollection(options).path, path)

  const refused: [CollectionOptions, RegExp][] = [
    [{}, /--repo OWNER\/NAME, --org ORG, or --user/],
    [{ user: true, org: 'acme' }, /whose secrets/],
    [{ repo: WEB, org: 'acme' }, /whose secrets/],
    [{ env: 'production', org: 'acme' }, /--env goes with --repo/],
    [{ repo: WEB, env: 'production', app: 'codespaces' }, /actions alone, not for codespaces/],
    [{ user: true, app: 'actions' }, /codespaces alone, not for actions/]
  ]
  for (const [options, message] of refused) t.throws(() => readCollection(options), message)
})

t.test('a list has all pages, and the token goes to no other address for them', async (t) => {
  const other = await startScripted(t, () => ({ status: 200, body: { secrets: [secret('STOLEN')] } }))
  const next = (url: string) => ({ link: `<${url}>; rel="next", <${other.url}/x?page=9>; rel="last"` })
  const pages: Scripted[] = [
    {
      status: 200,
      headers: next(`${other.url}/repositories/7/secrets?per_page=100&page=2`),
      body: { secrets: [secret('A')] }
    },
    { status: 200, headers: next('/relative?per_page=100&page=3'), body: { secrets: [secret('B')] } },
    {
      status: 200,
      headers: { link: `<${other.url}/x?page=1>; rel="first"` },
      body: { secrets: [secret('C')] }
    }
  ]
  const { url, asked } = await startScripted(t, (_, number) => pages[number - 1]!)
  t.same(await listSecrets(clientOf(url), REPO), [secret('A'), secret('B'), secret('C')])
  t.same(
    asked.map(({ path }) => path),
    ['?per_page=100', '?per_page=100&page=2', '?per_page=100&page=3'].map(
      (query) => `/repos/mona/web/codespaces/secrets${query}`
    )
  )
  t.same(other.asked, [])
})

t.test('pages without an end, and lists of something else, are told', async (t) => {
  const answers: Scripted[] = [
    { status: 200, headers: { link: '<http://x/?page=2>; rel="next"' }, body: { secrets: [] } },
    { status: 200, body: { items: [] } }
  ]
  const circle = await startScripted(t, () => answers[0]!)
  await t.rejects(listSecrets(clientOf(circle.url), REPO), /lead in a circle/)
  t.equal(circle.asked.length, 2)
  const { url } = await startScripted(t, () => answers[1]!)
  await t.rejects(listSecrets(clientOf(url), REPO), /lists no secrets\. Take another URL/)
})

t.test('a value is sealed for the key of the server, byte by byte, and wiped', async (t) => {
  const boxes = makeBoxes()
  const { url, asked } = await startScripted(t, ({ method }) =>
    method === 'GET' ? boxes.publicKey : { status: 201, body: {} }
  )
  const client = clientOf(url)
  const key = await fetchPublicKey(client, REPO)
  const value = Buffer.from(' \u0000value ✓\r\n')
  t.equal(await putSecret(client, REPO, key, { name: 'A', value, selection: {} }), 'created')
  t.same(value, Buffer.alloc(value.length), 'zeroes alone')
  const put = asked.at(-1)!
  t.equal(put.path, '/repos/mona/web/codespaces/secrets/A')
  t.same(Object.keys(put.body), ['encrypted_value', 'key_id'])
  t.equal(put.body.key_id, '17')
  t.equal(boxes.open(put), ' \u0000value ✓\r\n')
})

t.test('a key that is none is not sealed for', async (t) => {
  const good = Buffer.alloc(32, 9).toString('base64')
  const bodies = [
    { key_id: '1' },
    { key: good },
    { key: good, key_id: 1 },
    { key: good, key_id: '' },
    { key: Buffer.alloc(31).toString('base64'), key_id: '1' },
    { key: Buffer.alloc(33).toString('base64'), key_id: '1' },
    { key: '', key_id: '1' },
    { key: good.slice(0, -1), key_id: '1' },
    { key: `${good}\n`, key_id: '1' },
    { key: Buffer.alloc(32, 0xff).toString('base64url'), key_id: '1' }
  ]
  const { url, asked } = await startScripted(t, (_, number) => ({ status: 200, body: bodies[number - 1] }))
  for (const body of bodies) {
    await t.rejects(
      fetchPublicKey(clientOf(url), USER),
      /must be 32 bytes in base64.*Nothing was sent/,
      JSON.stringify(body)
    )
  }
  t.ok(asked.every(({ method }) => method === 'GET'))
})

t.test('a delete that was carried out before the answer got lost is done', async (t) => {
  const answers = (...each: Scripted[]) => startScripted(t, (_, number) => each[number - 1]!)
  const missing = { status: 404, body: { message: 'Not Found' } }
  const instant = (url: string) => {
    let now = 0
    return {
      ...clientOf(url),
      patience: new Patience({
        maxWaitSeconds: 60,
        say: () => {},
        now: () => now,
        wait: async (ms) => {
          now += ms
        }
      })
    }
  }
  const failed = await answers(
    { status: 502, headers: { 'content-type': 'text/html' }, body: '<html>' },
    missing
  )
  await t.resolves(deleteSecret(instant(failed.url), REPO, 'A'))
  const limited = await answers({ status: 429, headers: { 'retry-after': '1' }, body: {} }, missing)
  await t.rejects(
    deleteSecret(instant(limited.url), REPO, 'A'),
    /There is no secret A among the codespaces secrets of mona\/web/
  )
  const plain = await answers(missing)
  await t.rejects(deleteSecret(clientOf(plain.url), REPO, 'A'), /There is no secret A/)
})

t.test('what selects repositories is checked before anything is sent', async (t) => {
  const none: SelectionOptions = { reposSelected: true }
  t.same(readSelection(none, REPO), {})
  t.same(readSelection(none, ORG), {})
  t.same(readSelection({ ...none, visibility: 'all' }, ORG), { visibility: 'all' })
  t.same(readSelection({ ...none, repos: ['web', 'ACME/api'] }, ORG), {
    visibility: 'selected',
    repositories: [
      { owner: 'acme', name: 'web' },
      { owner: 'ACME', name: 'api' }
    ]
  })
  t.same(readSelection({ reposSelected: false }, USER), { visibility: 'selected', repositories: [] })

  const refused: [Partial<SelectionOptions>, typeof ORG, RegExp][] = [
    [{ visibility: 'all' }, REPO, /go with --org or --user/],
    [{ repos: ['mona/web'] }, readCollection({ repo: WEB, env: 'x' }), /go with --org or --user/],
    [{ reposSelected: false }, REPO, /go with --org or --user/],
    [{ visibility: 'selected' }, ORG, /name them with --repos/],
    [{ visibility: 'all', repos: ['web'] }, ORG, /--visibility all selects no repositories/],
    [{ visibility: 'private', reposSelected: false }, ORG, /--visibility private selects no/],
    [{ repos: ['web'], reposSelected: false }, ORG, /not both/],
    [{ visibility: 'private' }, USER, /all or selected/],
    [{ repos: ['web'] }, USER, /OWNER\/NAME/],
    [{ repos: ['../user'] }, ORG, /OWNER\/NAME/],
    [{ repos: ['web', 'octo/api'] }, ORG, /own repositories: octo\/api is none/],
    [{ repos: ['a/b/c'] }, ORG, /OWNER\/NAME/]
  ]
  for (const [options, collection, message] of refused) {
    t.throws(() => readSelection({ ...none, ...options }, collection), message, JSON.stringify(options))
  }
})

t.test('names of repositories become ids, in the form that the app takes', async (t) => {
  const { url, asked } = await startScripted(t, ({ path }) =>
    path === '/repos/acme/gone'
      ? { status: 404, body: { message: 'Not Found' } }
      : { status: 200, body: { id: path === '/repos/acme/web' ? 7 : 8 } }
  )
  const client = clientOf(url)
  const selection = readSelection({ repos: ['web', 'acme/api'], reposSelected: true }, ORG)
  t.same(await resolveSelection(client, ORG, selection), {
    visibility: 'selected',
    selected_repository_ids: [7, 8]
  })
  t.same(
    asked.map(({ path }) => path),
    ['/repos/acme/web', '/repos/acme/api']
  )
  const dependabot = readCollection({ org: 'acme', app: 'dependabot' })
  t.same(await resolveSelection(client, dependabot, selection), {
    visibility: 'selected',
    selected_repository_ids: ['7', '8']
  })
  const users = readSelection({ repos: ['acme/web'], reposSelected: true }, USER)
  t.same(
    await resolveSelection(client, USER, users),
    { selected_repository_ids: [7] },
    'GitHub knows no more of it'
  )
  t.same(await resolveSelection(client, USER, { visibility: 'all' }), { visibility: 'all' })
  const gone = readSelection({ repos: ['gone'], reposSelected: true }, ORG)
  await t.rejects(
    resolveSelection(client, ORG, gone),
    /There is no repository acme\/gone that this token can see/
  )
})

t.test("an organization's secret keeps who receives it; a new one is private", async (t) => {
  let coffer = false
  const answer = ({ path }: Asked): Scripted => {
    if (path === '/meta')
      return { status: 200, body: coffer ? { coffer_version: '1' } : { installed_version: '3' } }
    return { status: 200, body: { total_count: 2, repositories: [{ id: 7 }, { id: 8 }] } }
  }
  const { url, asked } = await startScripted(t, answer)
  const found = (visibility: 'all' | 'private' | 'selected') => ({ ...secret('A'), visibility })

  const keep = selectionKeeper(clientOf(url), ORG)
  t.same(await keep(undefined), { visibility: 'private' })
  t.same(await keep(found('all')), { visibility: 'all' })
  t.same(asked, [])
  t.same(await keep(found('selected')), { visibility: 'selected', selected_repository_ids: [7, 8] })
  t.same(await keep(found('selected')), { visibility: 'selected', selected_repository_ids: [7, 8] })
  t.same(
    asked.map(({ path }) => path),
    ['/meta', ...Array(2).fill('/orgs/acme/codespaces/secrets/A/repositories?per_page=100')]
  )

  coffer = true
  t.same(await selectionKeeper(clientOf(url), ORG)(found('selected')), { visibility: 'selected' })
  t.same(await selectionKeeper(clientOf(url), USER)(found('selected')), {})
  t.same(await selectionKeeper(clientOf(url), REPO)(undefined), {})
})
