import { sql } from 'kysely'
import type { Test } from 'tap'
import type { App } from '../../src/apps.ts'
import { startTestServer } from '../helper.ts'
import { GoGitHub } from './go-github.ts'
import * as terraform from './terraform.ts'

/** Where the secrets of the three kinds are, for Codespaces. */
export const PATHS = {
  repository: 'repos/acme/web/codespaces/secrets',
  user: 'user/codespaces/secrets',
  organization: 'orgs/acme/codespaces/secrets'
} as const

/** A server, and Terraform's provider with its client. */
export async function startForTerraform(t: Test) {
  const server = await startTestServer(t, { publicUrl: null, maxSecrets: 200 })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const web = await server.createRepository(acme, 'web')
  const api = await server.createRepository(acme, 'api')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const url = await server.listen()
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', web)
    .executeTakeFirstOrThrow()
  const owners = { repository: uid, user: mona.uid, organization: acme.uid }
  const client = new GoGitHub(url, token)
  return {
    server,
    mona,
    acme,
    ids: { web, api },
    token,
    url,
    client,
    /** what was sent since the last call; sealed values and keys' ids are left out */
    sent: () =>
      client.sent
        .splice(0)
        .map((line) => line.replace(/"key_id":"\d+","encrypted_value":"[^"]+"/, '"key_id":…')),
    stored: async (kind: keyof typeof owners, name: string, app: App = 'codespaces') =>
      (await server.reveal(kind, owners[kind], name, app))?.toString(),
    /** somebody else sets a value */
    set: async (path: string, name: string, value: string, rest = {}) => {
      const body = { ...(await server.seal(`/${path}`, token, value)), ...rest }
      const { statusCode } = await server.request('PUT', `/${path}/${name}`, { token, body })
      t.match(statusCode, /^20[14]$/)
    },
    /** makes every secret an hour older, and gives the state that a refresh would have kept then */
    age: async (resource: terraform.Resource, state: terraform.State) => {
      await sql`update secrets set created_at = created_at - interval '1 hour',
        updated_at = updated_at - interval '1 hour'`.execute(server.db)
      const aged = await terraform.read(client, resource, { ...state, updatedAt: '' })
      client.sent.length = 0
      return aged!
    }
  }
}
