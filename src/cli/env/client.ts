import { loadClientConfig, readOwnEnvironment } from '../../config.ts'
import { type ApiClient, ask } from '../api-client.ts'
import { Patience } from '../patience.ts'

const MAX_WAIT_SECONDS = 60
const PAGE_SIZE = 100

const REMEDIES: ApiClient['remedies'] = {
  unreachable: 'Set COFFER_URL to where the server is.',
  wrongUrl: 'Set COFFER_URL to where the server is, as https://coffer.example.com.',
  token: 'Set COFFER_TOKEN, or COFFER_TOKEN_FILE, to a valid token for this server.'
}

export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** A client as the environment has it. */
export function openClient(): ApiClient {
  const { url, token } = loadClientConfig(readOwnEnvironment(), 'for this server; a .env is not read here')
  return {
    // What other commands and other clients take for the server's address leads to the same server.
    url: url.replace(/\/api(\/v3)?$/, ''),
    token,
    expected: 'Coffer server',
    remedies: REMEDIES,
    patience: new Patience({ maxWaitSeconds: MAX_WAIT_SECONDS, say })
  }
}

/** Calls a method, as `gitpod.v1.EnvironmentService/GetEnvironment`; throws as `ask` does. */
export async function call<T>(client: ApiClient, method: string, message: object): Promise<Partial<T>> {
  return await ask<Partial<T>>(client, { method: 'POST', path: `/api/${method}`, body: message })
}

interface Page {
  pagination?: { nextToken?: string }
}

/** All pages of a list. */
export async function listAll<T>(
  client: ApiClient,
  method: string,
  message: object,
  member: string
): Promise<T[]> {
  const all: T[] = []
  for (let token: string | undefined; ; ) {
    const pagination = { pageSize: PAGE_SIZE, ...(token && { token }) }
    const page = await call<Page & Record<string, unknown>>(client, method, { ...message, pagination })
    all.push(...((page[member] as T[] | undefined) ?? []))
    token = page.pagination?.nextToken
    if (!token) return all
  }
}
