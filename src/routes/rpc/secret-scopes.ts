import type { Static } from '@sinclair/typebox'
import type { Kysely } from 'kysely'
import { type CollectionFacts, isAllowed, requireCollectionAccess } from '../../auth/access.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import type { Collection } from '../../secrets/collection.ts'
import { findActingOrganization } from '../../store/acting.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import { findProjectHead } from '../../store/projects.ts'
import {
  findSecretFacts,
  listVisibleProjects,
  type SecretFacts,
  type SecretOwnerKey
} from '../../store/secret-facts.ts'
import { isServiceAccountOf, listServiceAccountUids } from '../../store/service-accounts.ts'
import type { Database } from '../../store/tables.ts'
import { invalid } from './decode.ts'
import { NO_ORGANIZATION } from './guard.ts'
import type { Call } from './method.ts'
import { Message, Uuid } from './schema.ts'

// Whose secrets Ona's API is asked for, and whether that is allowed.

export const SecretScope = Message(
  'SecretScope',
  {
    projectId: Uuid(),
    userId: Uuid({ description: "The caller's own id: nobody else's secrets are shown" }),
    organizationId: Uuid(),
    serviceAccountId: Uuid()
  },
  { oneofs: { scope: { members: ['projectId', 'userId', 'organizationId', 'serviceAccountId'] } } }
)
type SecretScope = Static<typeof SecretScope>

type Wish = 'read' | 'write'

/** What the owner that a scope names is, as far as the actor's organization knows it. */
async function findOwner(db: Kysely<Database>, call: Call, scope: SecretScope): Promise<CollectionFacts> {
  const { acting } = call
  const { userId, projectId, organizationId, serviceAccountId } = scope
  if (userId !== undefined) return { kind: 'user', ownerUid: userId, organization: undefined }
  if (projectId !== undefined) {
    const project = await findProjectHead(db, acting, projectId)
    if (project) call.secretsOf = project
    const projectRole = project?.project_role ?? null
    return { kind: 'project', ownerUid: projectId, organization: undefined, projectRole }
  }
  const organization = await findActingOrganization(db, acting)
  if (organization) call.organization = organization
  if (organizationId !== undefined) {
    if (!organization) throw new Forbidden(NO_ORGANIZATION)
    return { kind: 'organization', ownerUid: organizationId, organization }
  }
  if (serviceAccountId !== undefined) {
    const serviceAccountHere =
      !!organization && (await isServiceAccountOf(db, organization.organization_id, serviceAccountId))
    return { kind: 'service-account', ownerUid: serviceAccountId, organization, serviceAccountHere }
  }
  throw invalid('scope', 'set scope (projectId, userId, organizationId or serviceAccountId), or projectId')
}

/**
 * The collection that a scope names.
 *
 * @throws NotFound when there is none that the actor may know of
 * @throws Forbidden when it may know, but its token or its role does not allow this
 * @throws InvalidInput for a scope that names nothing
 */
export async function getCollection(
  db: Kysely<Database>,
  call: Call,
  scope: SecretScope,
  wish: Wish
): Promise<Collection> {
  const owner = await findOwner(db, call, scope)
  requireCollectionAccess(call.actor, wish, owner)
  const organization = owner.kind === 'project' ? call.secretsOf : owner.organization
  return {
    app: 'codespaces',
    kind: owner.kind,
    ownerUid: owner.ownerUid,
    streamUid: organization?.organization_uid ?? owner.ownerUid
  }
}

/**
 * A secret by its id, with its collection.
 *
 * @throws NotFound when there is none that the actor may know of
 * @throws Forbidden when it may know, but its token or its role does not allow this
 */
export async function getSecret(
  db: Kysely<Database>,
  call: Call,
  secretId: string,
  wish: Wish
): Promise<{ secret: SecretFacts; collection: Collection }> {
  const secret = await findSecretFacts(db, call.acting, secretId)
  if (!secret) throw new NotFound()
  const organization = secret.organization_id === null ? undefined : (secret as OrganizationFacts)
  if (organization && secret.kind !== 'user') call.organization = organization
  requireCollectionAccess(call.actor, wish, {
    kind: secret.kind as CollectionFacts['kind'],
    ownerUid: secret.owner_uid,
    organization,
    projectRole: secret.project_role,
    serviceAccountHere: secret.service_account_here
  })
  const streamUid = secret.kind === 'user' ? secret.owner_uid : organization!.organization_uid
  return {
    secret,
    collection: { app: 'codespaces', kind: secret.kind, ownerUid: secret.owner_uid, streamUid }
  }
}

/** The owners of all secrets that the actor may list: its own, and those of its organization that it may read. */
export async function listOwners(db: Kysely<Database>, call: Call): Promise<SecretOwnerKey[]> {
  const { actor, acting } = call
  const organization = await findActingOrganization(db, acting)
  const [projects, accounts] = await Promise.all([
    listVisibleProjects(db, acting),
    organization ? listServiceAccountUids(db, organization.organization_id) : []
  ])
  const candidates: CollectionFacts[] = [
    { kind: 'user', ownerUid: actor.accountUid, organization },
    ...(organization
      ? [{ kind: 'organization' as const, ownerUid: organization.organization_uid, organization }]
      : []),
    ...projects.map(({ uid, project_role }) => ({
      kind: 'project' as const,
      ownerUid: uid,
      organization,
      projectRole: project_role
    })),
    ...accounts.map((ownerUid) => ({
      kind: 'service-account' as const,
      ownerUid,
      organization,
      serviceAccountHere: true
    }))
  ]
  return candidates.filter((facts) => isAllowed(() => requireCollectionAccess(actor, 'read', facts)))
}
