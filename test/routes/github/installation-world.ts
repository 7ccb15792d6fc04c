import type { Test } from 'tap'
import { findInstallation } from '../../../src/store/installations.ts'
import { installTestApp, registerTestApp, signJwt } from '../../github-app.ts'
import { startTestServer, type TestRequest } from '../../helper.ts'

// An organization, and an App that is installed on some of its repositories.

export const PERMISSIONS = {
  codespaces_secrets: 'write',
  organization_codespaces_secrets: 'write',
  administration: 'write',
  members: 'read'
}
export const WEB = '/repos/acme/web/codespaces/secrets'
export const BY_INTEGRATION = 'Resource not accessible by integration'

export async function makeWorld(t: Test, selection: string[] | undefined = ['web', 'api']) {
  const server = await startTestServer(t)
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const ids: Record<string, number> = {}
  for (const name of ['web', 'api', 'hidden']) ids[name] = await server.createRepository(acme, name)
  ids.open = await server.createRepository(acme, 'open', { private: false })
  ids.notes = await server.createRepository(mona, 'notes')
  const app = await registerTestApp(server, 'Octo App', PERMISSIONS)
  const id = await installTestApp(server, app, 'acme', selection)
  const post = async (body: unknown, jwt?: string) =>
    await server.request('POST', `/app/installations/${id}/access_tokens`, {
      token: jwt ?? (await signJwt(app)),
      body
    })
  const ask = async (
    method: 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE',
    url: string,
    token: string,
    request: TestRequest = {}
  ) => {
    const response = await server.request(method, url, { ...request, token })
    return [response.statusCode, response.body === '' ? '' : (response.json().message ?? '')]
  }
  const installation = async () => (await findInstallation(server.db, { installationId: id }))!
  return { server, mona, acme, ids, app, id, post, ask, installation }
}
