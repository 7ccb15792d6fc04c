import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { AUDIT_PAGE, AUDIT_SEARCH, addAuditRecords, FEW_RECORDS, MANY_RECORDS } from './audit.ts'
import { benchBoxes } from './boxes.ts'
import { addCollections, MANY_COLLECTIONS } from './collections.ts'
import {
  benchEnvironments,
  CHANGE_MS_BAR,
  CREATE_BAR,
  ENVIRONMENTS,
  type EnvironmentFigures,
  MANY_BAR
} from './environments.ts'
import { benchEvents, EVENT_MS_BAR, type EventFigures, STREAMS, STREAMS_MIB_BAR } from './events.ts'
import { drive, type Measured, median, type Request } from './load.ts'
import {
  createSecret,
  DEEP_PAGE,
  enterOnaOf,
  findPages,
  furnishOna,
  getSecretValue,
  listSecrets,
  type OnaWorld
} from './ona.ts'
import { readMemory, type Subject, startCoffer, startFloor } from './server.ts'
import {
  EMPTY_REPOSITORIES,
  emptyRepository,
  furnish,
  furnishOrganization,
  newSecret,
  OWNER,
  REPOSITORIES,
  repository,
  SECRETS,
  type SelectedSecret,
  secret,
  selectionPath
} from './world.ts'

// npm run bench: throughput and latency of the real server beside a floor of bare statements, in one run.

const HELP = `npm run bench -- [--seconds N] [--rounds N] [--connections 1,10,50] [--only NAME] [--json FILE]

  --seconds N       how long each measurement lasts (default 2)
  --rounds N        how often server and floor are measured in turn; medians count (default 3)
  --connections L   how many connections, separated by commas (default 1,10,50)
  --only NAME       operations whose name contains this; events, environments: those and nothing else
  --json FILE       where the figures go, too
`

/** The least ratio to the floor that each operation is to reach. */
const BARS: Readonly<Record<string, number>> = {
  'public key': 0.7,
  'get one': 0.7,
  'list 100': 0.7,
  'put, update': 0.55,
  'put, create': 0.55,
  'put, one set': 0.55,
  'select 1000': 0.55,
  CreateSecret: 0.6,
  ListSecrets: 0.7,
  GetSecretValue: 0.6
}
/** What is measured at another number of connections than the others. */
const CONNECTIONS: Readonly<Record<string, readonly number[]>> = {
  'put, one set': [200],
  'select 1000': [1, 10]
}
const BOXES_BAR = 0.8
/** The most that a page may cost of what it costs at a hundredth of the size. */
const PAGE_BAR = 1.2
const RSS_BAR_MIB = 200

interface Row {
  operation: string
  connections: number
  server: Measured
  floor: Measured
  ratio: number
}

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '3' },
    connections: { type: 'string', default: '1,10,50' },
    only: { type: 'string', default: '' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false }
  }
})

/** How many new secrets go into one collection before the next one's turn, for `put, one set`. */
const SET = 200

type Operations = Readonly<Record<string, () => Request>>

function requests(bodies: ReadonlyMap<string, string>, repositoryIds: readonly number[]): Operations {
  const path = (repo: string) => `/repos/${OWNER}/${repo}/codespaces/secrets`
  const selection = JSON.stringify({ selected_repository_ids: repositoryIds })
  let counter = 0
  const get = (target: string) => (): Request => ({ method: 'GET', path: target })
  return {
    'public key': get(`${path(repository(0))}/public-key`),
    'get one': get(`${path(repository(0))}/${secret(0)}`),
    'list 100': get(`${path(repository(0))}?per_page=100`),
    'put, update': () => {
      counter += 1
      const repo = repository(counter)
      const name = secret(Math.floor(counter / REPOSITORIES))
      return { method: 'PUT', path: `${path(repo)}/${name}`, body: bodies.get(repo)! }
    },
    'put, create': () => {
      counter += 1
      const repo = emptyRepository(counter)
      return { method: 'PUT', path: `${path(repo)}/${newSecret(counter)}`, body: bodies.get(repo)! }
    },
    'put, one set': () => {
      counter += 1
      const repo = emptyRepository(Math.floor(counter / SET))
      return { method: 'PUT', path: `${path(repo)}/${newSecret(counter)}`, body: bodies.get(repo)! }
    },
    'select 1000': () => ({ method: 'PUT', path: selectionPath('MANY_SELECTED'), body: selection })
  }
}

function onaRequests(world: OnaWorld): Operations {
  let counter = 0
  const first = listSecrets(world, 100)
  const value = getSecretValue(world)
  return {
    CreateSecret: () => createSecret(world, newSecret(counter), counter++),
    ListSecrets: () => first,
    GetSecretValue: () => value
  }
}

function middle(runs: readonly Measured[]): Measured {
  return {
    throughput: median(runs.map(({ throughput }) => throughput)),
    p50: median(runs.map(({ p50 }) => p50)),
    p99: median(runs.map(({ p99 }) => p99))
  }
}

/** Enough requests for V8 to compile what serves them: with one connection it would take long. */
const WARM_UP = { connections: 10, seconds: 2 }

/** Measures two subjects in turn, so that a machine whose speed drifts does not decide. */
async function compare(
  a: Subject,
  b: Subject,
  connections: number,
  next: () => Request,
  nextOfB: () => Request = next
): Promise<{ a: Measured; b: Measured; ratio: number }> {
  const runs: { a: Measured; b: Measured }[] = []
  const seconds = Number(options.seconds)
  await drive(a.url, Math.max(connections, WARM_UP.connections), WARM_UP.seconds, next)
  await drive(b.url, Math.max(connections, WARM_UP.connections), WARM_UP.seconds, nextOfB)
  for (let round = 0; round < Number(options.rounds); round++) {
    runs.push({
      a: await drive(a.url, connections, seconds, next),
      b: await drive(b.url, connections, seconds, nextOfB)
    })
  }
  return {
    a: middle(runs.map((run) => run.a)),
    b: middle(runs.map((run) => run.b)),
    ratio: median(runs.map((run) => run.a.throughput / run.b.throughput))
  }
}

function cell(text: string | number, width: number): string {
  return String(text).padStart(width)
}

function verdict(met: boolean): string {
  return met ? 'met' : 'MISSED'
}

function printRow({ operation, connections, server, floor, ratio }: Row): void {
  const bar = BARS[operation]!
  console.log(
    [
      operation.padEnd(14),
      cell(connections, 5),
      cell(server.throughput.toFixed(0), 9),
      cell(server.p50, 6),
      cell(server.p99, 6),
      cell(floor.throughput.toFixed(0), 9),
      cell(floor.p50, 6),
      cell(floor.p99, 6),
      cell(ratio.toFixed(2), 6),
      ` ≥ ${bar} ${verdict(ratio >= bar)}`
    ].join(' ')
  )
}

async function benchOperations(coffer: Subject, floor: Subject, operations: Operations): Promise<Row[]> {
  console.log('')
  console.log('                        Coffer                   floor')
  console.log('operation      conns     req/s p50 ms p99 ms     req/s p50 ms p99 ms  ratio')
  const rows: Row[] = []
  for (const [operation, next] of Object.entries(operations)) {
    if (!operation.includes(options.only)) continue
    for (const connections of CONNECTIONS[operation] ?? options.connections.split(',').map(Number)) {
      const { a, b, ratio } = await compare(coffer, floor, connections, next)
      const row = { operation, connections, server: a, floor: b, ratio }
      rows.push(row)
      printRow(row)
    }
  }
  return rows
}

/** The same list out of few and out of many collections: two servers, two databases, measured in turn. */
async function benchCollections(home: string): Promise<{ few: Measured; many: Measured; cost: number }> {
  const folders = { few: path.join(home, 'few'), many: path.join(home, 'many') }
  const few = await startCoffer(folders.few)
  const many = await startCoffer(folders.many)
  try {
    const sizes = { repositories: 10, secrets: SECRETS, emptyRepositories: 0 }
    await furnish(few.url, sizes)
    await furnish(many.url, sizes)
    await addCollections(folders.few, 0)
    await addCollections(folders.many, MANY_COLLECTIONS)
    const next = requests(new Map(), [])['list 100']!
    const { a, b, ratio } = await compare(few, many, 10, next)
    return { few: a, many: b, cost: ratio }
  } finally {
    await few.stop()
    await many.stop()
  }
}

interface AuditFigures {
  /** cost of a page of a long log, beside one of a hundredth of it */
  page: number
  search: number
  /** records a second */
  sealing: number
}

/** Pages out of a long audit log and out of a short one: two servers, two databases, measured in turn. */
async function benchAudit(home: string): Promise<AuditFigures> {
  const folders = { few: path.join(home, 'short-log'), many: path.join(home, 'long-log') }
  const few = await startCoffer(folders.few)
  const many = await startCoffer(folders.many)
  try {
    console.log(`sealing ${MANY_RECORDS} audit records …`)
    await addAuditRecords(few.url, folders.few, FEW_RECORDS)
    const sealing = await addAuditRecords(many.url, folders.many, MANY_RECORDS)
    const get = (target: string) => (): Request => ({ method: 'GET', path: target })
    const { ratio: page } = await compare(few, many, 10, get(AUDIT_PAGE))
    const { ratio: search } = await compare(few, many, 10, get(AUDIT_SEARCH))
    return { page, search, sealing }
  } finally {
    await few.stop()
    await many.stop()
  }
}

/** A page of an organization secret's repositories, out of many and out of few. */
async function benchSelection(coffer: Subject): Promise<number> {
  const page = (name: SelectedSecret) => (): Request => ({
    method: 'GET',
    path: `${selectionPath(name)}?per_page=10`
  })
  const { ratio } = await compare(coffer, coffer, 10, page('FEW_SELECTED'), page('MANY_SELECTED'))
  return ratio
}

/** The last page of many secrets, and the first one: what stands behind a page costs nothing. */
async function benchPages(coffer: Subject, world: OnaWorld): Promise<number> {
  const { first, deep } = await findPages(coffer.url, world)
  const { ratio } = await compare(
    coffer,
    coffer,
    10,
    () => first,
    () => deep
  )
  return ratio
}

interface ServerFigures {
  rows: Row[]
  /** cost of a page of 1,000 selected repositories, beside one of 10 */
  selection: number
  /** cost of the last page of a list, beside its first */
  pages: number
  memory: Awaited<ReturnType<typeof readMemory>>
}

async function benchServer(dataDir: string): Promise<ServerFigures> {
  const coffer = await startCoffer(dataDir)
  try {
    console.log(`furnishing ${REPOSITORIES * SECRETS} secrets in ${REPOSITORIES} repositories …`)
    const sizes = { repositories: REPOSITORIES, secrets: SECRETS, emptyRepositories: EMPTY_REPOSITORIES }
    const bodies = await furnish(coffer.url, sizes)
    const repositoryIds = await furnishOrganization(coffer.url)
    await furnishOna(coffer.url)
    await addCollections(dataDir, 0)
    const ona = await enterOnaOf(dataDir)
    const floor = await startFloor(dataDir)
    try {
      const operations = { ...requests(bodies, repositoryIds), ...onaRequests(ona) }
      const rows = await benchOperations(coffer, floor, operations)
      const selection = await benchSelection(coffer)
      const pages = await benchPages(coffer, ona)
      return { rows, selection, pages, memory: await readMemory(coffer.pid) }
    } finally {
      await floor.stop()
    }
  } finally {
    await coffer.stop()
  }
}

function printRatios(
  { memory, selection, pages }: ServerFigures,
  boxes: Awaited<ReturnType<typeof benchBoxes>>,
  collections: Awaited<ReturnType<typeof benchCollections>> | undefined,
  audit: AuditFigures | undefined
): void {
  console.log('')
  console.log(
    `opening boxes of 1 KB: keyring ${boxes.keyring.toFixed(0)}/s, bare sodium-native ${boxes.sodium.toFixed(0)}/s, ` +
      `ratio ${boxes.ratio.toFixed(2)} ≥ ${BOXES_BAR} ${verdict(boxes.ratio >= BOXES_BAR)}`
  )
  console.log(
    `page of 1,000 selected repositories, beside one of 10: cost × ${selection.toFixed(2)} ≤ ${PAGE_BAR} ` +
      verdict(selection <= PAGE_BAR)
  )
  console.log(
    `page ${DEEP_PAGE} of a list of secrets, beside page 1: cost × ${pages.toFixed(2)} ≤ ${PAGE_BAR} ` +
      verdict(pages <= PAGE_BAR)
  )
  if (collections) {
    const { cost } = collections
    console.log(
      `list 100 among ${MANY_COLLECTIONS} collections: ${collections.many.throughput.toFixed(0)}/s, among 10: ` +
        `${collections.few.throughput.toFixed(0)}/s, cost × ${cost.toFixed(2)} ≤ ${PAGE_BAR} ` +
        verdict(cost <= PAGE_BAR)
    )
  }
  if (audit) {
    const line = (what: string, cost: number) =>
      console.log(
        `${what} of an audit log of ${MANY_RECORDS} records, beside one of ${FEW_RECORDS}: cost × ${cost.toFixed(2)} ` +
          `≤ ${PAGE_BAR} ${verdict(cost <= PAGE_BAR)}`
      )
    line('page', audit.page)
    line('search', audit.search)
    console.log(`sealing: ${audit.sealing.toFixed(0)} records a second, in one stream`)
  }
  if (memory) {
    console.log(
      `memory of the server after the run: ${memory.rss.toFixed(0)} MiB, at most ${memory.peak.toFixed(0)} MiB; ` +
        `< ${RSS_BAR_MIB} ${verdict(memory.rss < RSS_BAR_MIB)}`
    )
  }
}

function printEvents({ memoryMib, medianMs, slowestMs }: EventFigures): void {
  if (memoryMib !== undefined) {
    console.log(
      `memory of ${STREAMS} streams of events: ${memoryMib.toFixed(0)} MiB < ${STREAMS_MIB_BAR} ` +
        verdict(memoryMib < STREAMS_MIB_BAR)
    )
  }
  console.log(
    `a change until the last of ${STREAMS} streams has it: median ${medianMs.toFixed(0)} ms, slowest ` +
      `${slowestMs.toFixed(0)} ms ≤ ${EVENT_MS_BAR} ${verdict(slowestMs <= EVENT_MS_BAR)}`
  )
}

function printEnvironments(figures: EnvironmentFigures): void {
  const { fewMs, manyMs, floorMs, atOnceMs, changeP50Ms, changeP99Ms } = figures
  console.log(
    `an environment with 10 secrets runs after ${fewMs.toFixed(0)} ms, git clone and a process after ` +
      `${floorMs.toFixed(0)} ms: × ${(fewMs / floorMs).toFixed(2)} ≤ ${CREATE_BAR} ${verdict(fewMs <= floorMs * CREATE_BAR)}`
  )
  console.log(
    `one with 300 secrets after ${manyMs.toFixed(0)} ms: × ${(manyMs / fewMs).toFixed(2)} ≤ ${MANY_BAR} ` +
      verdict(manyMs <= fewMs * MANY_BAR)
  )
  console.log(`${ENVIRONMENTS} at once all run after ${atOnceMs.toFixed(0)} ms`)
  console.log(
    `a changed secret is in use in ${ENVIRONMENTS} environments: p50 ${changeP50Ms.toFixed(0)} ms, p99 ` +
      `${changeP99Ms.toFixed(0)} ms ≤ ${CHANGE_MS_BAR} ${verdict(changeP99Ms <= CHANGE_MS_BAR)}`
  )
}

async function main(): Promise<void> {
  if (options.help) {
    console.log(HELP)
    return
  }
  const home = await mkdtemp(path.join(os.tmpdir(), 'coffer-bench-'))
  // As root, who runs environments and the database has to pass.
  await chmod(home, 0o711)
  try {
    if (options.only === 'events') {
      printEvents(await benchEvents(home))
      return
    }
    if (options.only === 'environments') {
      printEnvironments(await benchEnvironments(home))
      return
    }
    const operations = await benchServer(path.join(home, 'data'))
    const boxes = await benchBoxes()
    const collections = options.only === '' ? await benchCollections(home) : undefined
    const audit = 'audit'.includes(options.only) ? await benchAudit(home) : undefined
    printRatios(operations, boxes, collections, audit)
    const events = options.only === '' ? await benchEvents(home) : undefined
    if (events) printEvents(events)
    const environments = options.only === '' ? await benchEnvironments(home) : undefined
    if (environments) printEnvironments(environments)
    const figures = {
      node: process.version,
      cpus: os.cpus().length,
      ...operations,
      boxes,
      collections,
      audit,
      events,
      environments
    }
    if (options.json) await writeFile(options.json, `${JSON.stringify(figures, null, 2)}\n`)
    else console.log(`\n${JSON.stringify(figures)}`)
  } finally {
    await rm(home, { recursive: true, force: true })
  }
}

await main()
