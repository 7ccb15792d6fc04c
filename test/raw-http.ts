import { connect, type NetConnectOpts, type Socket } from 'node:net'

const PATIENCE_MS = 10_000

/** One answer as it stands on the wire. */
export interface RawAnswer {
  statusCode: number
  headers: Record<string, string>
  body: string
}

/** Where a URL leads, or a unix socket's path. */
export function address(target: string): NetConnectOpts {
  if (target.startsWith('/')) return { path: target }
  const { hostname, port } = new URL(target)
  return { host: hostname, port: Number(port) }
}

/** Sends bytes that no client would send, and reads until the server ends the connection. */
export async function sendRaw(
  target: string,
  bytes: string | Buffer,
  whileOpen: (socket: Socket) => Promise<void> = async () => {}
): Promise<RawAnswer | undefined> {
  const socket = connect(address(target))
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk))
  socket.on('error', () => {})
  socket.setTimeout(PATIENCE_MS, () => socket.destroy())
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.write(bytes)
  await whileOpen(socket)
  await closed
  return parseAnswer(Buffer.concat(chunks).toString('latin1'))
}

function parseAnswer(text: string): RawAnswer | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [statusLine, ...lines] = text.slice(0, end).split('\r\n')
  const headers = lines.map((line) => [
    line.slice(0, line.indexOf(':')).toLowerCase(),
    line.slice(line.indexOf(':') + 2)
  ])
  return {
    statusCode: Number(statusLine!.split(' ')[1]),
    headers: Object.fromEntries(headers),
    body: text.slice(end + 4)
  }
}
