import type { Kysely } from 'kysely'
import { issueEnvironmentToken } from '../../src/directory/environment-tokens.ts'
import { openDatabase } from '../../src/store/database.ts'
import type { Database } from '../../src/store/tables.ts'
import type { Request } from './load.ts'
import { attach, call, inParallel, newSecret, VALUE_BYTES } from './world.ts'

// What Ona's API is measured on: a project with many secrets, projects to make new ones in, and an environment that
// receives one.

const LISTED_SECRETS = 10_000
const EMPTY_PROJECTS = 1000
const PAGE_SIZE = 25
/** The last of so many secrets, in pages of this size. */
export const DEEP_PAGE = LISTED_SECRETS / PAGE_SIZE

/** Longer than a run. */
const TOKEN_SECONDS = 24 * 3600

const MANY = 'many'
const empty = (index: number) => `empty-${index % EMPTY_PROJECTS}`
const VALUE = 'a'.repeat(VALUE_BYTES)
const SYSTEM = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null } as const

export const SECRET_SERVICE = '/api/gitpod.v1.SecretService'

export interface OnaWorld {
  manyUid: string
  emptyUids: string[]
  /** what the environment receives */
  secretUid: string
  /** an environment's */
  token: string
}

async function ask<T>(url: string, method: string, message: object): Promise<T> {
  const response = await call(url, 'POST', `/api/gitpod.v1.${method}`, message)
  return (await response.json()) as T
}

/** Makes the projects and secrets through the API. */
export async function furnishOna(url: string): Promise<void> {
  const makeProject = async (name: string) => {
    const { project } = await ask<{ project: { id: string } }>(url, 'ProjectService/CreateProject', {
      name,
      initializer: { specs: [{ git: { remoteUri: `https://git.example/${name}.git` } }] },
      environmentClass: { localRunner: true }
    })
    return project.id
  }
  const many = await makeProject(MANY)
  await inParallel(EMPTY_PROJECTS, (index) => makeProject(empty(index)))
  await inParallel(LISTED_SECRETS, async (index) => {
    await call(url, 'POST', `${SECRET_SERVICE}/CreateSecret`, creation(many, newSecret(index)))
  })
}

/** Finds what was made, and makes an environment of its own that receives a secret. */
export async function enterOna(db: Kysely<Database>): Promise<OnaWorld> {
  const projects = await db
    .selectFrom('projects as p')
    .innerJoin('accounts as o', 'o.id', 'p.organization_id')
    .select(['p.id', 'p.uid', 'p.name', 'p.organization_id', 'p.creator_uid', 'o.uid as organization_uid'])
    .execute()
  const many = projects.find(({ name }) => name === MANY)!
  const received = await db
    .selectFrom('secrets')
    .select(['id', 'uid'])
    .where('owner_uid', '=', many.uid)
    .where('name', '=', newSecret(0))
    .executeTakeFirstOrThrow()
  const environment = await db
    .insertInto('environments')
    .values({
      organization_id: many.organization_id,
      project_id: many.id,
      creator_kind: 'user',
      creator_uid: many.creator_uid!
    })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  await db
    .insertInto('environment_secrets')
    .values({ environment_id: environment.id, secret_id: received.id })
    .execute()
  const bearer = {
    environment_id: environment.id,
    environment_uid: environment.uid,
    organization_id: many.organization_id,
    organization_uid: many.organization_uid
  }
  const { token } = await issueEnvironmentToken(db, SYSTEM, bearer, {
    purpose: 'deliver',
    leaseEpoch: 0,
    lifetimeSeconds: TOKEN_SECONDS
  })
  const emptyUids = projects.flatMap(({ name, uid }) => (name === MANY ? [] : uid))
  return { manyUid: many.uid, emptyUids, secretUid: received.uid, token }
}

/** The same for a server that runs on its embedded database. */
export async function enterOnaOf(dataDir: string): Promise<OnaWorld> {
  const attached = await attach(dataDir)
  const db = openDatabase({ connection: attached.connection, poolSize: 1, prepare: false })
  try {
    return await enterOna(db)
  } finally {
    await db.destroy()
    await attached.close()
  }
}

function creation(projectId: string, name: string) {
  return { name, value: VALUE, environmentVariable: true, scope: { projectId } }
}

function post(method: string, message: object, token?: string): Request {
  return {
    method: 'POST',
    path: `${SECRET_SERVICE}/${method}`,
    body: JSON.stringify(message),
    ...(token && { token })
  }
}

export function createSecret({ emptyUids }: OnaWorld, name: string, index: number): Request {
  return post('CreateSecret', creation(emptyUids[index % emptyUids.length]!, name))
}

export function listSecrets({ manyUid }: OnaWorld, pageSize: number, pageToken?: string): Request {
  const pagination = { pageSize, ...(pageToken && { token: pageToken }) }
  return post('ListSecrets', { filter: { scope: { projectId: manyUid } }, pagination })
}

export function getSecretValue({ secretUid, token }: OnaWorld): Request {
  return post('GetSecretValue', { secretId: secretUid }, token)
}

/** The first page of the many secrets and the last one, which is reached through all before. */
export async function findPages(url: string, world: OnaWorld): Promise<{ first: Request; deep: Request }> {
  const first = listSecrets(world, PAGE_SIZE)
  let deep = first
  for (let page = 1; page < DEEP_PAGE; page++) {
    const response = await call(url, 'POST', deep.path, JSON.parse(deep.body!))
    const { pagination } = (await response.json()) as { pagination: { nextToken: string } }
    deep = listSecrets(world, PAGE_SIZE, pagination.nextToken)
  }
  return { first, deep }
}
