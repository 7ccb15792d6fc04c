import type { Readable, Writable } from 'node:stream'

/**
 * What a client and a runner say to each other over a stream of bytes, which the server passes on as it is:
 * type (1 byte), length of the payload (4 bytes, big-endian), payload.
 */
export const FRAME = {
  // from the client
  start: 1,
  stdin: 2,
  stdinEnd: 3,
  signal: 4,
  /** of the terminal: JSON with rows and columns */
  resize: 5,
  // from the runner
  /** JSON of what the runner takes besides: resize */
  started: 16,
  stdout: 17,
  stderr: 18,
  exit: 19,
  error: 20,
  /** so many bytes more of stdin were taken: 4 bytes, big-endian */
  stdinTaken: 21
} as const

export const MAX_PAYLOAD_BYTES = 1024 * 1024
const HEADER_BYTES = 5

export interface Frame {
  type: number
  payload: Buffer
}

/** The other side does not speak the protocol; the message says how, and quotes nothing. */
export class ProtocolError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ProtocolError'
  }
}

/**
 * Frame by frame, no sooner than they are asked for.
 *
 * @throws ProtocolError for one that is too long, or when the stream ends in the middle of one
 */
export async function* readFrames(stream: Readable): AsyncGenerator<Frame> {
  let pieces: Buffer[] = []
  let length = 0
  let needed = HEADER_BYTES
  // What is left of a stream is its owner's.
  const chunks: AsyncIterable<Buffer> = stream.iterator({ destroyOnReturn: false })
  for await (const chunk of chunks) {
    pieces.push(chunk)
    length += chunk.length
    if (length < needed) continue
    let bytes = pieces.length === 1 ? chunk : Buffer.concat(pieces)
    for (;;) {
      needed = neededBytes(bytes)
      if (bytes.length < needed || bytes.length < HEADER_BYTES) break
      yield { type: bytes[0]!, payload: bytes.subarray(HEADER_BYTES, needed) }
      bytes = bytes.subarray(needed)
    }
    pieces = bytes.length > 0 ? [bytes] : []
    length = bytes.length
  }
  if (length > 0) throw new ProtocolError('The stream ended in the middle of a frame.')
}

/** Of the frame that these bytes begin, or of its header. */
function neededBytes(bytes: Buffer): number {
  if (bytes.length < HEADER_BYTES) return HEADER_BYTES
  const payloadBytes = bytes.readUInt32BE(1)
  if (payloadBytes > MAX_PAYLOAD_BYTES) {
    throw new ProtocolError(`A frame has a payload of more than ${MAX_PAYLOAD_BYTES} bytes.`)
  }
  return HEADER_BYTES + payloadBytes
}

/**
 * Resolves when the stream takes more, or is closed: that is for its reader to notice.
 *
 * @param payload at most MAX_PAYLOAD_BYTES
 */
export async function writeFrame(
  stream: Writable,
  type: number,
  payload: Uint8Array | string = ''
): Promise<void> {
  if (!stream.writable) return
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
  const header = Buffer.alloc(HEADER_BYTES)
  header[0] = type
  header.writeUInt32BE(bytes.length, 1)
  stream.cork()
  stream.write(header)
  stream.write(bytes)
  stream.uncork()
  await drained(stream)
}

/** Bytes of any length, in as many frames as they need. */
export async function writeBytes(stream: Writable, type: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; at += MAX_PAYLOAD_BYTES) {
    await writeFrame(stream, type, bytes.subarray(at, at + MAX_PAYLOAD_BYTES))
  }
}

/** Resolves when a writable takes more, or never will. */
export async function drained(stream: Writable): Promise<void> {
  if (!stream.writableNeedDrain || stream.destroyed) return
  await new Promise<void>((resolve) => {
    const settle = () => {
      stream.off('drain', settle).off('close', settle)
      resolve()
    }
    stream.on('drain', settle).on('close', settle)
  })
}
