import { setTimeout as sleep } from 'node:timers/promises'
import type { ReadStream } from 'node:tty'
import { RefusedToStart } from '../../errors.ts'
import { CommandFailed } from '../terminal.ts'
import { HiddenLine } from './hidden-line.ts'

/** Tells the terminal to mark what is pasted, so that the line ends in it do not end the value. */
const MARK_PASTES = '\x1b[?2004h'
const DO_NOT_MARK = '\x1b[?2004l'
/** How long the rest of a paste may take to arrive; nobody types on so soon after Enter. */
const REST_OF_PASTE_MS = 50

/** Asks once, at the terminal, and shows nothing of what is typed. */
export async function promptHidden(question: string): Promise<Buffer> {
  const output = [process.stderr, process.stdout].find(({ isTTY }) => isTTY)
  if (!output) {
    throw new RefusedToStart(
      'The value is asked for at a terminal, and output goes elsewhere: pipe the value in, or give --value-file.'
    )
  }
  const input = process.stdin as ReadStream
  const line = new HiddenLine()
  const restore = () => {
    input.setRawMode(false)
    output.write(`${DO_NOT_MARK}\n`)
  }
  process.once('exit', restore)
  input.setRawMode(true)
  output.write(`${MARK_PASTES}${question}`)
  try {
    await readLine(input, line)
  } finally {
    process.removeListener('exit', restore)
    restore()
    input.pause()
  }
  if (line.state === 'entered') return line.take()
  line.wipe()
  throw refusalOf(line)
}

async function readLine(input: ReadStream, line: HiddenLine): Promise<void> {
  let decided = () => {}
  const decision = new Promise<void>((resolve) => {
    decided = resolve
  })
  const feed = (bytes: Buffer) => {
    if (line.feed(bytes) !== 'open') decided()
    bytes.fill(0)
  }
  const ended = () => {
    line.state = 'cancelled'
    decided()
  }
  input.on('data', feed)
  input.once('end', ended)
  await decision
  // What else was pasted must not reach the shell, which would run it and keep it in its history.
  if (line.state !== 'cancelled') await sleep(REST_OF_PASTE_MS)
  input.removeListener('data', feed)
  input.removeListener('end', ended)
}

function refusalOf({ state }: HiddenLine): Error {
  if (state === 'several') {
    return new RefusedToStart(
      'Those were several lines, and this terminal does not mark what is pasted: give --value-file, or pipe the value in.'
    )
  }
  if (state === 'too-long') return new RefusedToStart('That is more than fits: give --value-file.')
  return new CommandFailed('Stopped: nothing was sent.')
}
