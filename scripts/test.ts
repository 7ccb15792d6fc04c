import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { type Kysely, sql } from 'kysely'
import { openDatabase } from '../src/store/database.ts'
import { serveEmbedded } from '../src/store/embedded/embedded-postgres.ts'
import { migrate } from '../src/store/migrations.ts'
import type { Database } from '../src/store/tables.ts'
import { runTestFiles } from './run-tests.ts'

// npm test [-- FILE …]: types, lint, and all tests (or those named) against a real PostgreSQL.

const TEMPLATE = `coffer_template_${process.pid}`

function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit', env })
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(signal ? 1 : (code ?? 1)))
  })
}

function bin(name: string): string {
  return path.join('node_modules', '.bin', name)
}

/** A server for the tests: the one that is named, or the embedded one with a role that may make databases. */
async function openServer(): Promise<{ url: string; close: () => Promise<unknown> }> {
  const named = process.env.TEST_DATABASE_URL
  if (named) return { url: named, close: async () => {} }
  const dataDir = await mkdtemp(path.join(os.tmpdir(), 'coffer-test-'))
  const embedded = await serveEmbedded({ dataDir, log: () => {} })
  const { superuser } = JSON.parse(await readFile(path.join(dataDir, 'keys', 'postgres.json'), 'utf8'))
  const { host, port } = embedded.connection
  return {
    url: `postgres://postgres:${superuser}@localhost:${port}/postgres?host=${encodeURIComponent(host)}`,
    async close() {
      await embedded.close()
      await rm(dataDir, { recursive: true, force: true })
    }
  }
}

async function inDatabase<T>(
  url: string,
  name: string,
  work: (db: Kysely<Database>) => Promise<T>
): Promise<T> {
  const target = new URL(url)
  target.pathname = `/${name}`
  const db = openDatabase({ connection: target.href, poolSize: 1, prepare: false })
  try {
    return await work(db)
  } finally {
    await db.destroy()
  }
}

async function runTests(files: readonly string[], coverage: boolean): Promise<number> {
  const server = await openServer()
  const home = new URL(server.url).pathname.slice(1)
  try {
    await inDatabase(server.url, home, (db) => sql`create database ${sql.id(TEMPLATE)}`.execute(db))
    await inDatabase(server.url, TEMPLATE, migrate)
    const env = { ...process.env, TEST_DATABASE_URL: server.url, TEST_TEMPLATE: TEMPLATE }
    if (!coverage) return await runTestFiles(files, path.join('build', 'test.tap'), env)
    return await run(bin('tap'), ['--jobs=2', '--timeout=240', '--allow-incomplete-coverage', ...files], env)
  } finally {
    await inDatabase(server.url, home, (db) =>
      sql`drop database if exists ${sql.id(TEMPLATE)} with (force)`.execute(db)
    )
    await server.close()
  }
}

const named = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const coverage = process.argv.includes('--coverage')

async function testFiles(): Promise<string[]> {
  if (named.length > 0) return named.map((file) => path.join('build', file.replace(/\.ts$/, '.js')))
  const files = await readdir(path.join('build', 'test'), { recursive: true })
  return files.filter((file) => file.endsWith('.test.js')).map((file) => path.join('build', 'test', file))
}

await rm('build', { recursive: true, force: true })
const checks =
  (await run(bin('tsc'), [])) ||
  (named.length === 0 && (await run(bin('biome'), ['check', '--error-on-warnings'])))
process.exitCode = checks ? 1 : Math.min(1, await runTests(await testFiles(), coverage))
