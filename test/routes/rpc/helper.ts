import Gitpod from '@gitpod/sdk'
import type { Test } from 'tap'
import { SCOPES } from '../../../src/auth/scopes.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { startTestServer, type TestServer, type TestServerOptions } from '../../helper.ts'

/** A server with an organization, its owner, a member, and a stranger in an organization of its own. */
export interface OnaServer extends TestServer {
  acme: Account
  owner: { account: Account; token: string }
  member: { account: Account; token: string }
  stranger: { account: Account; token: string; organization: Account }
  /** calls a method; gives status, body and headers */
  call(
    method: string,
    token: string | undefined,
    message?: unknown
    // biome-ignore lint/suspicious/noExplicitAny: JSON of all methods
  ): Promise<{ status: number; body: any; headers: Record<string, unknown> }>
}

export async function startOnaServer(t: Test, options: TestServerOptions = {}): Promise<OnaServer> {
  const server = await startTestServer(t, options)
  const user = async (login: string) => {
    const account = await server.createUser(login)
    return { account, token: await server.createToken(account, { scopes: SCOPES }) }
  }
  const [owner, member, stranger] = [await user('olga'), await user('mia'), await user('sam')]
  const acme = await server.createOrganization('acme', owner.account)
  await server.addMember(acme, member.account)
  const organization = await server.createOrganization('other', stranger.account)
  return Object.assign(server, {
    acme,
    owner,
    member,
    stranger: { ...stranger, organization },
    async call(method: string, token: string | undefined, message?: unknown) {
      const response = await server.request('POST', `/api/gitpod.v1.${method}`, {
        token,
        ...(message !== undefined && { body: message })
      })
      return { status: response.statusCode, body: response.json(), headers: response.headers }
    }
  })
}

/** The official client, pointed to a listening server. */
export function sdk(url: string, token: string): Gitpod {
  return new Gitpod({ baseURL: `${url}/api`, bearerToken: token })
}
