// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { furnish as furnishWorld, names } from './world.ts'

// What is told about which secrets come in, and to whom.

async function furnish(t: Test) {
  const world = await furnishWorld(t)
  await world.openProject()
  const explain = async (token: string, of: object) => {
    const response = await world.request('POST', '/api/coffer.v1.ResolutionService/ExplainSecrets', {
      token,
      body: of
    })
    const { secrets = [], ...rest } = response.json()
    const told = secrets.map(({ origin, name, result, reason }: any) => {
      return `${origin} ${name} ${result}${reason ? `: ${reason}` : ''}`
    })
    return { status: response.statusCode, told: told as string[], rest, text: response.body }
  }
  const put = async (path: string, token: string, more: object = {}) => {
    const sealed = await world.seal(path.slice(0, path.lastIndexOf('/')), token, 'hush-hush')
    const { statusCode } = await world.request('PUT', path, { token, body: { ...sealed, ...more } })
    if (statusCode >= 300) throw new Error(`${path} ${statusCode}`)
  }
  return Object.assign(world, { explain, put })
}

t.test('before it is made and after, the same is told, and never a value', async (t) => {
  const world = await furnish(t)
  const { owner, explain, put, acme, projectId } = world
  await world.createRepository(acme, 'web')
  await put('/user/codespaces/secrets/TOKEN', owner.token, { visibility: 'all' })
  await world.addSecret('TOKEN', 'hush-hush')
  await put('/repos/acme/web/codespaces/secrets/TOKEN', owner.token)
  await put('/repos/acme/web/codespaces/secrets/PATH', owner.token)
  await put('/orgs/acme/codespaces/secrets/ONLY_SOME', owner.token, {
    visibility: 'selected',
    selected_repository_ids: []
  })
  const before = await explain(owner.token, { projectId })
  t.strictSame(before.told, [
    'user TOKEN wins',
    "project TOKEN loses: the user's comes first",
    'repository PATH withheld: the name is reserved, as a variable’s',
    "repository TOKEN loses: the user's comes first",
    'organization ONLY_SOME withheld: it is for selected repositories, and the project’s is not among them'
  ])
  const { id: environmentId } = await world.create()
  const after = await explain(owner.token, { environmentId })
  t.strictSame(after.told, before.told)
  t.notOk(`${before.text}${after.text}`.includes('hush'))
})

t.test('what the organization withholds is for its owners to know', async (t) => {
  const world = await furnish(t)
  const { owner, member, explain, put, projectId } = world
  const selected = { visibility: 'selected', selected_repository_ids: [] }
  await put('/orgs/acme/codespaces/secrets/HIDDEN', owner.token, selected)
  await put('/orgs/acme/codespaces/secrets/FOR_ALL', owner.token, { visibility: 'all' })
  t.strictSame((await explain(member.token, { projectId })).told, ['organization FOR_ALL wins'])
  t.equal((await explain(owner.token, { projectId })).told.length, 2)
  const { id: environmentId } = await world.create(member.token)
  t.strictSame((await explain(member.token, { environmentId })).told, ['organization FOR_ALL wins'])
})

t.test(
  "of a member's environment an owner learns what is in it, and nothing else of the member's",
  async (t) => {
    const world = await furnish(t)
    const { owner, member, explain, put } = world
    // Mia's own repository, of which the owner knows nothing.
    await world.createRepository(member.account, 'private-one')
    await put('/repos/mia/private-one/codespaces/secrets/OF_MINE', member.token)
    await put('/repos/mia/private-one/codespaces/secrets/SAME', member.token)
    await put('/repos/mia/private-one/codespaces/secrets/PATH', member.token)
    await put('/user/codespaces/secrets/SAME', member.token, { visibility: 'all' })
    await put('/user/codespaces/secrets/ELSEWHERE', member.token)
    const content = { initializer: { specs: [{ git: { remoteUri: 'http://coffer.test/mia/private-one' } }] } }
    const { id: environmentId } = await world.create(member.token, { spec: { content } })
    const own = (await explain(member.token, { environmentId })).told
    t.equal(own.length, 5)
    t.strictSame((await explain(owner.token, { environmentId })).told, [
      'user SAME wins',
      'repository OF_MINE wins'
    ])
  }
)

t.test('whether a repository is there that one may not see is not told', async (t) => {
  const world = await furnish(t)
  const { member, stranger, explain, ask, put } = world
  await world.createRepository(stranger.account, 'there')
  await put('/user/codespaces/secrets/MINE', member.token)
  const told: string[][] = []
  for (const name of ['there', 'not-there']) {
    const content = { initializer: { specs: [{ git: { remoteUri: `http://coffer.test/sam/${name}` } }] } }
    const { id: environmentId } = await world.create(member.token, { spec: { content } })
    told.push((await explain(member.token, { environmentId })).told)
    await ask('EnvironmentService/DeleteEnvironment', { environmentId, force: true }, member.token)
  }
  t.match(told[0], [/^user MINE withheld/])
  t.strictSame(told[0], told[1])
})

t.test('remotes that are none, or no name of a repository, make an environment without one', async (t) => {
  const world = await furnish(t)
  for (const remoteUri of [
    'http://coffer.test/acme/web%00',
    'http://coffer.test/%ff/web',
    'http://[/acme/web',
    `http://coffer.test/acme/${'a'.repeat(2000)}`
  ]) {
    const content = { initializer: { specs: [{ git: { remoteUri } }] } }
    t.ok((await world.create(world.owner.token, { spec: { content } })).id, remoteUri.slice(0, 40))
  }
})

t.test('what is not there, or of others, is not found', async (t) => {
  const world = await furnish(t)
  const { owner, member, stranger, explain, projectId } = world
  const { id: environmentId } = await world.create(owner.token)
  const cells: [string, object, number][] = [
    [member.token, { environmentId }, 404],
    [stranger.token, { environmentId }, 404],
    [stranger.token, { projectId }, 404],
    [owner.token, { environmentId: randomUUID() }, 404],
    [owner.token, { projectId: randomUUID() }, 404],
    [owner.token, {}, 400],
    [owner.token, { environmentId, projectId }, 400]
  ]
  for (const [token, of, status] of cells) {
    t.equal((await explain(token, of)).status, status, JSON.stringify(Object.keys(of)))
  }
})

t.test('what spec.secrets names can only be what would come in', async (t) => {
  const world = await furnish(t)
  const { owner, member, projectId, call } = world
  const one = await world.addSecret('ONE', 'x')
  await world.addSecret('TWO', 'x')
  const mine = await world.addSecret('MINE', 'x', { scope: { userId: member.account.uid } }, member.token)
  const choose = (...ids: string[]) => ({ spec: { secrets: ids.map((sourceRef) => ({ sourceRef })) } })
  t.strictSame(names(await world.start(owner.token, choose(one))), ['ONE'])
  t.strictSame(names(await world.start(owner.token, choose(one.toUpperCase()))), ['ONE'])
  for (const ids of [[mine], [one, mine], [randomUUID()]]) {
    t.match(
      await call('EnvironmentService/CreateEnvironmentFromProject', owner.token, {
        projectId,
        ...choose(...ids)
      }),
      { status: 404, body: { code: 'not_found' } }
    )
  }
})
