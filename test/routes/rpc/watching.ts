import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { createInterface } from 'node:readline'
import type { Kysely } from 'kysely'
import type { Test } from 'tap'
import { FULL_SCOPES } from '../../../src/auth/access.ts'
import { hashToken, lastEight, makeToken } from '../../../src/auth/token.ts'
import { insertAuditEvents } from '../../../src/store/audit.ts'
import type { Database, ProjectRole } from '../../../src/store/tables.ts'
import { insertToken } from '../../../src/store/tokens.ts'
import { SYSTEM } from '../../helper.ts'
import type { OnaServer } from './helper.ts'
import { tokenOfEnvironment } from './machines.ts'

/** An answer of WatchEvents, line by line, as it stands on the wire. */
export interface Watched {
  status: number
  headers: IncomingHttpHeaders
  /** the next event; undefined when the stream has ended */
  next(): Promise<Told | undefined>
  /** whether the next line that tells of no event is `{}` */
  isKeptAlive(): Promise<boolean>
  /** true: the server ended it as HTTP has it; false: the connection broke */
  ended: Promise<boolean>
  leave(): void
}

export interface Told {
  operation: string
  resourceType: string
  resourceId: string
}

export interface WatchOptions {
  message?: object | string
  headers?: Record<string, string>
  /** instead of a URL */
  socketPath?: string
}

/** Opens a stream and returns when it has headers. */
export async function watch(
  t: Test,
  url: string,
  token: string,
  { message = {}, headers = {}, socketPath }: WatchOptions = {}
): Promise<Watched> {
  const body = typeof message === 'string' ? message : JSON.stringify(message)
  const target = `${url}/api/gitpod.v1.EventService/WatchEvents`
  const request = httpRequest(target, {
    method: 'POST',
    ...(socketPath && { socketPath }),
    headers: {
      authorization: `Bearer ${token}`,
      accept: 'application/jsonl',
      'content-type': 'application/jsonl',
      ...headers
    }
  })
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve)
    request.once('error', reject)
  })
  request.end(body)
  const response = await answered
  const ended = new Promise<boolean>((resolve) => {
    response.once('close', () => resolve(response.complete))
    response.on('error', () => {})
    request.on('error', () => {})
  })
  t.teardown(() => request.destroy())
  const lines = createInterface({ input: response })[Symbol.asyncIterator]()
  const nextLine = async () => {
    const { value, done } = await lines.next()
    return done ? undefined : (JSON.parse(value) as Partial<Told>)
  }
  return {
    status: response.statusCode!,
    headers: response.headers,
    async next() {
      for (;;) {
        const line = await nextLine()
        if (line === undefined || line.operation) return line as Told | undefined
      }
    },
    async isKeptAlive() {
      for (;;) {
        const line = await nextLine()
        if (!line?.operation) return JSON.stringify(line) === '{}'
      }
    },
    ended,
    leave: () => request.destroy()
  }
}

/** Records something in the log of an organization, as whatever changes it does. */
export async function record(
  db: Kysely<Database>,
  streamUid: string,
  action: string,
  subjectUid: string,
  collection?: string
): Promise<void> {
  await insertAuditEvents(db, [
    { streamUid, principal: SYSTEM, action, subjectUid, ...(collection && { collection }) }
  ])
}

/** What is told to everybody in the organization: who hears it next has heard nothing before. */
export async function mark(server: OnaServer, organizationUid = server.acme.uid): Promise<Told> {
  const resourceId = crypto.randomUUID()
  await record(server.db, organizationUid, 'runner.update', resourceId)
  return { operation: 'RESOURCE_OPERATION_UPDATE', resourceType: 'RESOURCE_TYPE_RUNNER', resourceId }
}

export interface Machine {
  id: number
  uid: string
  token: string
}

/** A service account of acme with all scopes. */
export async function makeServiceAccount({ db, acme, owner }: OnaServer, name: string): Promise<Machine> {
  const { id, uid } = await db
    .insertInto('service_accounts')
    .values({ organization_id: acme.id, name, creator_kind: 'user', creator_uid: owner.account.uid })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  return { id, uid, token: await tokenOf(db, acme.id, id) }
}

/** An environment of acme, with a token that has no scopes. */
export async function makeEnvironment(
  { db, acme }: OnaServer,
  creator: { uid: string },
  { creatorKind = 'user', projectUid }: { creatorKind?: string; projectUid?: string } = {}
): Promise<Machine> {
  const project = await db
    .selectFrom('projects')
    .select('id')
    .where('uid', '=', projectUid ?? null)
    .executeTakeFirst()
  const { id, uid } = await db
    .insertInto('environments')
    .values({
      organization_id: acme.id,
      project_id: project?.id ?? null,
      creator_kind: creatorKind,
      creator_uid: creator.uid
    })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  return { id, uid, token: await tokenOfEnvironment({ db }, acme.id, id) }
}

async function tokenOf(
  db: Kysely<Database>,
  organizationId: number,
  serviceAccountId: number
): Promise<string> {
  const token = makeToken('service-account')
  await db.transaction().execute((tx) =>
    insertToken(tx, {
      hash: hashToken(token),
      kind: 'service-account',
      accountId: organizationId,
      organizationId,
      serviceAccountId,
      scopes: FULL_SCOPES,
      lastEight: lastEight(token),
      lifetimeSeconds: 3600
    })
  )
  return token
}

/** A group of acme with these people in it. */
export async function makeGroup(
  { db, acme }: OnaServer,
  name: string,
  members: { accountIds?: readonly number[]; serviceAccountIds?: readonly number[] }
): Promise<{ id: number; uid: string }> {
  const group = await db
    .insertInto('groups')
    .values({ organization_id: acme.id, name })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  for (const account_id of members.accountIds ?? []) {
    await db.insertInto('group_members').values({ group_id: group.id, account_id }).execute()
  }
  for (const service_account_id of members.serviceAccountIds ?? []) {
    await db.insertInto('group_members').values({ group_id: group.id, service_account_id }).execute()
  }
  return group
}

/** A project of acme, made by its owner, with a role for a group. */
export async function makeProject(
  server: OnaServer,
  name: string,
  policy?: { group: { uid: string }; role: ProjectRole }
): Promise<string> {
  const { owner } = server
  const initializer = { specs: [{ git: { remoteUri: 'https://git.example/web.git' } }] }
  const { body } = await server.call('ProjectService/CreateProject', owner.token, { name, initializer })
  const projectId: string = body.project.id
  if (policy) {
    const role = `PROJECT_ROLE_${policy.role.toUpperCase()}`
    const message = { projectId, groupId: policy.group.uid, role }
    await server.call('ProjectService/CreateProjectPolicy', owner.token, message)
  }
  return projectId
}
