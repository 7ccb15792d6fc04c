import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import Gitpod from '@gitpod/sdk'
import { EnvironmentState } from '@gitpod/sdk/lib/environment'
import t, { type Test } from 'tap'
import { type OnaServer, sdk, startOnaServer } from '../routes/rpc/helper.ts'
import { makeEnvironment } from '../routes/rpc/watching.ts'

// @gitpod/sdk as it is installed from npm, against a server that listens.

t.setTimeout(180_000)

const git = { specs: [{ git: { remoteUri: 'https://git.example/acme/web.git' } }] }

async function start(t: Test) {
  const server = await startOnaServer(t, { events: true })
  const url = await server.listen()
  const client = sdk(url, server.owner.token)
  const classes = await client.environments.classes.list({})
  return { server, url, client, environmentClassId: classes.environmentClasses[0]!.id }
}

async function makeProject(client: Gitpod, environmentClassId: string, name = 'web'): Promise<string> {
  const environmentClass = { environmentClassId }
  const { project } = await client.projects.create({ name, initializer: git, environmentClass })
  return project!.id!
}

t.test('from an empty server to secrets of every mount', async (t) => {
  const { server, client, environmentClassId } = await start(t)
  const { subject, organizationId } = await client.identity.getAuthenticatedIdentity({})
  t.strictSame(subject, { id: server.owner.account.uid, principal: 'PRINCIPAL_USER' })
  t.equal(organizationId, server.acme.uid)
  const projectId = await makeProject(client, environmentClassId)
  const scope = { projectId }
  const mounts = [
    { name: 'DB_URL', environmentVariable: true },
    { name: 'SSH_KEY', filePath: '/home/u/.ssh/id' },
    { name: 'REGISTRY', containerRegistryBasicAuthHost: 'https://index.docker.io/v1/' },
    // Of later versions; the client passes on what it does not know.
    { name: 'TOKEN', apiOnly: true }
  ]
  for (const mount of mounts) {
    const { secret } = await client.secrets.create({ ...mount, value: ' a\r\nvalue\n', scope })
    const { id, createdAt, updatedAt, creator, ...rest } = secret!
    t.strictSame(rest, { ...mount, projectId, scope })
    t.match(id, /^[0-9a-f-]{36}$/)
    t.match(createdAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    t.equal(updatedAt, createdAt)
    t.strictSame(creator, { id: server.owner.account.uid, principal: 'PRINCIPAL_USER' })
    t.equal(String(await server.reveal('project', projectId, mount.name)), ' a\r\nvalue\n')
  }
  const { secret: legacy } = await client.secrets.create({
    name: 'LEGACY',
    value: 'v',
    environmentVariable: true,
    projectId
  })
  t.strictSame(legacy!.scope, scope)
  const { secret: own } = await client.secrets.create({
    name: 'MINE',
    value: 'v',
    environmentVariable: true,
    scope: { userId: subject!.id! }
  })
  t.strictSame(own!.scope, { userId: subject!.id })
  const page = await client.secrets.list({ filter: { scope } })
  t.strictSame(
    page.secrets.map(({ name }) => name),
    ['DB_URL', 'LEGACY', 'REGISTRY', 'SSH_KEY', 'TOKEN']
  )
  await client.secrets.updateValue({ secretId: legacy!.id!, value: 'new' })
  t.equal(String(await server.reveal('project', projectId, 'LEGACY')), 'new')
  await client.secrets.delete({ secretId: legacy!.id! })
  t.equal(await server.reveal('project', projectId, 'LEGACY'), undefined)
  await t.rejects(
    client.secrets.getValue({ secretId: own!.id! }),
    { status: 403, code: 'permission_denied' },
    'people do not read values'
  )
})

t.test('an environment reads what it receives, and nothing else', async (t) => {
  const { server, url, client, environmentClassId } = await start(t)
  const projectId = await makeProject(client, environmentClassId)
  const scope = { projectId }
  const made = async (name: string) =>
    (await client.secrets.create({ name, value: `of ${name}`, environmentVariable: true, scope })).secret!.id!
  const [given, kept] = [await made('GIVEN'), await made('KEPT')]
  const environment = await makeEnvironment(server, server.owner.account, { projectUid: projectId })
  await server.db
    .insertInto('environment_secrets')
    .columns(['environment_id', 'secret_id'])
    .expression((eb) =>
      eb
        .selectFrom('secrets')
        .select([eb.val(environment.id).as('environment_id'), 'id'])
        .where('uid', '=', given)
    )
    .execute()
  const inside = sdk(url, environment.token)
  t.strictSame(await inside.secrets.getValue({ secretId: given }), { value: 'of GIVEN' })
  await t.rejects(inside.secrets.getValue({ secretId: kept }), { status: 404, code: 'not_found' })
  await t.rejects(inside.secrets.list({ filter: { scope } }), { status: 404, code: 'not_found' })
  const { subject } = await inside.identity.getAuthenticatedIdentity({})
  t.strictSame(subject, { id: environment.uid, principal: 'PRINCIPAL_ENVIRONMENT' })
})

t.test('projects: all methods, and policies', async (t) => {
  const { server, client, environmentClassId } = await start(t)
  const projectId = await makeProject(client, environmentClassId)
  const { project } = await client.projects.retrieve({ projectId })
  t.match(project, {
    id: projectId,
    metadata: { name: 'web', organizationId: server.acme.uid },
    initializer: git,
    environmentClass: { environmentClassId }
  })
  const updated = await client.projects.update({
    projectId,
    name: 'site',
    automationsFilePath: '.ona/a.yaml'
  })
  t.equal(updated.project!.metadata!.name, 'site')
  t.equal(updated.project!.automationsFilePath, '.ona/a.yaml')
  t.strictSame(updated.project!.initializer, git, 'what is unset stays')
  const listed = await client.projects.list({ filter: { projectIds: [projectId] } })
  t.strictSame(
    listed.projects.map(({ id }) => id),
    [projectId]
  )
  const everyone = (await client.groups.list({})).groups.find(({ systemManaged }) => systemManaged)!
  const groupId = everyone.id!
  const { policies } = client.projects
  const role = 'PROJECT_ROLE_USER'
  t.strictSame((await policies.create({ projectId, groupId, role })).policy, { groupId, role })
  const changed = await policies.update({ projectId, groupId, role: 'PROJECT_ROLE_EDITOR' })
  t.equal(changed.policy!.role, 'PROJECT_ROLE_EDITOR')
  t.strictSame((await policies.list({ projectId })).policies, [changed.policy])
  t.strictSame(await policies.delete({ projectId, groupId }), {})
  t.strictSame((await policies.list({ projectId })).policies, [])
  t.strictSame(await client.projects.delete({ projectId }), {})
  await t.rejects(client.projects.retrieve({ projectId }), { status: 404, code: 'not_found' })
})

t.test('users, organizations, runners and classes: all methods', async (t) => {
  const { server, client } = await start(t)
  const { user } = await client.users.getAuthenticatedUser({})
  t.match(user, {
    id: server.owner.account.uid,
    organizationId: server.acme.uid,
    status: 'USER_STATUS_ACTIVE'
  })
  const tokens = await client.users.pats.list({})
  t.equal(tokens.personalAccessTokens.length, 1)
  const [pat] = tokens.personalAccessTokens
  t.strictSame((await client.users.pats.get({ personalAccessTokenId: pat!.id! })).pat, pat)

  const { organization } = await client.organizations.retrieve({ organizationId: server.acme.uid })
  t.equal(organization.name, 'acme')
  const members = await client.organizations.listMembers({ organizationId: server.acme.uid })
  t.strictSame(
    members.members.map(({ userId, role }) => [userId, role]),
    [
      [server.owner.account.uid, 'ORGANIZATION_ROLE_ADMIN'],
      [server.member.account.uid, 'ORGANIZATION_ROLE_MEMBER']
    ]
  )
  t.equal((await client.organizations.create({ name: 'Second One' })).organization.name, 'Second One')

  const { runner, exchangeToken } = await client.runners.create({
    name: 'metal',
    kind: 'RUNNER_KIND_REMOTE',
    provider: 'RUNNER_PROVIDER_LINUX_HOST'
  })
  const runnerId = runner.runnerId!
  const { accessToken } = await client.identity.exchangeToken({ exchangeToken: exchangeToken! })
  t.match(accessToken, /^coffer_run_/)
  t.ok((await client.runners.createRunnerToken({ runnerId })).exchangeToken)
  await client.runners.update({ runnerId, name: 'iron' })
  t.equal((await client.runners.retrieve({ runnerId })).runner.name, 'iron')
  const runners = await client.runners.list({ filter: { kinds: ['RUNNER_KIND_REMOTE'] } })
  t.equal(runners.runners.length, 2, 'with the hosted one')

  const { environmentClasses } = client.runners.configurations
  const { id } = await environmentClasses.create({
    runnerId,
    displayName: 'Large',
    description: 'Much of everything',
    configuration: [{ key: 'cpu', value: '8' }]
  })
  await environmentClasses.update({ environmentClassId: id!, displayName: 'Huge' })
  const { environmentClass } = await environmentClasses.retrieve({ environmentClassId: id! })
  t.match(environmentClass, { id, runnerId, displayName: 'Huge', enabled: true })
  const filter = { runnerIds: [runnerId] }
  t.strictSame((await environmentClasses.list({ filter })).environmentClasses, [environmentClass])
  t.strictSame((await client.environments.classes.list({ filter })).environmentClasses, [environmentClass])
  await client.runners.delete({ runnerId })
  await t.rejects(client.runners.retrieve({ runnerId }), { status: 404, code: 'not_found' })

  await client.users.pats.delete({ personalAccessTokenId: pat!.id! })
  await t.rejects(
    client.users.getAuthenticatedUser({}),
    { status: 401, code: 'unauthenticated' },
    'its own token is revoked'
  )
})

t.test('auto-pagination over 250 secrets, and the audit log of them', async (t) => {
  const { client, environmentClassId } = await start(t)
  const scope = { projectId: await makeProject(client, environmentClassId) }
  const names = Array.from({ length: 250 }, (_, at) => `KEY_${String(at).padStart(3, '0')}`)
  for (const name of names)
    await client.secrets.create({ name, value: 'v', environmentVariable: true, scope })
  for (const pagination of [undefined, { pageSize: 100 }, { pageSize: 7 }]) {
    const seen: string[] = []
    for await (const { name } of client.secrets.list({
      filter: { scope },
      ...(pagination && { pagination })
    })) {
      seen.push(name!)
    }
    t.strictSame(seen, names)
  }
  const pages = []
  for await (const page of (await client.secrets.list({ filter: { scope }, pageSize: 100 })).iterPages()) {
    pages.push(page.secrets.length)
  }
  t.strictSame(pages, [100, 100, 50], 'pageSize in the query')
  let entries = 0
  for await (const entry of client.events.list({ filter: { subjectTypes: ['RESOURCE_TYPE_SECRET'] } })) {
    t.equal(entry.action, 'secret.create')
    entries++
  }
  t.equal(entries, 250)
})

t.test('each class of errors', async (t) => {
  const { server, url, client, environmentClassId } = await start(t)
  const scope = { projectId: await makeProject(client, environmentClassId) }
  const secret = { name: 'DB_URL', value: 'v', environmentVariable: true, scope }
  await client.secrets.create(secret)
  const failure = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => undefined,
      (reason) => reason
    )
    t.ok(error instanceof Gitpod.APIError)
    const { status, code } = error as InstanceType<typeof Gitpod.APIError>
    return { type: (error as Error).constructor.name, status, code }
  }
  const unknown = '00000000-0000-4000-8000-000000000000'
  t.strictSame(await failure(client.secrets.create({ ...secret, name: 'a-b' })), {
    type: 'BadRequestError',
    status: 400,
    code: 'invalid_argument'
  })
  t.strictSame(await failure(client.secrets.create({ ...secret, name: 'PATH' })), {
    type: 'BadRequestError',
    status: 400,
    code: 'invalid_argument'
  })
  t.strictSame(await failure(sdk(url, 'coffer_pat_nothing').secrets.list({})), {
    type: 'AuthenticationError',
    status: 401,
    code: 'unauthenticated'
  })
  t.strictSame(
    await failure(
      sdk(url, server.member.token).secrets.list({
        filter: { scope: { organizationId: server.acme.uid } as object }
      })
    ),
    { type: 'PermissionDeniedError', status: 403, code: 'permission_denied' }
  )
  t.strictSame(await failure(sdk(url, server.stranger.token).projects.retrieve(scope)), {
    type: 'NotFoundError',
    status: 404,
    code: 'not_found'
  })
  t.strictSame(await failure(client.secrets.delete({ secretId: unknown })), {
    type: 'NotFoundError',
    status: 404,
    code: 'not_found'
  })
  const requests = server.log.filter((line) => line.includes('CreateSecret')).length
  t.strictSame(await failure(client.secrets.create(secret)), {
    type: 'ConflictError',
    status: 409,
    code: 'already_exists'
  })
  t.equal(server.log.filter((line) => line.includes('CreateSecret')).length, requests + 1, 'asked once')
  t.strictSame(await failure(client.post('/gitpod.v1.SecretService/GetSecret', { body: {} })), {
    type: 'NotFoundError',
    status: 404,
    code: 'unimplemented'
  })
})

/** A server before the real one, which may answer instead of it. */
async function relay(
  t: Test,
  target: string,
  answer: (request: IncomingMessage, response: ServerResponse) => boolean
): Promise<string> {
  const server = createServer((request, response) => {
    if (answer(request, response)) return
    const { method, headers, url } = request
    const forwarded = httpRequest(`${target}${url}`, { method: method!, headers }, (answered) => {
      response.writeHead(answered.statusCode!, answered.headers)
      answered.pipe(response)
    })
    forwarded.on('error', () => response.destroy())
    response.on('close', () => forwarded.destroy())
    request.pipe(forwarded)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

t.test('a 503 that heals is tried again, a refusal is not', async (t) => {
  const { server, url } = await start(t)
  const asked: string[] = []
  const before = await relay(t, url, (request, response) => {
    asked.push(String(request.headers['x-stainless-retry-count']))
    if (asked.length > 2) return false
    response.writeHead(503, { 'content-type': 'application/json', 'retry-after-ms': '1' })
    response.end('{"code":"unavailable","message":"away"}')
    return true
  })
  const client = sdk(before, server.owner.token)
  t.ok((await client.identity.getAuthenticatedIdentity({})).subject)
  t.strictSame(asked, ['0', '1', '2'])
  await t.rejects(client.projects.retrieve({ projectId: 'no uuid' }), {
    status: 400,
    code: 'invalid_argument'
  })
  t.equal(asked.length, 4)
})

t.test('watching: events as they happen, and a stream that dies', async (t) => {
  const { client, environmentClassId } = await start(t)
  const stream = await client.events.watch({ organization: true })
  const projectId = await makeProject(client, environmentClassId)
  for await (const event of stream) {
    if (event.resourceType !== 'RESOURCE_TYPE_PROJECT') continue
    t.strictSame(event, {
      operation: 'RESOURCE_OPERATION_CREATE',
      resourceType: 'RESOURCE_TYPE_PROJECT',
      resourceId: projectId
    })
    break
  }
  stream.controller.abort()
})

/** What a runner reports, as it is stored; the database tells who watches. */
async function setPhase({ db }: OnaServer, environmentUid: string, phase: string): Promise<void> {
  await db.updateTable('environments').set({ phase }).where('uid', '=', environmentUid).execute()
}

t.test(
  'the helper that waits for an environment hears of it, and comes back when its stream dies',
  async (t) => {
    const { server, url } = await start(t)
    const environment = await makeEnvironment(server, server.owner.account)
    await setPhase(server, environment.uid, 'ENVIRONMENT_PHASE_STARTING')
    const streams: ServerResponse[] = []
    let onStream = () => {}
    const before = await relay(t, url, (request, response) => {
      if (request.url!.endsWith('/WatchEvents')) {
        streams.push(response)
        onStream()
      }
      return false
    })
    const opened = async (count: number) => {
      while (streams.length < count) await new Promise<void>((resolve) => (onStream = resolve))
    }
    const state = new EnvironmentState(sdk(before, server.owner.token), environment.uid)
    t.teardown(() => state.close())
    t.equal((await state.getEnvironment()).status!.phase, 'ENVIRONMENT_PHASE_STARTING')
    await opened(1)
    streams[0]!.destroy()
    await opened(2)
    await setPhase(server, environment.uid, 'ENVIRONMENT_PHASE_RUNNING')
    await state.waitUntilRunning()
    t.equal(streams.length, 2)
  }
)
