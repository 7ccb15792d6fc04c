import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { RefusedToStart } from '../errors.ts'

/**
 * Holds a folder for this process: a second runner on it would take the first one's secrets for left behind. The
 * kernel lets a socket go with its process, however that ends, so nothing of a killed one has to be guessed.
 *
 * @param socket in a folder that only the runner may write to
 * @throws RefusedToStart when a living process holds it
 */
export async function lockFolder(socket: string): Promise<Server> {
  const held = await listen(socket)
  if (held) return held
  if (await answers(socket)) {
    throw new RefusedToStart(
      'Another runner works with this data folder. Stop it, or give this one a folder of its own.'
    )
  }
  await rm(socket, { force: true })
  const taken = await listen(socket)
  if (!taken) throw new RefusedToStart('Another runner has just started with this data folder.')
  return taken
}

async function listen(socket: string): Promise<Server | undefined> {
  const server = createServer((connection) => connection.destroy())
  server.unref()
  try {
    server.listen(socket)
    await once(server, 'listening')
    return server
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined
    throw error
  }
}

async function answers(socket: string): Promise<boolean> {
  const connection = connect(socket)
  try {
    await once(connection, 'connect')
    return true
  } catch {
    return false
  } finally {
    connection.destroy()
  }
}
