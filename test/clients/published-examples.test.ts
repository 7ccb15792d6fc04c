import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import {
  describedOperations,
  describedStatuses,
  documentationUrl,
  membersOf,
  requestExample,
  requiredMembers,
  responseExample,
  schemaValidator,
  validator
} from '../github-description.ts'
import { getAccount, startTestServer } from '../helper.ts'
import { type Program, testWith } from '../installed.ts'

// The commands of GitHub's reference, operation by operation: curl with the headers and the sample bodies that stand
// there, and the names too. Only a value is sealed for real, and ids are those of repositories that exist.

const curl: Program = { file: 'curl', probe: ['--version'], package: 'curl' }
const run = promisify(execFile)

const SECRETS =
  /\/(actions|agents|codespaces|dependabot)\/(organization-)?secrets|\/environments\/[^/]+\/secrets/

interface Operation {
  id: string
  method: string
  /** with the reference's own words in place of parameters */
  path: string
  /** of the collection that it is about */
  base: string
  /** what comes after the collection: ``, `/public-key`, `/{secret_name}/repositories` */
  rest: string
}

const NAMES: Record<string, string> = {
  org: 'ORG',
  owner: 'ORG',
  repo: 'REPO',
  environment_name: 'ENVIRONMENT_NAME',
  secret_name: 'SECRET_NAME'
}

const OPERATIONS: Operation[] = describedOperations()
  .filter(({ url }) => SECRETS.test(url))
  .map(({ url, method, operationId }) => {
    const name = (text: string) => text.replaceAll(/\{(\w+)\}/g, (all, key) => NAMES[key] ?? all)
    const base = url.replace(/(secrets)\/.*$/, '$1')
    return {
      id: operationId,
      method: method.toUpperCase(),
      path: name(url),
      base: name(base),
      rest: url.slice(base.length)
    }
  })

/** The order in which a collection's operations make sense. */
const ORDER = [
  'GET /public-key',
  'PUT /{secret_name}',
  'GET ',
  'GET /{secret_name}',
  'GET /{secret_name}/repositories',
  'PUT /{secret_name}/repositories',
  'PUT /{secret_name}/repositories/{repository_id}',
  'DELETE /{secret_name}/repositories/{repository_id}',
  'DELETE /{secret_name}'
]

interface Answer {
  status: number
  type: string
  body: string
}

async function prepare(t: Test) {
  const server = await startTestServer(t)
  const owner = await server.createUser('USERNAME')
  const organization = await server.createOrganization('ORG', owner)
  await server.createRepository(organization, 'REPO')
  const ids: number[] = []
  for (const name of ['one', 'two']) ids.push(await server.createRepository(organization, name))
  const token = await server.createToken(owner, { scopes: ['repo', 'admin:org', 'codespace'] })
  await server.request('PUT', '/repos/ORG/REPO/environments/ENVIRONMENT_NAME', { token })
  const base = await server.listen()

  /** `curl -L -X PUT -H … URL -d …`, as the reference has it: the body goes out as a form's */
  const ask = async (
    method: string,
    path: string,
    body?: unknown,
    as: string | null = token
  ): Promise<Answer> => {
    const headers = ['Accept: application/vnd.github+json', 'X-GitHub-Api-Version: 2022-11-28']
    if (as !== null) headers.push(`Authorization: Bearer ${as}`)
    const { stdout } = await run(curl.file, [
      ...['--silent', '--show-error', '-L', '-X', method],
      ...headers.flatMap((header) => ['-H', header]),
      base + path.replace('{repository_id}', String(ids[0])),
      ...(body === undefined ? [] : ['-d', typeof body === 'string' ? body : JSON.stringify(body)]),
      ...['--write-out', '\n%{http_code} %{content_type}']
    ])
    const end = stdout.lastIndexOf('\n')
    const [status, ...type] = stdout.slice(end + 1).split(' ')
    return { status: Number(status), type: type.join(' '), body: stdout.slice(0, end) }
  }

  /** The sample, with a value that was sealed for this collection and ids that exist, as text where it has text. */
  const bodyOf = async ({ id, base: collection }: Operation, value = 'value'): Promise<unknown> => {
    const example = requestExample(id) as Record<string, unknown> | undefined
    if (!example) return undefined
    const sample = example.selected_repository_ids as (number | string)[] | undefined
    return {
      ...example,
      ...('encrypted_value' in example && (await server.seal(collection, token, value))),
      ...(sample && {
        selected_repository_ids: sample.map((id, index) =>
          typeof id === 'string' ? String(ids[index]) : ids[index]
        )
      })
    }
  }
  return { server, ids, token, ask, bodyOf }
}

/** Samples that show a repository's secret with a visibility, which neither schema nor real answers have. */
const SHOWN_WITH_VISIBILITY = ['codespaces/list-repo-secrets', 'codespaces/get-repo-secret']

/** What one sample shows of a repository that other repositories than GitHub's own have not. */
const ABSENT_REPOSITORY_MEMBERS = ['delete_branch_on_merge', 'temp_clone_token', 'template_repository']

/** Members in their order; the URL is there for secrets with visibility `selected` alone. */
function membersOfSecret(secret: object, absent: string[] = []): string[] {
  return Object.keys(secret).filter((name) => name !== 'selected_repositories_url' && !absent.includes(name))
}

function isLikeSample(t: Test, id: string, body: Record<string, unknown>): void {
  const sample = responseExample(id, 200) as Record<string, unknown>
  const absent = SHOWN_WITH_VISIBILITY.includes(id) ? ['visibility'] : []
  if (body.repositories) {
    t.same(Object.keys(body), Object.keys(sample))
    const [ours] = body.repositories as object[]
    const [theirs] = sample.repositories as object[]
    const lacking = Object.keys(theirs!).filter((name) => !(name in ours!))
    t.same(
      lacking.filter((name) => !ABSENT_REPOSITORY_MEMBERS.includes(name)),
      [],
      `${id}: all of the sample`
    )
    const described = membersOf('minimal-repository')
    t.same(
      Object.keys(ours!).filter((name) => !described.includes(name)),
      [],
      `${id}: all described`
    )
  } else if (body.secrets) {
    t.same(Object.keys(body), Object.keys(sample))
    const [ours, theirs] = [body, sample].map(({ secrets }) => (secrets as object[])[0]!)
    t.same(membersOfSecret(ours!), membersOfSecret(theirs!, absent), `${id}: members`)
  } else {
    t.same(membersOfSecret(body), membersOfSecret(sample, absent), `${id}: members`)
  }
}

await testWith(t, curl, "every command of GitHub's reference on secrets, with its sample", async (t) => {
  const { server, token, ask, bodyOf } = await prepare(t)
  t.equal(OPERATIONS.length, 72, 'what GitHub has')
  for (const app of ['actions', 'agents']) {
    const path = `/orgs/ORG/${app}/secrets`
    const body = { ...(await server.seal(path, token, 'x')), visibility: 'all' }
    await server.request('PUT', `${path}/RECEIVED`, { token, body })
  }
  const visited: string[] = []
  for (const base of new Set(OPERATIONS.map((operation) => operation.base))) {
    const ordered = OPERATIONS.filter((operation) => operation.base === base).sort(
      (a, b) => ORDER.indexOf(`${a.method} ${a.rest}`) - ORDER.indexOf(`${b.method} ${b.rest}`)
    )
    for (const operation of ordered) {
      const { id, method, path, rest } = operation
      const statuses =
        method === 'GET' ? [200] : method === 'PUT' && rest === '/{secret_name}' ? [201, 204] : [204]
      for (const status of statuses) {
        const answer = await ask(method, path, await bodyOf(operation))
        if (!t.equal(answer.status, status, `${method} ${path}`)) t.comment(answer.body)
        t.ok(describedStatuses(id).includes(status))
        if (status === 204) {
          t.equal(answer.body, '')
          continue
        }
        t.equal(answer.type, 'application/json; charset=utf-8')
        const body = JSON.parse(answer.body)
        t.same(validator(id, status)(body), [], `${id} ${status}`)
        if (status === 201) t.equal(answer.body, '{}')
        else isLikeSample(t, id, body)
      }
      visited.push(id)
    }
  }
  t.same(visited.sort(), OPERATIONS.map(({ id }) => id).sort())
  const left = await server.db.selectFrom('secrets').select('name').execute()
  t.same(left, [{ name: 'RECEIVED' }, { name: 'RECEIVED' }], 'the last command deletes')
})

await testWith(
  t,
  curl,
  "the sample values of GitHub's reference are no sealed boxes, and refused as such",
  async (t) => {
    const { server, ask, bodyOf } = await prepare(t)
    const writes = OPERATIONS.filter(({ method, rest }) => method === 'PUT' && rest === '/{secret_name}')
    t.equal(writes.length, 10)
    for (const operation of writes) {
      const body = { ...((await bodyOf(operation)) as object), encrypted_value: 'c2VjcmV0' }
      const answer = await ask('PUT', operation.path, body)
      t.equal(answer.status, 422, operation.id)
      const parsed = JSON.parse(answer.body)
      t.same(schemaValidator('validation-error')(parsed), [])
      t.match(parsed, {
        message: 'Bad request - validation failed due to an improperly encrypted secret',
        errors: [{ field: 'encrypted_value', message: /shorter than a sealed box/ }],
        documentation_url: documentationUrl(operation.id)?.replace(/\/reference\/(\w+)#/, '/$1/secrets#')
      })
      t.notMatch(answer.body, 'c2VjcmV0')
    }
    t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
  }
)

await testWith(
  t,
  curl,
  'what GitHub requires in a body is missed by name, and nothing is stored',
  async (t) => {
    const { server, ask, bodyOf } = await prepare(t)
    for (const operation of OPERATIONS.filter(({ id }) => requestExample(id) !== undefined)) {
      const { id, path, rest } = operation
      const body = (await bodyOf(operation)) as Record<string, unknown>
      if (rest !== '/{secret_name}') continue
      for (const member of requiredMembers(id)) {
        const { [member]: _, ...without } = body
        const answer = await ask('PUT', path, without)
        t.equal(answer.status, 422, `${id} without ${member}`)
        const parsed = JSON.parse(answer.body)
        t.same(schemaValidator('validation-error')(parsed), [])
        t.equal(parsed.message, `Invalid request.\n\n"${member}" wasn't supplied.`)
        t.match(parsed.errors, [{ field: member, code: 'missing_field' }])
      }
    }
    t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
  }
)

t.test('every refusal of every operation has the form that GitHub describes', async (t) => {
  const { server, ids, token, bodyOf } = await prepare(t)
  const account = await getAccount(server.db, 'USERNAME')
  const powerless = await server.createToken(account, { scopes: [] })
  const ask = async (
    method: string,
    path: string,
    body: unknown,
    as: string | null = token
  ): Promise<Answer> => {
    const url = path.replace('{repository_id}', String(ids[0]))
    const response = await server.request(method as 'GET', url, { token: as ?? undefined, body })
    const type = String(response.headers['content-type'])
    return { status: response.statusCode, type, body: response.body }
  }
  const conforms = (
    { id }: Operation,
    { status, type, body }: Answer,
    expected: number,
    message?: string
  ) => {
    t.equal(status, expected, `${id} ${expected}`)
    t.equal(type, 'application/json; charset=utf-8')
    const parsed = JSON.parse(body)
    const described = expected !== 409 && describedStatuses(id).includes(expected)
    const validate = described ? validator(id, expected) : schemaValidator('basic-error')
    t.same(validate(parsed), [], `${id} ${expected}: body`)
    t.same(Object.keys(parsed), ['message', 'documentation_url', 'status'])
    if (message) t.equal(parsed.message, message)
  }
  for (const operation of OPERATIONS) {
    const { method, path, rest } = operation
    const body = await bodyOf(operation)
    conforms(operation, await ask(method, path, body, null), 401, 'Requires authentication')
    // not by every one: an address that keeps failing to log in is shut out
    if (method === 'GET' && rest === '') {
      conforms(operation, await ask(method, path, body, 'wrong'), 401, 'Bad credentials')
    }
    const blind = path.startsWith('/repos') ? 404 : 403
    conforms(operation, await ask(method, path, body, powerless), blind)
    if (rest.includes('{secret_name}') && `${method} ${rest}` !== 'PUT /{secret_name}') {
      conforms(operation, await ask(method, path, body), 404, 'Not Found')
    }
    if (body !== undefined)
      conforms(operation, await ask(method, path, '{"key_id"'), 400, 'Problems parsing JSON')
  }

  const conflicts = OPERATIONS.filter(({ id }) => describedStatuses(id).includes(409))
  t.equal(conflicts.length, 9)
  const selections = OPERATIONS.filter(
    ({ base, method, rest }) => base.startsWith('/orgs') && method !== 'GET' && rest.includes('/repositories')
  )
  for (const operation of selections) {
    const { base, method, path } = operation
    const value = { ...(await server.seal(base, token, 'x')), visibility: 'private' }
    await server.request('PUT', `${base}/SECRET_NAME`, { token, body: value })
    const answer = await ask(method, path, await bodyOf(operation))
    conforms(operation, answer, 409)
    t.match(answer.body, /private/)
  }
})
