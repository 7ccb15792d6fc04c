import type { Kysely } from 'kysely'
import { InvalidInput, NotFound } from '../errors.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import {
  type DeploymentEnvironment,
  deleteEnvironment,
  lockDeploymentEnvironment,
  upsertEnvironment
} from '../store/deployment-environments.ts'
import { lockRepository, type RepositoryFacts } from '../store/repositories.ts'
import type { Database } from '../store/tables.ts'
import { inTheNameOf } from './change.ts'
import { removeSecrets } from './owned-secrets.ts'

const MAX_NAME_LENGTH = 255

/** Any text that a path can carry and PostgreSQL can hold; slashes and spaces are usual. Dots alone lead elsewhere. */
function requireName(name: string): void {
  const written = name.trim() === name && !/^\.{0,2}$/.test(name) && name.length <= MAX_NAME_LENGTH
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (written && !/[\u0000-\u001f\u007f]/.test(name)) return
  throw new InvalidInput('Validation Failed', [
    {
      field: 'environment_name',
      code: 'invalid',
      message:
        `environment_name is 1 to ${MAX_NAME_LENGTH} characters, without control characters, does not begin or ` +
        'end with a space, and is neither "." nor ".."'
    }
  ])
}

/** Makes a deployment environment, or keeps the one that is there. */
export async function putEnvironment(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts,
  name: string
): Promise<void> {
  requireName(name)
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockRepository(tx, facts.repository_uid))) throw new NotFound()
    const stored = await upsertEnvironment(tx, facts.repository_id, name)
    const action = stored.created ? 'environment.create' : 'environment.update'
    await insertAuditEvents(tx, [environmentEvent(principal, facts, action, stored.uid, stored.name)])
  })
}

/** Removes a deployment environment with its secrets. */
export async function removeEnvironment(
  db: Kysely<Database>,
  principal: Principal,
  facts: RepositoryFacts,
  { environment_uid, environment_name }: DeploymentEnvironment
): Promise<void> {
  await inTheNameOf(db, principal, async (tx) => {
    if (!(await lockDeploymentEnvironment(tx, environment_uid))) throw new NotFound()
    const { owner_uid, repository_uid } = facts
    await removeSecrets(tx, principal, owner_uid, 'deployment-environment', environment_uid, repository_uid)
    await deleteEnvironment(tx, environment_uid)
    await insertAuditEvents(tx, [
      environmentEvent(principal, facts, 'environment.remove', environment_uid, environment_name)
    ])
  })
}

function environmentEvent(
  principal: Principal,
  facts: RepositoryFacts,
  action: string,
  uid: string,
  name: string
) {
  return {
    streamUid: facts.owner_uid,
    principal,
    action,
    collection: `repository/${facts.repository_uid}`,
    subjectUid: uid,
    name
  }
}
