import { hashToken, lastEight, makeToken } from '../../../src/auth/token.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { insertEnvironmentToken } from '../../../src/store/environment-tokens.ts'
import { insertToken } from '../../../src/store/tokens.ts'
import type { OnaServer } from './helper.ts'

/** Who acts for itself in an organization, and is no service account. */
export interface Machine {
  id: number
  uid: string
  token: string
}

/** One that delivers. */
export async function tokenOfEnvironment(
  { db }: Pick<OnaServer, 'db'>,
  organizationId: number,
  environmentId: number
): Promise<string> {
  const token = makeToken('environment')
  await insertEnvironmentToken(db, {
    hash: hashToken(token),
    environmentId,
    organizationId,
    purpose: 'deliver',
    leaseEpoch: 0,
    lastEight: lastEight(token),
    issuedByUid: null,
    lifetimeSeconds: 3600,
    supersededSeconds: 600
  })
  return token
}

export async function makeEnvironment(server: OnaServer, organization: Account): Promise<Machine> {
  const environment = await server.db
    .insertInto('environments')
    .values({
      organization_id: organization.id,
      project_id: null,
      creator_kind: 'user',
      creator_uid: server.owner.account.uid
    })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  return { ...environment, token: await tokenOfEnvironment(server, organization.id, environment.id) }
}

export async function makeRunner(server: OnaServer, organization: Account): Promise<Machine> {
  const runner = await server.db
    .insertInto('runners')
    .values({
      organization_id: organization.id,
      name: 'far away',
      kind: 'RUNNER_KIND_REMOTE',
      provider: 'RUNNER_PROVIDER_LINUX_HOST',
      desired_phase: 'RUNNER_PHASE_ACTIVE',
      creator_kind: 'user'
    })
    .returning(['id', 'uid'])
    .executeTakeFirstOrThrow()
  const token = makeToken('runner')
  await server.db.transaction().execute((tx) =>
    insertToken(tx, {
      hash: hashToken(token),
      kind: 'runner',
      accountId: organization.id,
      organizationId: organization.id,
      runnerId: runner.id,
      lastEight: lastEight(token),
      lifetimeSeconds: 3600
    })
  )
  return { ...runner, token }
}

/** A service account, and a token for it that an owner made. */
export async function makeServiceAccount(
  { call }: OnaServer,
  ownerToken: string,
  name = 'ci'
): Promise<{ uid: string; token: string }> {
  const created = await call('ServiceAccountService/CreateServiceAccount', ownerToken, {
    name,
    validUntil: '2099-01-01T00:00:00Z'
  })
  const serviceAccountId = created.body.serviceAccount.id
  const access = await call('ServiceAccountService/CreateServiceAccountAccessToken', ownerToken, {
    serviceAccountId
  })
  return { uid: serviceAccountId, token: access.body.token }
}
