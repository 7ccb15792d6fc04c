import t from 'tap'
import { isConsistent } from '../../consistency.ts'
import { type OnaServer, startOnaServer } from './helper.ts'

t.setTimeout(120_000)

const initializer = {
  specs: [
    {
      git: {
        remoteUri: 'https://git.example/acme/web.git',
        targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH',
        cloneTarget: 'main',
        checkoutLocation: 'web'
      }
    }
  ]
}

// biome-ignore lint/suspicious/noExplicitAny: JSON as it comes
type Project = { id: string } & Record<string, any>

async function create({ call, owner }: OnaServer, message: object = {}): Promise<Project> {
  const { status, body } = await call('ProjectService/CreateProject', owner.token, {
    name: 'web',
    initializer,
    ...message
  })
  if (status !== 200) throw new Error(`CreateProject answered ${body.message}`)
  return body.project
}

async function classesOf({ call, owner }: OnaServer): Promise<string[]> {
  const { body } = await call('EnvironmentService/ListEnvironmentClasses', owner.token)
  return body.environmentClasses.map(({ id }: { id: string }) => id)
}

async function everyone({ call, owner }: OnaServer): Promise<string> {
  const filter = { systemManaged: true }
  const { body } = await call('GroupService/ListGroups', owner.token, { filter })
  return body.groups[0].id
}

t.test('a project holds what it was made with, and an update changes what it names', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, acme } = server
  const [classId] = await classesOf(server)
  const settings = {
    devcontainerFilePath: '.devcontainer/devcontainer.json',
    automationsFilePath: '.ona/automations.yaml',
    prebuildConfiguration: { enabled: true, timeout: '1800s', environmentClassIds: [classId] }
  }
  const made = await create(server, { ...settings, technicalDescription: 'A site' })
  const { metadata, ...rest } = made
  t.match(metadata, {
    organizationId: acme.uid,
    name: 'web',
    creator: { id: owner.account.uid, principal: 'PRINCIPAL_USER' }
  })
  t.strictSame(rest, {
    id: made.id,
    initializer,
    environmentClass: { environmentClassId: classId },
    environmentClasses: [{ environmentClassId: classId }],
    ...settings,
    technicalDescription: 'A site',
    desiredPhase: 'PROJECT_PHASE_ACTIVE'
  })
  const get = async () =>
    (await call('ProjectService/GetProject', owner.token, { projectId: made.id })).body.project
  const { technicalDescription, ...shown } = made
  t.strictSame(await get(), shown, 'without the technical description')

  const update = (message: object) =>
    call('ProjectService/UpdateProject', owner.token, { projectId: made.id, ...message })
  const renamed = (await update({ name: 'site', automations_file_path: '', initializer: null })).body.project
  t.equal(renamed.metadata.name, 'site')
  t.notOk('automationsFilePath' in renamed, 'an empty path clears it')
  t.strictSame(renamed.initializer, initializer, 'null is unset')
  t.ok(renamed.metadata.updatedAt > metadata.updatedAt)
  const editors = { editors: { goland: { versions: ['2025.1'] }, vscode: {} } }
  t.strictSame((await update({ recommendedEditors: editors })).body.project.recommendedEditors, editors)
  t.notOk('recommendedEditors' in (await update({ recommendedEditors: {} })).body.project)
  const local = (await update({ environmentClass: { localRunner: true } })).body.project
  t.strictSame(local.environmentClasses, [{ localRunner: true }])

  for (const [message, field] of [
    [{ name: '' }, 'name'],
    [{ name: 'x'.repeat(81) }, 'name'],
    [{ devcontainerFilePath: '/etc/passwd' }, 'devcontainerFilePath'],
    [{ technicalDescription: 'x'.repeat(8193) }, 'technicalDescription'],
    [{ prebuildConfiguration: { timeout: '299s' } }, 'prebuildConfiguration.timeout'],
    [
      { prebuildConfiguration: { trigger: { dailySchedule: { hourUtc: 24 } } } },
      'prebuildConfiguration.trigger'
    ],
    [{ initializer: { specs: [{ git: { remoteUri: 'a b' } }] } }, 'initializer.specs[0].git.remoteUri'],
    [{ environmentClass: { environmentClassId: made.id } }, 'environmentClassId']
  ] as const) {
    const { status, body } = await update(message)
    t.equal(status, 400, field)
    t.equal(body.code, 'invalid_argument')
    t.ok(body.message.startsWith(field), body.message)
  }
  const { technicalDescription: _, ...unchanged } = local
  t.strictSame(await get(), unchanged, 'what was refused changed nothing')
})

t.test('its classes come in their order, and are those of the organization alone', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, stranger } = server
  const { id: projectId } = await create(server)
  const { body } = await call('RunnerService/ListRunners', owner.token)
  const add = async (displayName: string) => {
    const message = { runnerId: body.runners[0].runnerId, displayName, description: 'for tests' }
    return (await call('RunnerConfigurationService/CreateEnvironmentClass', owner.token, message)).body.id
  }
  const [small, large] = [await add('Small'), await add('Large')]
  const set = (classes: object[]) =>
    call('ProjectService/UpdateProjectEnvironmentClasses', owner.token, {
      projectId,
      projectEnvironmentClasses: classes
    })
  const list = async (pagination: object = {}) =>
    (await call('ProjectService/ListProjectEnvironmentClasses', owner.token, { projectId, pagination })).body
  const asked = [
    { environmentClassId: large, order: 2 },
    { environmentClassId: small, order: 1 }
  ]
  t.equal((await set(asked)).status, 200)
  t.strictSame((await list()).projectEnvironmentClasses, [...asked].reverse())
  const first = await list({ pageSize: 1 })
  const second = await list({ pageSize: 1, token: first.pagination.nextToken })
  t.strictSame(
    [...first.projectEnvironmentClasses, ...second.projectEnvironmentClasses],
    [...asked].reverse()
  )
  t.strictSame(second.pagination, {})

  const { environmentClasses } = (await call('EnvironmentService/ListEnvironmentClasses', stranger.token))
    .body
  t.equal((await set([{ environmentClassId: environmentClasses[0].id }])).body.code, 'invalid_argument')
  await call('RunnerConfigurationService/UpdateEnvironmentClass', owner.token, {
    environmentClassId: small,
    enabled: false
  })
  t.equal((await set([{ environmentClassId: small }])).body.code, 'invalid_argument', 'a disabled one')
  t.equal((await set([])).body.code, 'invalid_argument', 'none')
  t.equal((await set([{}])).body.code, 'invalid_argument', 'one that names nothing')
  t.equal((await set(Array.from({ length: 31 }, () => asked[0]!))).body.code, 'invalid_argument')
  t.strictSame((await list()).projectEnvironmentClasses, [...asked].reverse())
})

t.test('lists: who sees which, filters, order and count', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger } = server
  const other = { specs: [{ contextUrl: { url: 'https://git.example/Tools' } }] }
  const ids: string[] = []
  for (const name of ['alpha', 'beta', 'gamma']) ids.push((await create(server, { name })).id)
  ids.push((await create(server, { name: 'delta', initializer: other })).id)
  const list = async (token: string, message: object = {}) => {
    const { body } = await call('ProjectService/ListProjects', token, message)
    return (body.projects ?? []).map(({ metadata }: { metadata: { name: string } }) => metadata.name)
  }
  t.strictSame(await list(owner.token), ['alpha', 'beta', 'gamma', 'delta'])
  t.strictSame(await list(owner.token, { sort: { field: 'id', order: 'SORT_ORDER_DESC' } }), [
    'delta',
    'gamma',
    'beta',
    'alpha'
  ])
  t.strictSame(await list(owner.token, { filter: { search: 'TOOLS' } }), ['delta'])
  t.strictSame(await list(owner.token, { filter: { search: 'ET' } }), ['beta'])
  t.strictSame(await list(owner.token, { filter: { projectIds: [ids[2], stranger.organization.uid] } }), [
    'gamma'
  ])
  t.strictSame(
    await list(owner.token, { filter: { specRemoteUris: ['https://git.example/acme/web.git'] } }),
    ['alpha', 'beta', 'gamma']
  )
  t.strictSame(await list(owner.token, { filter: { creatorIds: [member.account.uid] } }), [])
  t.strictSame(await list(member.token), [], 'without a role')
  t.strictSame(await list(stranger.token), [])
  const message = { projectId: ids[1], groupId: await everyone(server), role: 'PROJECT_ROLE_USER' }
  t.equal((await call('ProjectService/CreateProjectPolicy', owner.token, message)).status, 200)
  t.strictSame(await list(member.token), ['beta'])
  t.strictSame(await list(stranger.token, { filter: { projectIds: ids } }), [])
  const counted = await call('ProjectService/ListProjects', owner.token, {
    count: { include: true },
    pagination: { pageSize: 3 }
  })
  t.strictSame(counted.body.count, { value: 4, relation: 'COUNT_RESPONSE_RELATION_EQ' })
  t.equal((await call('ProjectService/ListProjects', owner.token, { sort: { field: 'name' } })).status, 400)
})

t.test('policies: one role a group, for those who administer the project', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member, stranger } = server
  const { id: projectId } = await create(server)
  const groupId = await everyone(server)
  const policy = (method: string, role?: string, token = owner.token, group = groupId) =>
    call(`ProjectService/${method}ProjectPolicy`, token, {
      projectId,
      groupId: group,
      ...(role && { role: `PROJECT_ROLE_${role}` })
    })
  t.equal((await policy('Update', 'USER')).body.code, 'not_found')
  t.equal((await policy('Create', 'EDITOR')).status, 200)
  t.equal((await policy('Create', 'USER')).body.code, 'already_exists')
  t.equal((await policy('Create')).body.code, 'invalid_argument', 'no role')
  t.equal((await policy('Update', 'ADMIN', member.token)).body.code, 'permission_denied', 'an editor')
  t.equal((await policy('Delete', undefined, stranger.token)).body.code, 'not_found')
  const { body } = await call('GroupService/ListGroups', stranger.token)
  t.equal((await policy('Create', 'USER', owner.token, body.groups[0].id)).body.code, 'not_found')
  t.equal((await policy('Update', 'ADMIN')).status, 200)
  t.equal((await policy('Update', 'USER', member.token)).status, 200, 'an admin may take its own role')
  t.equal((await policy('Delete', undefined, member.token)).body.code, 'permission_denied')
  t.equal((await policy('Delete')).status, 200)
  t.equal((await policy('Delete')).body.code, 'not_found', 'twice')
  t.equal((await call('ProjectService/GetProject', member.token, { projectId })).body.code, 'not_found')
})

t.test('a project goes with its secrets, once, and records of both stay', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, db } = server
  const { id: projectId } = await create(server)
  const kept = await create(server, { name: 'kept' })
  for (const scope of [{ projectId }, { projectId: kept.id }]) {
    for (const name of ['ONE', 'TWO']) {
      const secret = { name, value: 'v', environmentVariable: true, scope }
      t.equal((await call('SecretService/CreateSecret', owner.token, secret)).status, 200)
    }
  }
  const remove = () => call('ProjectService/DeleteProject', owner.token, { projectId })
  const answers = await Promise.all([remove(), remove(), remove()])
  t.strictSame(answers.map(({ status }) => status).sort(), [200, 404, 404])
  const left = await db.selectFrom('secrets').select('owner_uid').execute()
  t.strictSame(
    left.map(({ owner_uid }) => owner_uid),
    [kept.id, kept.id]
  )
  const records = await db
    .selectFrom('audit_events')
    .select(['action', 'name'])
    .where('action', 'in', ['secret.remove', 'project.remove'])
    .orderBy('id')
    .execute()
  t.strictSame(records, [
    { action: 'secret.remove', name: 'ONE' },
    { action: 'secret.remove', name: 'TWO' },
    { action: 'project.remove', name: 'web' }
  ])
  await isConsistent(t, db)
})

t.test('in bulk each project is for itself, with the role that it needs', async (t) => {
  const server = await startOnaServer(t)
  const { call, owner, member } = server
  const [one, two] = [await create(server, { name: 'one' }), await create(server, { name: 'two' })]
  const message = { projectId: one.id, groupId: await everyone(server), role: 'PROJECT_ROLE_EDITOR' }
  await call('ProjectService/CreateProjectPolicy', owner.token, message)
  const updated = await call('ProjectService/UpdateProjects', member.token, {
    projects: [
      { projectId: one.id, name: 'first' },
      { projectId: two.id, name: 'second' }
    ]
  })
  t.equal(updated.body.updatedProjects[0].metadata.name, 'first')
  t.match(updated.body.failedProjects, [{ index: 1, projectId: two.id, error: String }])
  const deleted = await call('ProjectService/DeleteProjects', member.token, { projectIds: [one.id, two.id] })
  t.notOk('deletedProjectIds' in deleted.body)
  t.equal(deleted.body.failedProjects.length, 2)
  t.notOk('index' in deleted.body.failedProjects[0], 'zero is left out')
  const create3 = { projects: [{ name: 'three', initializer }] }
  t.equal((await call('ProjectService/CreateProjects', member.token, create3)).body.code, 'permission_denied')
  const many = { projects: Array.from({ length: 101 }, () => ({ name: 'n', initializer })) }
  t.equal((await call('ProjectService/CreateProjects', owner.token, many)).body.code, 'invalid_argument')
  const gone = await call('ProjectService/DeleteProjects', owner.token, { projectIds: [one.id, one.id] })
  t.strictSame(gone.body.deletedProjectIds, [one.id])
  t.match(gone.body.failedProjects, [{ index: 1, projectId: one.id }])
})
