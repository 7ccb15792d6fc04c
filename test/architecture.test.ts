import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'

// Which way imports go is a rule of the house (docs/architecture.md); this keeps it.

/** From the top down: a file imports from its own layer and from those below. */
const LAYERS: readonly (readonly string[])[] = [
  ['cli.ts', 'cli'],
  ['main.ts', 'first-start.ts', 'open.ts', 'hosted-runner.ts'],
  ['app.ts'],
  ['routes'],
  ['projects', 'environments', 'directory', 'secrets', 'auth', 'audit', 'events'],
  // The runner stands beside the store, which it never uses.
  ['store', 'keyring', 'runner'],
  ['apps.ts', 'errors.ts', 'config.ts', 'logger.ts', 'metrics.ts', 'version.ts']
]

/** Within one layer: who may use whom. */
const WITHIN_LAYER: Readonly<Record<string, readonly string[]>> = {
  'main.ts': ['first-start.ts', 'open.ts', 'hosted-runner.ts'],
  'cli.ts': ['cli'],
  projects: ['directory', 'secrets', 'auth'],
  environments: ['projects', 'directory', 'secrets', 'auth'],
  directory: ['secrets', 'auth'],
  secrets: ['auth'],
  events: ['auth'],
  'config.ts': ['errors.ts']
}

const SOURCES = path.resolve(import.meta.dirname, '..', 'src')

interface Import {
  from: string
  to: string
}

function placeOf(file: string): string {
  return file.split('/')[0]!
}

function layerOf(file: string): number {
  return LAYERS.findIndex((places) => places.includes(placeOf(file)))
}

async function readSources(): Promise<Map<string, string>> {
  const files = await readdir(SOURCES, { recursive: true })
  const sources = files.filter((file) => /\.(ts|js)$/.test(file) && !file.endsWith('.d.ts'))
  const read = sources.map(async (file) => [file, await readFile(path.join(SOURCES, file), 'utf8')] as const)
  return new Map(await Promise.all(read))
}

const IMPORT = /(?:^|\n)(?:import|export)\s(?:[^'"]*?\sfrom\s)?['"]([^'"]+)['"]|import\(['"]([^'"]+)['"]\)/g

function importsOf(file: string, source: string): Import[] {
  return [...source.matchAll(IMPORT)].map(([, named, dynamic]) => {
    const target = (named ?? dynamic)!
    const to = target.startsWith('.') ? path.posix.join(path.posix.dirname(file), target) : target
    return { from: file, to: to.replace(/\.js$/, '.ts') }
  })
}

const sources = await readSources()
const imports = [...sources].flatMap(([file, source]) => importsOf(file.replace(/\.js$/, '.ts'), source))
const local = imports.filter(({ to }) => layerOf(to) >= 0)

t.test('every file has a place in the house', async (t) => {
  t.ok(sources.size > 30)
  t.ok(local.length > 100)
  for (const file of sources.keys()) t.ok(layerOf(file.replace(/\.js$/, '.ts')) >= 0, file)
})

t.test('imports go down, never up', async (t) => {
  const wrong = local.filter(({ from, to }) => layerOf(to) < layerOf(from))
  t.same(wrong, [])
})

t.test('within a layer only the neighbours that are allowed', async (t) => {
  const wrong = local.filter(
    ({ from, to }) =>
      layerOf(from) === layerOf(to) &&
      placeOf(from) !== placeOf(to) &&
      !WITHIN_LAYER[placeOf(from)]?.includes(placeOf(to))
  )
  t.same(wrong, [])
})

t.test('the keyring is used through its index alone', async (t) => {
  const wrong = local.filter(
    ({ from, to }) => placeOf(to) === 'keyring' && placeOf(from) !== 'keyring' && to !== 'keyring/index.ts'
  )
  t.same(wrong, [])
})

t.test('below the routes nothing knows Fastify', async (t) => {
  const below = LAYERS.slice(4).flat()
  const wrong = imports.filter(({ from, to }) => below.includes(placeOf(from)) && /^@?fastify/.test(to))
  t.same(wrong, [])
})

t.test('only the store speaks SQL', async (t) => {
  const speaks = imports.filter(({ from, to }) => to === 'pg' && placeOf(from) !== 'store')
  t.same(speaks, [])
})

t.test('the environment is read in one place', async (t) => {
  const readers = [...sources].filter(([, source]) => source.includes('process.env')).map(([file]) => file)
  t.same(
    readers.map((file) => file.replace(/\.js$/, '.ts')),
    ['config.ts']
  )
})

t.test('there is no folder for what nobody could name', async (t) => {
  const folders = new Set([...sources.keys()].flatMap((file) => file.split('/').slice(0, -1)))
  for (const name of ['utils', 'helpers', 'services', 'types', 'common', 'lib'])
    t.notOk(folders.has(name), name)
})
