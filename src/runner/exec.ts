import type { Duplex, Readable } from 'node:stream'
import { CofferError } from '../errors.ts'
import { type ExecRequest, parseSignal, parseSize, parseStart, STDIN_WINDOW_BYTES } from './exec-request.ts'
import type { ExitStatus } from './exit-status.ts'
import { FRAME, type Frame, ProtocolError, readFrames, writeBytes, writeFrame } from './frames.ts'
import type { SandboxedProcess } from './sandbox.ts'

/** A client that was told the end closes the stream; it has this long to. */
const LINGER_MS = 30_000

export type StartProcess = (request: ExecRequest) => Promise<SandboxedProcess>

/**
 * The runner's side of an exec session: starts what the client asks for, and relays until it has ended. When the
 * stream closes before, the process is killed.
 *
 * @returns when nothing is left of the process, and the stream is closed
 * @throws what `startProcess` threw, unless it is a CofferError: the client has that one's message
 */
export async function serveExec(stream: Duplex, startProcess: StartProcess): Promise<void> {
  // A stream that breaks is one that closes.
  stream.on('error', () => {})
  const session = new ExecSession(stream, startProcess)
  try {
    for await (const frame of readFrames(stream)) await session.take(frame)
  } catch (error) {
    if (error instanceof ProtocolError) session.fail(error)
  }
  await session.close()
}

class ExecSession {
  readonly #stream: Duplex
  readonly #startProcess: StartProcess
  readonly #credit: StdinCredit
  #process: SandboxedProcess | undefined
  #linger: NodeJS.Timeout | undefined
  #over = false
  #defect: unknown

  constructor(stream: Duplex, startProcess: StartProcess) {
    this.#stream = stream
    this.#startProcess = startProcess
    this.#credit = new StdinCredit(stream)
  }

  /** What comes after the end is let go, so that the client can read on to learn of it. */
  async take(frame: Frame): Promise<void> {
    if (this.#over) return
    try {
      if (this.#process) this.#relayInput(this.#process, frame)
      else await this.#start(parseStart(frame))
    } catch (error) {
      this.fail(error)
    }
  }

  fail(error: unknown): void {
    if (this.#over) return
    const isFit = error instanceof CofferError || error instanceof ProtocolError
    if (!isFit) this.#defect = error
    this.#process?.kill()
    const message = isFit ? error.message : 'The command could not be started.'
    this.#finish(FRAME.error, { message })
  }

  /** The client says no more. */
  async close(): Promise<void> {
    if (!this.#over) this.#stream.destroy()
    this.#over = true
    this.#process?.kill()
    await this.#process?.exit
    await closed(this.#stream)
    clearTimeout(this.#linger)
    if (this.#defect) throw this.#defect
  }

  async #start(request: ExecRequest): Promise<void> {
    this.#process = await this.#startProcess(request)
    void writeFrame(this.#stream, FRAME.started, JSON.stringify({ resize: true }))
    void this.#relayOutput(this.#process)
  }

  #relayInput(process: SandboxedProcess, { type, payload }: Frame): void {
    if (type === FRAME.stdin) this.#credit.pass(payload, process.stdin)
    else if (type === FRAME.stdinEnd) process.stdin.end()
    else if (type === FRAME.signal) process.signal(parseSignal(payload))
    else if (type === FRAME.resize) process.resize(parseSize(payload))
    else throw new ProtocolError('A frame is of a type that a client does not send now.')
  }

  async #relayOutput(process: SandboxedProcess): Promise<void> {
    const [status] = await Promise.all([
      process.exit,
      this.#relay(process.stdout, FRAME.stdout),
      this.#relay(process.stderr, FRAME.stderr)
    ])
    if (!this.#over) this.#finish(FRAME.exit, status)
  }

  async #relay(source: Readable, type: number): Promise<void> {
    try {
      for await (const bytes of source as AsyncIterable<Buffer>) await writeBytes(this.#stream, type, bytes)
    } catch {
      // What could be read of it was.
    }
  }

  #finish(type: number, message: ExitStatus | { message: string }): void {
    this.#over = true
    void writeFrame(this.#stream, type, JSON.stringify(message))
    this.#stream.end(() => {
      this.#linger = setTimeout(() => this.#stream.destroy(), LINGER_MS)
    })
  }
}

/** Tells a client how much of its stdin was taken, so that no more than a window of it is ever held here. */
class StdinCredit {
  readonly #stream: Duplex
  #held = 0
  #taken = 0
  #isTelling = false

  constructor(stream: Duplex) {
    this.#stream = stream
  }

  /** @throws ProtocolError when the client has sent more than it was told to */
  pass(bytes: Buffer, stdin: SandboxedProcess['stdin']): void {
    this.#held += bytes.length
    if (this.#held > STDIN_WINDOW_BYTES) {
      throw new ProtocolError(
        `More than ${STDIN_WINDOW_BYTES} bytes of stdin were sent before they were taken.`
      )
    }
    // What a command that has closed its stdin does not take counts as taken, as with a pipe to /dev/null.
    stdin.write(bytes, () => {
      this.#taken += bytes.length
      void this.#tell()
    })
  }

  /** One frame at a time, for all that was taken by then: a client that does not read makes none pile up. */
  async #tell(): Promise<void> {
    if (this.#isTelling) return
    this.#isTelling = true
    while (this.#taken > 0) {
      const payload = Buffer.alloc(4)
      payload.writeUInt32BE(this.#taken)
      this.#held -= this.#taken
      this.#taken = 0
      await writeFrame(this.#stream, FRAME.stdinTaken, payload)
    }
    this.#isTelling = false
  }
}

async function closed(stream: Duplex): Promise<void> {
  if (stream.closed) return
  // What nobody reads would keep it open.
  stream.resume()
  await new Promise((resolve) => stream.once('close', resolve))
}
