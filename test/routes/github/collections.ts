import type { Test } from 'tap'
import { type App, appsOf, type GitHubCollectionKind } from '../../../src/apps.ts'
import { startTestServer, type TestServer, type TestServerOptions } from '../../helper.ts'

/** One collection of secrets, as its paths and operations name it. */
export interface Collection {
  app: App
  kind: GitHubCollectionKind
  path: string
  /** the same by number */
  alias: string
  ownerUid: string
  /** of the account in whose audit stream it is recorded */
  streamUid: string
  /** what the operationIds of this kind end in */
  operations: { list: string; publicKey: string; get: string; put: string; delete: string }
  /** what a PUT needs besides the value to make a secret */
  extra: Record<string, unknown>
}

function operationsOf(app: App, infix: string) {
  return {
    list: `${app}/list-${infix}-secrets`,
    publicKey: `${app}/get-${infix}-public-key`,
    get: `${app}/get-${infix}-secret`,
    put: `${app}/create-or-update-${infix}-secret`,
    delete: `${app}/delete-${infix}-secret`
  }
}

/** mona owns the organization Acme, with a private and a public repository and an environment of the first. */
export async function setStage(t: Test, options: TestServerOptions = {}) {
  const server = await startTestServer(t, options)
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('Acme', mona)
  const web = await server.createRepository(acme, 'web')
  const open = await server.createRepository(acme, 'open', { private: false })
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  await server.request('PUT', '/repos/acme/web/environments/production', { token })
  const { uid: webUid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', web)
    .executeTakeFirstOrThrow()
  const { uid: environmentUid } = await server.db
    .selectFrom('deployment_environments')
    .select('uid')
    .executeTakeFirstOrThrow()

  const common = (kind: GitHubCollectionKind, ownerUid: string, streamUid = acme.uid) => ({
    kind,
    ownerUid,
    streamUid,
    extra: kind === 'organization' ? { visibility: 'all' } : {}
  })
  const ofUser = (app: App) => ({
    list: `${app}/list-secrets-for-authenticated-user`,
    publicKey: `${app}/get-public-key-for-authenticated-user`,
    get: `${app}/get-secret-for-authenticated-user`,
    put: `${app}/create-or-update-secret-for-authenticated-user`,
    delete: `${app}/delete-secret-for-authenticated-user`
  })
  const collections: Collection[] = [
    ...appsOf('repository').map((app) => ({
      app,
      path: `/repos/Acme/web/${app}/secrets`,
      alias: `/repositories/${web}/${app}/secrets`,
      operations: operationsOf(app, 'repo'),
      ...common('repository', webUid)
    })),
    ...appsOf('organization').map((app) => ({
      app,
      path: `/orgs/Acme/${app}/secrets`,
      alias: `/organizations/${acme.id}/${app}/secrets`,
      operations: operationsOf(app, 'org'),
      ...common('organization', acme.uid)
    })),
    ...appsOf('deployment-environment').map((app) => ({
      app,
      path: '/repos/Acme/web/environments/production/secrets',
      alias: `/repositories/${web}/environments/production/secrets`,
      operations: operationsOf(app, 'environment'),
      ...common('deployment-environment', environmentUid)
    })),
    ...appsOf('user').map((app) => ({
      app,
      path: `/user/${app}/secrets`,
      alias: `/user/${app}/secrets`,
      operations: ofUser(app),
      ...common('user', mona.uid, mona.uid)
    }))
  ]
  return { server, mona, acme, web, open, webUid, environmentUid, token, collections }
}

export type Stage = Awaited<ReturnType<typeof setStage>>

/** Stores a value for the first time, or another one. */
export async function putValue(
  { server, token }: Pick<Stage, 'server' | 'token'> & { server: TestServer },
  { path, extra }: Pick<Collection, 'path' | 'extra'>,
  name: string,
  value: string
): Promise<number> {
  const body = { ...(await server.seal(path, token, value)), ...extra }
  return (await server.request('PUT', `${path}/${name}`, { token, body })).statusCode
}
