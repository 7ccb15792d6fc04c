import type { Duplex, Readable, Writable } from 'node:stream'
import { type ExecRequest, parseJson, STDIN_WINDOW_BYTES } from './exec-request.ts'
import type { ExitStatus } from './exit-status.ts'
import {
  drained,
  FRAME,
  type Frame,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  readFrames,
  writeFrame
} from './frames.ts'
import type { TerminalSize } from './sandbox.ts'

const STDIN_FRAME_BYTES = 64 * 1024

/** The command did not come to its end, or not as far as anybody here knows; the message is fit to be shown. */
export class ExecFailed extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ExecFailed'
  }
}

export interface ExecStreams {
  /** undefined: the command's is empty */
  stdin?: Readable
  stdout: Writable
  /** with a terminal, all goes to stdout */
  stderr: Writable
}

/**
 * The client's side of an exec session.
 *
 * @param stream to the runner; closed in the end
 */
export class ExecClient {
  /**
   * How the command ended, when all that it wrote was written; SIGPIPE when nobody reads that any more.
   *
   * Rejects with ExecFailed.
   */
  readonly exit: Promise<ExitStatus>
  readonly #stream: Duplex
  readonly #streams: ExecStreams
  #room = STDIN_WINDOW_BYTES
  #onRoom: (() => void) | undefined
  #takesSizes = false
  /** that is still to be told */
  #size: TerminalSize | undefined
  #isTellingSize = false
  #over = false
  #stopInput = () => {}

  constructor(stream: Duplex, request: ExecRequest, streams: ExecStreams) {
    this.#stream = stream
    this.#streams = streams
    this.exit = this.#run(JSON.stringify(request))
  }

  /** To the command itself. */
  signal(name: NodeJS.Signals): void {
    if (!this.#over) void writeFrame(this.#stream, FRAME.signal, name)
  }

  /** Of the terminal that the command was given. Of many at once the last one is told; a runner that is older takes none. */
  resize(size: TerminalSize): void {
    this.#size = size
    void this.#tellSize()
  }

  async #tellSize(): Promise<void> {
    if (!this.#takesSizes || this.#isTellingSize) return
    this.#isTellingSize = true
    for (let size = this.#size; size && !this.#over; size = this.#size) {
      this.#size = undefined
      const { rows, columns } = size
      await writeFrame(this.#stream, FRAME.resize, JSON.stringify({ rows, columns }))
    }
    this.#isTellingSize = false
  }

  async #run(request: string): Promise<ExitStatus> {
    const { stdout, stderr } = this.#streams
    const ignore = () => {}
    for (const stream of [this.#stream, stdout, stderr]) stream.on('error', ignore)
    try {
      if (Buffer.byteLength(request) > MAX_PAYLOAD_BYTES) throw new ExecFailed('The command is too long.')
      void writeFrame(this.#stream, FRAME.start, request)
      return await this.#receive()
    } finally {
      this.#over = true
      this.#stopInput()
      this.#onRoom?.()
      this.#stream.end()
      this.#stream.resume()
      for (const stream of [stdout, stderr]) stream.off('error', ignore)
    }
  }

  async #receive(): Promise<ExitStatus> {
    try {
      for await (const frame of readFrames(this.#stream)) {
        const status = await this.#take(frame)
        if (status) return status
      }
    } catch (error) {
      if (error instanceof ExecFailed) throw error
      if (error instanceof ProtocolError)
        throw new ExecFailed(`The runner is not understood: ${error.message}`)
    }
    throw new ExecFailed('The connection was lost before the command had ended.')
  }

  /** Set: the command has ended. */
  async #take({ type, payload }: Frame): Promise<ExitStatus | undefined> {
    switch (type) {
      case FRAME.started:
        this.#takesSizes = payload.length > 0 && parseJson(payload).resize === true
        void this.#tellSize()
        this.#forwardInput()
        return undefined
      case FRAME.stdout:
        return await write(this.#streams.stdout, payload)
      case FRAME.stderr:
        return await write(this.#streams.stderr, payload)
      case FRAME.stdinTaken:
        this.#room += parseCount(payload)
        this.#onRoom?.()
        return undefined
      case FRAME.exit:
        return parseExit(payload)
      case FRAME.error:
        throw new ExecFailed(String(parseJson(payload).message))
      default:
        throw new ProtocolError('a frame is of an unknown type.')
    }
  }

  #forwardInput(): void {
    const { stdin } = this.#streams
    // A stdin that is paused may end all the same, before the last of it was sent.
    let sending = Promise.resolve()
    const end = () => void sending.then(() => writeFrame(this.#stream, FRAME.stdinEnd))
    if (!stdin) {
      end()
      return
    }
    const onData = (bytes: Buffer) => {
      stdin.pause()
      sending = this.#sendInput(bytes).then(() => {
        if (!this.#over) stdin.resume()
      })
    }
    stdin.on('data', onData).once('end', end).once('error', end)
    this.#stopInput = () => {
      // A stdin that flows keeps a process alive.
      stdin.off('data', onData).off('end', end).off('error', end).pause()
    }
  }

  /** As much at a time as the runner has room for. */
  async #sendInput(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length && !this.#over; ) {
      if (this.#room === 0) {
        await new Promise<void>((resolve) => {
          this.#onRoom = resolve
        })
        continue
      }
      const part = bytes.subarray(at, at + Math.min(this.#room, STDIN_FRAME_BYTES))
      this.#room -= part.length
      at += part.length
      await writeFrame(this.#stream, FRAME.stdin, part)
    }
  }
}

/** What a pipe does whose reader has gone: a command that writes to it ends by SIGPIPE. */
async function write(target: Writable, bytes: Buffer): Promise<ExitStatus | undefined> {
  if (target.writable) {
    target.write(bytes)
    await drained(target)
  }
  return target.writable ? undefined : { code: null, signal: 'SIGPIPE' }
}

function parseCount(payload: Buffer): number {
  if (payload.length !== 4) throw new ProtocolError('a count of bytes is not one.')
  return payload.readUInt32BE()
}

function parseExit(payload: Buffer): ExitStatus {
  const { code, signal } = parseJson(payload)
  const isCode = code === null || Number.isInteger(code)
  const isSignal = signal === null || typeof signal === 'string'
  if (!isCode || !isSignal) throw new ProtocolError('the end of the command has no status.')
  return { code: code as number | null, signal: signal as NodeJS.Signals | null }
}
