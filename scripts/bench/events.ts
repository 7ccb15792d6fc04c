import { Agent, type IncomingMessage, request } from 'node:http'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { hashToken, lastEight, makeToken } from '../../src/auth/token.ts'
import { median } from './load.ts'
import { readMemory, startCoffer } from './server.ts'
import { attach, call, superuserUrl } from './world.ts'

/** Each of another person, so that for each it is asked anew who may know. */
export const STREAMS = 1_000
export const STREAMS_MIB_BAR = 150
export const EVENT_MS_BAR = 250

const ROUNDS = 15
const PATIENCE_MS = 30_000
const SETTLE_MS = 2_000

export interface EventFigures {
  /** of the server with all streams open, beside none; undefined where /proc does not tell */
  memoryMib: number | undefined
  /** from sending a change until the last stream has it */
  medianMs: number
  slowestMs: number
}

/** Opens many streams of people who see a project, and changes it. The clients are this process. */
export async function benchEvents(home: string): Promise<EventFigures> {
  const dataDir = path.join(home, 'events')
  const coffer = await startCoffer(dataDir)
  const streams: Stream[] = []
  try {
    const { tokens, projectId } = await furnishWatchers(coffer.url, dataDir)
    const before = await readMemory(coffer.pid)
    for (let start = 0; start < tokens.length; start += 50) {
      const some = tokens.slice(start, start + 50)
      streams.push(...(await Promise.all(some.map((token) => openStream(coffer.url, token)))))
    }
    const times: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const told = Promise.all(streams.map((stream) => stream.next()))
      const start = performance.now()
      await callOna(coffer.url, 'ProjectService/UpdateProject', { projectId, name: `web ${round}` })
      await told
      times.push(performance.now() - start)
    }
    await sleep(SETTLE_MS)
    const after = await readMemory(coffer.pid)
    return {
      memoryMib: before && after && after.rss - before.rss,
      medianMs: median(times),
      slowestMs: Math.max(...times)
    }
  } finally {
    for (const stream of streams) stream.close()
    await coffer.stop()
  }
}

async function callOna<T>(url: string, method: string, message: object): Promise<T> {
  const response = await call(url, 'POST', `/api/gitpod.v1.${method}`, message)
  return (await response.json()) as T
}

/** An organization with a project that a group of so many people uses, each with a token. */
async function furnishWatchers(
  url: string,
  dataDir: string
): Promise<{ tokens: string[]; projectId: string }> {
  const initializer = { specs: [{ git: { remoteUri: 'https://git.example/web.git' } }] }
  const { project } = await callOna<{ project: { id: string } }>(url, 'ProjectService/CreateProject', {
    name: 'web',
    initializer
  })
  const tokens = Array.from({ length: STREAMS }, () => makeToken('classic'))
  const attached = await attach(dataDir)
  const client = new pg.Client({ connectionString: await superuserUrl(dataDir, attached.connection) })
  await client.connect()
  try {
    await client.query(
      `with o as (select organization_id as id from projects where uid = $2),
         p as (insert into accounts (kind, login)
           select 'user', 'watcher-' || n from generate_series(1, $1::integer) n returning id),
         m as (insert into memberships (organization_id, account_id, role)
           select o.id, p.id, 'member' from o, p),
         g as (insert into groups (organization_id, name) select id, 'watchers' from o returning id),
         gm as (insert into group_members (group_id, account_id) select g.id, p.id from g, p),
         pp as (insert into project_policies (project_id, group_id, role)
           select r.id, g.id, 'user' from projects r, g where r.uid = $2)
       insert into tokens (hash, kind, account_id, scopes, last_eight, epoch)
         select t.hash, 'classic', p.id, array['read:org'], t.last_eight, i.epoch
         from instance i, (select id, row_number() over (order by id) as n from p) p
           join unnest($3::bytea[], $4::text[]) with ordinality t (hash, last_eight, n) on t.n = p.n`,
      [STREAMS, project.id, tokens.map(hashToken), tokens.map(lastEight)]
    )
    await client.query('vacuum analyze')
  } finally {
    await client.end()
    await attached.close()
  }
  // What the server needs for requests at all is no cost of streams.
  for (let requests = 0; requests < STREAMS; requests++) {
    await callOna(url, 'ProjectService/GetProject', { projectId: project.id })
  }
  return { tokens, projectId: project.id }
}

interface Stream {
  /** the next event */
  next(): Promise<void>
  close(): void
}

const agent = new Agent({ keepAlive: false })

async function openStream(url: string, token: string): Promise<Stream> {
  const opening = request(`${url}/api/gitpod.v1.EventService/WatchEvents`, {
    agent,
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/jsonl' }
  })
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    opening.once('response', resolve)
    opening.once('error', reject)
    opening.end('{}')
  })
  if (response.statusCode !== 200) throw new Error(`WatchEvents answered ${response.statusCode}`)
  opening.on('error', () => {})
  response.on('error', () => {})
  response.setEncoding('utf8')
  let told = 0
  let heard = 0
  let tell: (() => void) | undefined
  response.on('data', (text: string) => {
    // A line is small enough to come in one piece.
    told += text.split('"operation"').length - 1
    if (told > heard) tell?.()
  })
  return {
    next: () =>
      new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('a stream was not told')), PATIENCE_MS)
        tell = () => {
          clearTimeout(timer)
          tell = undefined
          heard += 1
          resolve()
        }
        if (told > heard) tell()
      }),
    close: () => opening.destroy()
  }
}
