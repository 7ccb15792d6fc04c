import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import type { Command } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { promptHidden } from './prompt.ts'

/** More than any server takes. */
const MAX_BYTES = 16 * 1024 * 1024
const STDIN = '-'

export interface ValueOptions {
  valueFile?: string
  stripNewline?: true
  allowEmpty?: true
}

export function addValueOptions(command: Command): Command {
  return command
    .option('--value-file <file>', 'read the value from a file; - is standard input')
    .option('--strip-newline', 'take one line break off the end of the value')
    .option('--allow-empty', 'an empty value is meant')
}

/**
 * The bytes of a value, as they are: from a file, from standard input when that is no terminal, else asked for.
 * The caller wipes them.
 */
export async function readValue(name: string, options: ValueOptions): Promise<Buffer> {
  const value = await readBytes(name, options.valueFile)
  const end = options.stripNewline ? endingOf(value) : 0
  if (end === 0 && endingOf(value) > 0) {
    process.stderr.write(
      'The value ends in a line break, which belongs to it; --strip-newline takes it off.\n'
    )
  }
  if (value.length === end && !options.allowEmpty) {
    throw new RefusedToStart('The value is empty. If that is meant, add --allow-empty.')
  }
  return value.subarray(0, value.length - end)
}

async function readBytes(name: string, file: string | undefined): Promise<Buffer> {
  if (file === undefined && process.stdin.isTTY) {
    return await promptHidden(`Value of ${name} (it is not shown): `)
  }
  return await readFileBytes(file ?? STDIN)
}

/** Also of what is no regular file: a pipe of the shell's, `<(…)`. */
export async function readFileBytes(file: string): Promise<Buffer> {
  if (file === STDIN) {
    if (!process.stdin.isTTY) return await collect(process.stdin, 'Standard input')
    throw new RefusedToStart('Standard input is a terminal, which would show what is typed.')
  }
  try {
    return await collect(createReadStream(file), file)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (typeof code !== 'string' || error instanceof RefusedToStart) throw error
    throw new RefusedToStart(`${file} cannot be read (${code}).`)
  }
}

/** All of a stream in one piece of memory; the pieces are wiped. */
async function collect(stream: Readable, source: string): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  try {
    for await (const piece of stream) {
      pieces.push(piece as Buffer)
      length += (piece as Buffer).length
      if (length > MAX_BYTES) throw new RefusedToStart(`${source} holds more than ${MAX_BYTES} bytes.`)
    }
    const whole = Buffer.allocUnsafeSlow(length)
    let at = 0
    for (const piece of pieces) at += piece.copy(whole, at)
    return whole
  } finally {
    for (const piece of pieces) piece.fill(0)
  }
}

/** How many bytes the line break at the end has. */
function endingOf(value: Uint8Array): 0 | 1 | 2 {
  if (value.at(-1) !== 0x0a) return 0
  return value.at(-2) === 0x0d ? 2 : 1
}
