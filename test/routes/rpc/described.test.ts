import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { describeOnaApi } from '../../../scripts/describe.ts'
import { type OnaServer, startOnaServer } from './helper.ts'

// What is answered is what the description says, and nothing else.

type Json = Record<string, unknown>

/** A copy in which objects have no other members than those that are named. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const copy = Object.fromEntries(Object.entries(schema).map(([name, part]) => [name, closed(part)]))
  return 'properties' in copy && copy.type === 'object' ? { ...copy, additionalProperties: false } : copy
}

const { paths, components } = JSON.parse(JSON.stringify(describeOnaApi())) as {
  paths: Record<string, { post: { responses: Record<string, { $ref?: string; content?: Json }> } }>
  components: { schemas: Json; responses: Record<string, { content: Json }> }
}
const ajv = new Ajv2020({ strict: false, allErrors: true })
addFormats.default(ajv)
ajv.addSchema({ $id: 'ona', components: { schemas: closed(components.schemas) } })

/** Calls a method with the owner's token, and compares what it answers with its description. */
function caller(t: Test, server: OnaServer, token: string | undefined = server.owner.token) {
  return async (method: string, message: object, status = 200) => {
    const answer = await server.call(method, token, message)
    t.equal(answer.status, status, `${method}: ${JSON.stringify(answer.body)}`)
    const described = paths[`/api/gitpod.v1.${method}`]!.post.responses[status]!
    const { content } = described.$ref
      ? components.responses[described.$ref.split('/').at(-1)!]!
      : (described as { content: Json })
    const { schema } = content['application/json'] as { schema: { $ref: string } }
    const validate = ajv.compile({ $ref: `ona${schema.$ref}` })
    t.ok(validate(answer.body), `${method} ${status} ${JSON.stringify(validate.errors)}`)
    return answer.body
  }
}

t.test('projects', async (t) => {
  const server = await startOnaServer(t)
  const call = caller(t, server)
  const { rows } = await sql<{ uid: string }>`insert into groups (organization_id, name)
    values (${server.acme.id}, 'testers') returning uid`.execute(server.db)
  const groupId = rows[0]!.uid
  const whole = {
    name: 'web',
    initializer: {
      specs: [
        { git: { remoteUri: 'https://git.example/web.git', targetMode: 'CLONE_TARGET_MODE_REMOTE_HEAD' } },
        { contextUrl: { url: 'https://git.example/docs' } }
      ]
    },
    devcontainerFilePath: '.devcontainer/devcontainer.json',
    automationsFilePath: '.ona/automations.yaml',
    technicalDescription: 'What it is made of',
    prebuildConfiguration: {
      enabled: true,
      timeout: '1800s',
      trigger: { dailySchedule: { hourUtc: 3 } },
      executor: { id: server.owner.account.uid, principal: 'PRINCIPAL_USER' }
    }
  }
  const { project } = await call('ProjectService/CreateProject', whole)
  const projectId = project.id as string
  await call('ProjectService/GetProject', { projectId })
  await call('ProjectService/ListProjects', { count: { include: true }, pagination: { pageSize: 1 } })
  await call('ProjectService/UpdateProject', {
    projectId,
    recommendedEditors: { editors: { vscode: { versions: ['1.100'] } } }
  })
  await call('ProjectService/ListProjectEnvironmentClasses', { projectId })
  await call('ProjectService/UpdateProjectEnvironmentClasses', {
    projectId,
    projectEnvironmentClasses: [{ localRunner: true, order: 2 }]
  })
  const policy = { projectId, groupId, role: 'PROJECT_ROLE_USER' }
  await call('ProjectService/CreateProjectPolicy', policy)
  await call('ProjectService/CreateProjectPolicy', policy, 409)
  await call('ProjectService/UpdateProjectPolicy', { ...policy, role: 'PROJECT_ROLE_EDITOR' })
  await call('ProjectService/ListProjectPolicies', { projectId })
  await call('ProjectService/DeleteProjectPolicy', { projectId, groupId })
  const gone = '6f1c2d3e-4b5a-4c6d-8e7f-901a2b3c4d5e'
  await call('ProjectService/CreateProjects', {
    projects: [whole, { ...whole, environmentClass: { environmentClassId: gone } }]
  })
  await call('ProjectService/UpdateProjects', { projects: [{ projectId }, { projectId: gone }] })
  await call('ProjectService/DeleteProjects', { projectIds: [projectId, gone] })
  await call('ProjectService/GetProject', { projectId: gone }, 404)
  await call('ProjectService/CreateProject', { ...whole, name: '' }, 400)
  await caller(t, server, server.member.token)('ProjectService/CreateProject', whole, 403)
})

t.test('secrets', async (t) => {
  const server = await startOnaServer(t)
  const call = caller(t, server)
  const scope = { userId: server.owner.account.uid }
  const proxy = { targetHosts: ['*.example.com'], header: 'Authorization' }
  const mounts = [
    { environmentVariable: true, credentialProxy: proxy },
    { filePath: '/home/user/.netrc' },
    { containerRegistryBasicAuthHost: 'ghcr.io' },
    { apiOnly: true }
  ]
  let secretId = ''
  for (const [index, mount] of mounts.entries()) {
    const { secret } = await call('SecretService/CreateSecret', {
      name: `SECRET_${index}`,
      value: 'value',
      scope,
      ...mount
    })
    secretId = secret.id
  }
  await call('SecretService/ListSecrets', { filter: { scope }, pagination: { pageSize: 3 } })
  await call('SecretService/UpdateSecretValue', { secretId, value: 'other' })
  await call(
    'SecretService/CreateSecret',
    { name: 'SECRET_0', value: 'value', scope, environmentVariable: true },
    409
  )
  await call('SecretService/CreateSecret', { name: '-', value: '', scope, filePath: 'relative' }, 400)
  await call('SecretService/GetSecretValue', { secretId }, 403)
  await call('SecretService/DeleteSecret', { secretId })
  await call('SecretService/DeleteSecret', { secretId }, 404)
  await caller(t, server, 'coffer_pat_none')('SecretService/ListSecrets', {}, 401)
})
