import { type Kysely, sql } from 'kysely'
import type { Response } from 'light-my-request'
import type { Test } from 'tap'
import type { Database } from '../../../src/store/tables.ts'
import type { TestRequest, TestServer } from '../../helper.ts'

const TABLES = [
  'secrets',
  'secret_repositories',
  'audit_events',
  'accounts',
  'memberships',
  'repositories',
  'repository_redirects',
  'collaborators',
  'deployment_environments',
  'token_repositories',
  'key_generations',
  'projects',
  'project_environment_classes',
  'project_policies',
  'groups',
  'group_members',
  'service_accounts',
  'environment_classes'
]

/** Number and digest of the rows of every table that a request may change; that it was refused is recorded besides. */
export async function stored(db: Kysely<Database>): Promise<Record<string, string>> {
  const digests = TABLES.map(
    (table) =>
      sql`(select count(*) || ' rows, ' || coalesce(md5(string_agg(r::text, chr(10) order by r::text)), '')
      from ${sql.table(table)} r where to_jsonb(r)->>'outcome' is distinct from 'denied') as ${sql.ref(table)}`
  )
  const tokens = sql`(select count(*) || ' rows, ' || coalesce(md5(string_agg(hash::text, ',' order by id)), '')
    from tokens) as tokens`
  const { rows } = await sql<Record<string, string>>`select ${sql.join([...digests, tokens])}`.execute(db)
  return rows[0]!
}

export interface Attempt extends TestRequest {
  method: 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE'
  url: string
  /** what must not come back, besides the strings of the body */
  secret?: readonly string[]
}

export interface Refusal {
  status: number
  message: string | RegExp
  /** [field, code, message] of each */
  errors?: [string, string, string | RegExp][]
}

/** Words that messages have, too. */
const ORDINARY = new Set(['selected', 'private', 'member', 'admin'])

/** The texts of a body that a test would notice when they came back. */
export function texts(value: unknown): string[] {
  if (typeof value === 'string') {
    return value.length >= 6 && !ORDINARY.has(value) ? [value.slice(0, 200)] : []
  }
  if (Array.isArray(value)) return value.slice(0, 100).flatMap(texts)
  if (typeof value === 'object' && value !== null) return Object.values(value).flatMap(texts)
  return []
}

/** Sends what must be refused: GitHub's body in full, nothing of the input in it, no row moved. */
export async function refuses(
  t: Test,
  { db, request }: Pick<TestServer, 'db' | 'request'>,
  { method, url, secret = [], ...rest }: Attempt,
  expected: Refusal,
  name: string
): Promise<Response> {
  const before = await stored(db)
  const response = await request(method, url, rest)
  isRefusal(t, response, expected, name)
  const answer = JSON.stringify(response.headers) + response.body
  for (const text of [...secret, ...texts(rest.body)]) {
    t.notOk(answer.includes(text), `${name}: the answer does not hold what was sent`)
  }
  t.strictSame(await stored(db), before, `${name}: nothing changed`)
  return response
}

/** GitHub's body of an error, and nothing besides. */
export function isRefusal(
  t: Test,
  response: Pick<Response, 'statusCode' | 'headers' | 'body'>,
  { status, message, errors }: Refusal,
  name: string
): void {
  t.equal(response.statusCode, status, `${name}: ${status}`)
  t.equal(response.headers['content-type'], 'application/json; charset=utf-8', name)
  const body = JSON.parse(response.body)
  const members = ['message', ...(errors ? ['errors'] : []), 'documentation_url', 'status']
  t.strictSame(Object.keys(body).sort(), members.sort(), `${name}: members of the body`)
  if (typeof message === 'string') t.equal(body.message, message, `${name}: message`)
  else t.match(body.message, message, `${name}: message`)
  t.equal(body.status, String(status), name)
  t.match(body.documentation_url, /^https:\/\/docs\.github\.com\//, name)
  if (!errors) return
  t.equal(body.errors.length, errors.length, `${name}: number of errors`)
  for (const [index, [field, code, text]] of errors.entries()) {
    t.match(body.errors[index], { resource: 'Secret', field, code, message: text }, `${name}: error ${index}`)
  }
}
