import { hashToken, lastEight, makeToken } from '../../../src/auth/token.ts'
import type { Account } from '../../../src/store/accounts.ts'
import { insertToken } from '../../../src/store/tokens.ts'
import type { OnaServer } from './helper.ts'

/** Who acts for itself in an organization, and is no service account. */
export interface Machine {
  id: number
  uid: string
  token: string
}

async function giveToken(
  { db }: OnaServer,
  organization: Account,
  kind: 'environment' | 'runner',
  machine: { id: number; uid: string }
): Promise<Machine> {
  const token = makeToken(kind)
  await db.transaction().execute((tx) =>
    insertToken(tx, {
      hash: hashToken(token),
      kind,
      accountId: organization.id,
      organizationId: organization.id,
      ...(kind === 'environment'
        ? { environmentId: machine.id, purpose: 'deliver' as const, leaseEpoch: 0 }
        : { runnerId: machine.id }),
      lastEight: lastEight(token),
      lifetimeSeconds: 3600
    })
  )
  return { ...machine, token }
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
  return await giveToken(server, organization, 'environment', environment)
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
  return await giveToken(server, organization, 'runner', runner)
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
