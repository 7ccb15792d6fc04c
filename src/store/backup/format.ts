import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { RefusedToStart } from '../../errors.ts'

/**
 * A backup is gzipped SQL that psql loads in an emergency, into a database with the same migrations:
 *
 *     -- Coffer backup {manifest}
 *     BEGIN; …                       the fixed PREAMBLE
 *     COPY "table" ("column",…) FROM stdin;
 *     rows, in COPY's text format
 *     \.                             once for each table, in an order that foreign keys allow
 *     SELECT pg_catalog.setval(…);   once for each sequence
 *     COMMIT;
 *     -- end of backup {trailer}
 *
 * The trailer has the SHA-256 of all bytes before its line. It tells damage from what was written, and is no
 * signature: who can change the file can also compute it. Reading executes nothing of the file but the rows.
 */
const FORMAT = 1

export interface Manifest {
  format: typeof FORMAT
  /** the version of Coffer that wrote it */
  coffer: string
  /** ISO 8601 */
  created_at: string
  /** uid of the instance */
  instance: string
  migrations: string[]
  tables: string[]
  /** fingerprints of the master keys that open what is inside */
  master_keys: string[]
}

export interface Trailer {
  rows: Record<string, number>
  sha256: string
}

export interface Sequence {
  table: string
  column: string
  value: string
  called: boolean
}

/** How COPY writes and reads values, whatever the server's configuration says. */
export const SETTINGS = [
  "SET LOCAL client_encoding = 'UTF8';",
  "SET LOCAL datestyle = 'ISO, MDY';",
  "SET LOCAL intervalstyle = 'postgres';",
  "SET LOCAL timezone = 'UTC';",
  "SET LOCAL bytea_output = 'hex';",
  'SET LOCAL extra_float_digits = 1;'
]
/** The only row that a migration puts in. */
export const FORGET_INSTANCE = 'DELETE FROM "instance";'
const PREAMBLE = ['BEGIN;', ...SETTINGS, FORGET_INSTANCE]
const END_OF_ROWS = '\\.'
const COMMIT = 'COMMIT;'

const MANIFEST_PREFIX = '-- Coffer backup '
const TRAILER_PREFIX = '-- end of backup '
const COPY = /^COPY "(\w+)" \(("\w+"(?:,"\w+")*)\) FROM stdin;$/
const SETVAL =
  /^SELECT pg_catalog\.setval\(pg_catalog\.pg_get_serial_sequence\('"(\w+)"', '(\w+)'\), (\d{1,19}), (true|false)\);$/

const NEWLINE = 0x0a
/** Far more than the largest value that can be configured takes. */
const MAX_LINE_BYTES = 128 * 1024 * 1024

export function manifestLine(manifest: Omit<Manifest, 'format'>): string {
  return `${MANIFEST_PREFIX}${JSON.stringify({ format: FORMAT, ...manifest })}\n${PREAMBLE.join('\n')}\n`
}

export function columnList(columns: readonly string[]): string {
  return columns.map((column) => `"${column}"`).join(',')
}

export function copyLine(table: string, columns: readonly string[]): string {
  return `COPY "${table}" (${columnList(columns)}) FROM stdin;\n`
}

export const endOfRowsLine = `${END_OF_ROWS}\n`

export function sequenceLine({ table, column, value, called }: Sequence): string {
  const sequence = `pg_catalog.pg_get_serial_sequence('"${table}"', '${column}')`
  return `SELECT pg_catalog.setval(${sequence}, ${value}, ${called});\n`
}

export const commitLine = `${COMMIT}\n`

export function trailerLine(trailer: Trailer): string {
  return `${TRAILER_PREFIX}${JSON.stringify(trailer)}\n`
}

/** Rows in a piece of COPY's text format, where a newline is always the end of a row. */
export function countRows(bytes: Uint8Array): number {
  let rows = 0
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) rows += 1
  return rows
}

/** What is done with a backup while it is read; each call ends before the next thing is read. */
export interface Visitor {
  manifest?(manifest: Manifest): Promise<void>
  /** must take all rows */
  table?(table: string, columns: string[], rows: AsyncIterable<Buffer>): Promise<void>
  sequence?(sequence: Sequence): Promise<void>
}

/**
 * Reads a backup from its first to its last byte. Only when it returns is the file known to be whole: whatever
 * the visitor has done must not be kept before.
 *
 * @throws RefusedToStart when the file is no backup, a damaged one, or one of a later format
 */
export async function readBackup(
  file: string,
  visitor: Visitor
): Promise<{ manifest: Manifest; trailer: Trailer }> {
  let read: { manifest: Manifest; trailer: Trailer } | undefined
  try {
    await pipeline(createReadStream(file), createGunzip(), async (chunks: AsyncIterable<Buffer>) => {
      read = await visit(new Lines(chunks), visitor)
    })
  } catch (error) {
    throw refusal(file, error as NodeJS.ErrnoException)
  }
  return read!
}

function refusal(file: string, error: NodeJS.ErrnoException): Error {
  if (error instanceof Damaged) {
    return new RefusedToStart(`${file} is no whole backup of Coffer: ${error.message}. Nothing was changed.`)
  }
  if (error.syscall && !/^E(CONN|PIPE)/.test(error.code ?? ''))
    return new RefusedToStart(`The backup ${file} cannot be read (${error.code}).`)
  if (error.code?.startsWith('Z_')) {
    return new RefusedToStart(`${file} is no whole backup of Coffer: it does not unzip. Nothing was changed.`)
  }
  return error
}

class Damaged extends Error {}

async function visit(lines: Lines, visitor: Visitor): Promise<{ manifest: Manifest; trailer: Trailer }> {
  const manifest = readManifest(await lines.next())
  for (const expected of PREAMBLE)
    if ((await lines.next()) !== expected) throw new Damaged('its beginning is not ours')
  await visitor.manifest?.(manifest)

  const counted: Record<string, number> = {}
  for (const table of manifest.tables) {
    const [, name, columns] = COPY.exec(await lines.next()) ?? []
    if (name !== table) throw new Damaged(`the table ${table} is not where it should be`)
    const count = { rows: 0 }
    const rows = lines.rows(count)
    if (visitor.table) await visitor.table(table, columns!.slice(1, -1).split('","'), rows)
    else for await (const _ of rows);
    counted[table] = count.rows
  }

  let line = await lines.next()
  for (; line !== COMMIT; line = await lines.next()) {
    const [, table, column, value, called] = SETVAL.exec(line) ?? []
    if (!table || !manifest.tables.includes(table)) throw new Damaged('it holds a statement that is not ours')
    await visitor.sequence?.({ table, column: column!, value: value!, called: called === 'true' })
  }

  const sha256 = lines.digest()
  const trailer = readJson<Trailer>(await lines.next(), TRAILER_PREFIX)
  if (trailer.sha256 !== sha256) throw new Damaged('its SHA-256 is not the one in its last line')
  for (const table of manifest.tables) {
    if (trailer.rows?.[table] !== counted[table]) throw new Damaged(`rows of the table ${table} are missing`)
  }
  await lines.end()
  return { manifest, trailer }
}

function readJson<T>(line: string, prefix: string): T {
  try {
    if (line.startsWith(prefix)) return JSON.parse(line.slice(prefix.length)) as T
  } catch {
    // Told below, without the words of the parser, which quotes its input.
  }
  throw new Damaged(`a line that begins with "${prefix.trim()}" is missing`)
}

function readManifest(line: string): Manifest {
  const manifest = readJson<Manifest>(line, MANIFEST_PREFIX)
  if (manifest.format !== FORMAT) {
    throw new Damaged(
      `its format is ${Number(manifest.format)}, and this version of Coffer reads format ${FORMAT}`
    )
  }
  const lists = [manifest.migrations, manifest.tables, manifest.master_keys]
  if (!lists.every((list) => Array.isArray(list) && list.every((item) => typeof item === 'string'))) {
    throw new Damaged('its first line is incomplete')
  }
  return manifest
}

/** The lines of a text, hashed as they are taken; rows come in large pieces. */
class Lines {
  readonly #chunks: AsyncIterator<Buffer>
  readonly #hash = createHash('sha256')
  /** whole lines */
  #block = Buffer.alloc(0)
  /** what was read of the line after them */
  #rest: Buffer[] = []
  #ended = false

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]()
  }

  async next(): Promise<string> {
    if (!(await this.#fill())) throw new Damaged('it ends too early')
    return this.#take(this.#block.indexOf(NEWLINE) + 1)
      .toString('utf8')
      .slice(0, -1)
  }

  async *rows(count: { rows: number }): AsyncGenerator<Buffer> {
    for (;;) {
      if (!(await this.#fill())) throw new Damaged('it ends too early')
      const bytes = this.#rowsInBlock()
      if (bytes > 0) {
        const rows = this.#take(bytes)
        count.rows += countRows(rows)
        yield rows
      } else {
        this.#take(endOfRowsLine.length)
        return
      }
    }
  }

  /** SHA-256 of all that was taken so far, in hexadecimal. */
  digest(): string {
    return this.#hash.copy().digest('hex')
  }

  async end(): Promise<void> {
    if (await this.#fill()) throw new Damaged('something follows its end')
  }

  /** How many bytes of the block come before the line that ends the rows. */
  #rowsInBlock(): number {
    if (this.#block.subarray(0, endOfRowsLine.length).equals(END_OF_ROWS_BYTES)) return 0
    const end = this.#block.indexOf(`\n${endOfRowsLine}`)
    return end < 0 ? this.#block.length : end + 1
  }

  #take(bytes: number): Buffer {
    const taken = this.#block.subarray(0, bytes)
    this.#block = this.#block.subarray(bytes)
    this.#hash.update(taken)
    return taken
  }

  /** Reads on until there is a whole line; false at the end of the text. */
  async #fill(): Promise<boolean> {
    let restBytes = 0
    while (this.#block.length === 0) {
      const { value: chunk, done } = this.#ended
        ? { done: true, value: undefined }
        : await this.#chunks.next()
      if (done) {
        this.#ended = true
        if (this.#rest.length > 0) throw new Damaged('it ends too early')
        return false
      }
      const whole = (chunk as Buffer).lastIndexOf(NEWLINE) + 1
      const rest = (chunk as Buffer).subarray(whole)
      if (whole > 0) {
        this.#block = Buffer.concat([...this.#rest, (chunk as Buffer).subarray(0, whole)])
        this.#rest = []
      }
      if (rest.length > 0) this.#rest.push(rest)
      restBytes += rest.length
      if (restBytes > MAX_LINE_BYTES) throw new Damaged('a line is too long')
    }
    return true
  }
}

const END_OF_ROWS_BYTES = Buffer.from(endOfRowsLine)
