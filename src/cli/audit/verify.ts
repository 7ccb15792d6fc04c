import { open, readFile } from 'node:fs/promises'
import { createGunzip } from 'node:zlib'
import type { Command } from 'commander'
import { type CheckpointFile, readEvidence } from '../../audit/evidence.ts'
import { auditKeyFileOf } from '../../audit/jobs.ts'
import { type PublicKeys, parsePublicKeys, readAuditKey } from '../../audit/key.ts'
import { type Finding, NotAnExport, type Verification, verifyExport } from '../../audit/verify.ts'
import { loadConfig, readEnvironment } from '../../config.ts'
import { RefusedToStart } from '../../errors.ts'
import { printJson } from '../terminal.ts'
import { progress } from './progress.ts'

const STDIN = '-'
const TAMPERED = 1

const HELP = `
It needs no server and no database. Each record is checked against its place in the chain of its stream, and its
columns against what was sealed; with --checkpoint also whether anything is missing, or was computed anew, since that
checkpoint. Without a checkpoint a cut tail, a removed stream and a chain computed anew cannot be seen.

Without --public-key the key file of this machine's configuration is used. A log of checkpoints (checkpoints-*.jsonl)
may be given beside checkpoint.jsonl: it tells whether that is the newest one.

Exit codes: 0 nothing was changed, 1 something was: the first record that does not fit is named, 2 it could not be
verified.

Example:
  $ npx coffer audit verify audit.jsonl --checkpoint kept/checkpoint.jsonl --public-key audit-key.pub
  $ npx coffer audit verify audit.jsonl.gz --json`

interface Options {
  checkpoint?: string[]
  publicKey?: string[]
  json?: true
}

function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value]
}

export function addAuditVerify(audit: Command): void {
  audit
    .command('verify')
    .description('Verify an export offline, against checkpoints that were kept.')
    .argument('<export>', 'what coffer audit export wrote, gzipped or not; - is standard input')
    .option('--checkpoint <file>', 'a checkpoint that was kept; may be given again', collect)
    .option('--public-key <file>', 'public keys in PEM; may be given again', collect)
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(run)
}

async function run(file: string, options: Options): Promise<void> {
  const { checkpoint: files = [], json } = options
  const keys = await readKeys(options)
  if (files.length > 0 && keys.size === 0) throw noKey('A checkpoint is verified with')
  const evidence = await readEvidence(await Promise.all(files.map(openCheckpoint)), keys)
  const lines = await openLines(file)
  const verification = await verifyExport(lines, evidence, keys, progress('verified')).catch((error) => {
    throw error instanceof NotAnExport
      ? new RefusedToStart(`${file} is no export of coffer audit export.`)
      : error
  })
  if (verification.needsKey)
    throw noKey('The export says that old records were removed; that is verified with')
  if (json) printJson({ file, ok: verification.found === 0, ...verification })
  else print(file, verification)
  if (verification.found > 0) process.exitCode = TAMPERED
}

function noKey(what: string): RefusedToStart {
  return new RefusedToStart(`${what} a public key: give --public-key, made with: npx coffer audit public-key`)
}

function refusal(file: string, error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException
  if (code?.startsWith('Z_')) return new RefusedToStart(`${file} does not unzip.`)
  return syscall ? new RefusedToStart(`${file} cannot be read (${code}).`) : error
}

/** Those that are given; else that of this machine, if it has one. */
async function readKeys({ publicKey: files }: Options): Promise<PublicKeys> {
  if (files) {
    const texts = await Promise.all(files.map(readPublicKey))
    return new Map(texts.flatMap((keys) => [...keys]))
  }
  const key = await readAuditKey(auditKeyFileOf(loadConfig(readEnvironment()).config)).catch(() => undefined)
  return key ? parsePublicKeys(key.publicKey) : new Map()
}

async function readPublicKey(file: string): Promise<PublicKeys> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new RefusedToStart(`The public key file ${file} cannot be read (${error.code}).`)
  })
  const keys = parsePublicKeys(text)
  if (keys.size > 0) return keys
  throw new RefusedToStart(
    `${file} holds no Ed25519 public key in PEM; get it with: npx coffer audit public-key`
  )
}

async function openCheckpoint(file: string): Promise<CheckpointFile> {
  return { name: file, lines: await openLines(file) }
}

/** Opened before a line is asked for, so that a file that is not there is refused at once. */
async function openLines(file: string): Promise<AsyncIterable<string>> {
  if (file === STDIN) return linesOf(file, process.stdin)
  const handle = await open(file).catch((error) => {
    throw refusal(file, error)
  })
  return linesOf(file, handle.createReadStream())
}

async function* linesOf(file: string, source: NodeJS.ReadableStream): AsyncGenerator<string> {
  let rest = ''
  try {
    for await (const chunk of textOf(file, source)) {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop()!
      yield* lines
    }
  } catch (error) {
    throw refusal(file, error)
  }
  if (rest !== '') yield rest
}

function textOf(file: string, source: NodeJS.ReadableStream): NodeJS.ReadableStream {
  if (!file.endsWith('.gz')) return source.setEncoding('utf8')
  const unzipped = createGunzip()
  source.on('error', (error) => unzipped.destroy(error))
  return source.pipe(unzipped).setEncoding('utf8')
}

function print(file: string, { records, streams, findings, found, notes }: Verification): void {
  const [first, ...others] = findings
  const out = (line: string) => process.stdout.write(`${line}\n`)
  if (!first) out(`${file}: ${records} records of ${streams} streams, and all of them fit.`)
  else {
    out(`${file}: CHANGED. The first that does not fit:`)
    out(`  ${describe(first)}`)
    if (others.length > 0) out(`Besides, ${found - 1} more:`)
    for (const other of others) out(`  ${describe(other)}`)
    if (found > findings.length) out(`  … and ${found - findings.length} more`)
  }
  for (const note of notes) out(`Note: ${note}`)
}

function describe({ stream, sequence, id, reason }: Finding): string {
  const where = [
    ...(stream === undefined ? [] : [`stream ${stream}`]),
    ...(sequence === undefined ? [] : [`sequence ${sequence}`]),
    ...(id === undefined ? [] : [`record ${id}`])
  ]
  return where.length > 0 ? `${where.join(', ')}: ${reason}` : reason
}
