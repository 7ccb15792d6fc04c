import t from 'tap'
import { type OnaServer, startOnaServer } from '../routes/rpc/helper.ts'

// Requests that the SDKs make which cannot be installed from npm, with their headers and bodies: TypeScript's 0.15 and
// Python's 0.7, whose samples are the API's reference.

t.setTimeout(120_000)

const TYPESCRIPT = {
  accept: 'application/json',
  'content-type': 'application/json',
  'user-agent': 'Gitpod/JS 0.15.0',
  'x-stainless-retry-count': '0',
  'x-stainless-lang': 'js',
  'x-stainless-package-version': '0.15.0',
  'accept-language': '*',
  'sec-fetch-mode': 'cors',
  'accept-encoding': 'gzip, deflate'
}
const PYTHON = {
  accept: 'application/json',
  'content-type': 'application/json',
  'user-agent': 'Gitpod/Python 0.7.0',
  'x-stainless-lang': 'python',
  'x-stainless-async': 'false',
  'x-stainless-read-timeout': '60'
}

async function start(t: Parameters<typeof startOnaServer>[0], headers: Record<string, string>) {
  const server = await startOnaServer(t, { events: true })
  const url = await server.listen()
  const post = async (method: string, body?: unknown, token = server.owner.token) => {
    const response = await fetch(`${url}/api/gitpod.v1.${method}`, {
      method: 'POST',
      headers: { ...headers, authorization: `Bearer ${token}` },
      // No body is a body of length 0, as both send it.
      body: body === undefined ? '' : JSON.stringify(body)
    })
    t.equal(response.headers.get('content-type'), 'application/json', method)
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  return { server, url, post }
}

async function made(server: OnaServer, post: Awaited<ReturnType<typeof start>>['post']) {
  const { body } = await post('ProjectService/CreateProject', {
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: 'https://git.example/web.git' } }] },
    prebuildConfiguration: { enabled: true, timeout: '3600s', trigger: { dailySchedule: { hourUtc: 2 } } }
  })
  t.equal(body.project.metadata.organizationId, server.acme.uid)
  t.ok(body.project.environmentClass.environmentClassId, 'a class without being asked for one')
  return body.project.id as string
}

t.test('0.15: an argument left out is a body of length 0', async (t) => {
  const { server, post } = await start(t, TYPESCRIPT)
  const { status, body } = await post('IdentityService/GetAuthenticatedIdentity')
  t.equal(status, 200)
  t.equal(body.subject.id, server.owner.account.uid)
  t.strictSame(await post('SecretService/ListSecrets'), { status: 200, body: { pagination: {} } })
})

t.test(
  '0.15: secrets of organizations and service accounts, for the API alone, and for a proxy',
  async (t) => {
    const { server, post } = await start(t, TYPESCRIPT)
    const account = await post('ServiceAccountService/CreateServiceAccount', {
      name: 'ci',
      description: 'CI',
      validUntil: '2099-12-31T23:59:59Z'
    })
    const serviceAccountId = account.body.serviceAccount.id
    const credentialProxy = { targetHosts: ['api.github.com', '*.example.com'], header: 'Authorization' }
    const scopes = [
      { scope: { organizationId: server.acme.uid }, mount: { apiOnly: true }, more: {} },
      { scope: { serviceAccountId }, mount: { environmentVariable: true }, more: { credentialProxy } },
      { scope: { projectId: await made(server, post) }, mount: { filePath: '/etc/token' }, more: {} }
    ]
    for (const { scope, mount, more } of scopes) {
      const secret = { name: 'API_KEY', ...mount, ...more, scope }
      const message = { ...secret, value: 'v', source: { verbatim: true } }
      const created = await post('SecretService/CreateSecret', message)
      t.equal(created.status, 200)
      const { id, createdAt, updatedAt, creator, projectId, ...rest } = created.body.secret
      t.strictSame(rest, secret)
      const listed = await post('SecretService/ListSecrets', {
        filter: { scope },
        pagination: { pageSize: 100 }
      })
      t.strictSame(listed.body.secrets, [created.body.secret])
      t.strictSame(await post('SecretService/UpdateSecretValue', { secretId: id, value: 'w' }), {
        status: 200,
        body: {}
      })
      t.equal((await post('SecretService/GetSecretValue', { secretId: id })).body.code, 'permission_denied')
      t.equal((await post('SecretService/CreateSecret', message)).body.code, 'already_exists')
      t.strictSame(await post('SecretService/DeleteSecret', { secretId: id }), { status: 200, body: {} })
    }
  }
)

t.test('0.15: projects in bulk, and their classes', async (t) => {
  const { post } = await start(t, TYPESCRIPT)
  const initializer = { specs: [{ contextUrl: { url: 'https://git.example/a' } }] }
  const created = await post('ProjectService/CreateProjects', {
    projects: [
      { name: 'a', initializer },
      {
        name: 'b',
        initializer,
        environmentClass: { environmentClassId: '00000000-0000-4000-8000-000000000000' }
      }
    ]
  })
  t.equal(created.body.createdProjects.length, 1)
  t.match(created.body.failedProjects, [{ index: 1, name: 'b', error: String }])
  const projectId = created.body.createdProjects[0].id
  const updated = await post('ProjectService/UpdateProjects', { projects: [{ projectId, name: 'c' }] })
  t.equal(updated.body.updatedProjects[0].metadata.name, 'c')
  const classes = await post('ProjectService/ListProjectEnvironmentClasses', { projectId })
  const replaced = { projectId, projectEnvironmentClasses: [{ localRunner: true, order: 1 }] }
  t.equal(classes.body.projectEnvironmentClasses.length, 1)
  t.strictSame(await post('ProjectService/UpdateProjectEnvironmentClasses', replaced), {
    status: 200,
    body: {}
  })
  const { body } = await post('ProjectService/ListProjectEnvironmentClasses', { projectId })
  t.strictSame(body.projectEnvironmentClasses, replaced.projectEnvironmentClasses)
  t.strictSame(await post('ProjectService/DeleteProjects', { projectIds: [projectId] }), {
    status: 200,
    body: { deletedProjectIds: [projectId] }
  })
})

t.test("Python: the reference's own example, and pages by the query", async (t) => {
  const { server, url, post } = await start(t, PYTHON)
  const projectId = await made(server, post)
  const names = ['DATABASE_URL', 'HUB_TOKEN_2', 'ZED']
  for (const name of names) {
    const { status } = await post('SecretService/CreateSecret', {
      environmentVariable: true,
      name,
      project_id: projectId,
      value: 'postgresql://user:pass@localhost:5432/db'
    })
    t.equal(status, 200, 'names with underscores are read too')
  }
  const body = { filter: { scope: { projectId } }, pagination: { pageSize: 1 } }
  const seen: string[] = []
  let token: string | undefined
  do {
    const query = token === undefined ? '' : `?token=${encodeURIComponent(token)}`
    const page = await post(`SecretService/ListSecrets${query}`, body)
    seen.push(...page.body.secrets.map(({ name }: { name: string }) => name))
    token = page.body.pagination.nextToken
  } while (token !== undefined)
  t.strictSame(seen, names)

  const stop = new AbortController()
  const stream = await fetch(`${url}/gitpod.v1.EventService/WatchEvents`, {
    method: 'POST',
    headers: { ...PYTHON, accept: 'application/jsonl', authorization: `Bearer ${server.owner.token}` },
    body: JSON.stringify({ organization: true }),
    signal: stop.signal
  })
  t.equal(stream.headers.get('content-type'), 'application/jsonl')
  await post('ProjectService/UpdateProject', { projectId, name: 'site' })
  const reader = stream.body!.getReader()
  let text = ''
  while (!text.includes('RESOURCE_TYPE_PROJECT')) text += Buffer.from((await reader.read()).value!).toString()
  const lines = text.trim().split('\n')
  t.strictSame(JSON.parse(lines.at(-1)!), {
    operation: 'RESOURCE_OPERATION_UPDATE',
    resourceType: 'RESOURCE_TYPE_PROJECT',
    resourceId: projectId
  })
  stop.abort()
})
