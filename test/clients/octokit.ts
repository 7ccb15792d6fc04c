import type { IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import { startTestServer, type TestServerOptions } from '../helper.ts'

/** A server that Octokit reaches over HTTP, with what it asks and what it prints. */
export async function startForOctokit(t: Test, options: TestServerOptions = {}) {
  const server = await startTestServer(t, { ...options, publicUrl: null })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const baseUrl = `${await server.listen()}/api/v3`
  const requests: string[] = []
  server.app.server.prependListener('request', ({ method, url }: IncomingMessage) => {
    requests.push(`${method} ${url}`)
  })
  const printed: string[] = []
  const print = (line: string) => void printed.push(line)
  return {
    server,
    mona,
    token,
    baseUrl,
    /** since the last call, as they came */
    requests: () => requests.splice(0),
    /** warnings and errors that it logged */
    printed,
    log: { debug: () => {}, info: () => {}, warn: print, error: print }
  }
}

export interface Failure {
  status: number
  message: string
  response: {
    data: { message: string; documentation_url: string; status: string }
    headers: Record<string, string>
  }
}

/** The HttpError that a call ends with. */
export async function failure(t: Test, work: Promise<unknown>): Promise<Failure> {
  try {
    await work
  } catch (error) {
    t.equal((error as Error).name, 'HttpError')
    return error as Failure
  }
  t.fail('refused')
  throw new Error('not refused')
}
