import type { Kysely } from 'kysely'
import { includesPermissions } from '../auth/scopes.ts'
import { hashToken, lastEight, makeToken } from '../auth/token.ts'
import { Forbidden, InvalidInput, NotFound } from '../errors.ts'
import { insertAuditEvents, type Principal } from '../store/audit.ts'
import {
  findGivenRepositories,
  type Installation,
  lockInstallation,
  type RepositoryNames
} from '../store/installations.ts'
import type { RepositoryFacts } from '../store/repositories.ts'
import type { Database, Permissions } from '../store/tables.ts'
import { deleteExpiredTokens, deleteToken, insertToken } from '../store/tokens.ts'
import { inTheNameOf } from './change.ts'
import { allFound, askable } from './installations.ts'
import { describePermissions } from './permissions.ts'
import { forgetTokens } from './tokens.ts'

const LIFETIME_SECONDS = 3600
/** More than are minted at a time, so that those that ended never pile up. */
const CLEARED_AT_A_TIME = 100

/** What a token is narrowed to; undefined: as far as the installation goes, whatever that is at each use. */
export interface Narrowing {
  repositories?: RepositoryNames | undefined
  permissions?: Readonly<Record<string, string>> | undefined
}

export interface MintedToken {
  /** shown once, stored nowhere */
  token: string
  expiresAt: Date
  permissions: Permissions
  /** those that it was narrowed to */
  repositories: RepositoryFacts[] | undefined
  allRepositories: boolean
}

/**
 * Mints a token for an installation, for an hour.
 *
 * @throws InvalidInput for more than the installation has
 * @throws Forbidden while it is suspended, NotFound when it is gone
 */
export async function mintToken(
  db: Kysely<Database>,
  principal: Principal,
  installation: Installation,
  { repositories: names, permissions }: Narrowing
): Promise<MintedToken> {
  const token = makeToken('installation')
  const { installation_id, account_id, account_uid, slug } = installation
  return await inTheNameOf(db, principal, async (tx) => {
    const locked = await lockInstallation(tx, installation_id, 'use')
    if (!locked) throw new NotFound()
    if (locked.suspended_by) throw new Forbidden('This installation has been suspended')
    const granted = narrowedPermissions(locked.permissions, permissions)
    const given = names && (await findGivenRepositories(tx, installation_id, askable(names)))
    const repositories = names && requireGiven(names, given!)
    await deleteExpiredTokens(tx, { installationId: installation_id }, CLEARED_AT_A_TIME)
    const { id, expires_at } = await insertToken(tx, {
      hash: hashToken(token),
      kind: 'installation',
      accountId: account_id,
      installationId: installation_id,
      permissions: granted,
      allRepositories: repositories === undefined,
      repositoryIds: repositories?.map(({ repository_id }) => repository_id) ?? [],
      lastEight: lastEight(token),
      lifetimeSeconds: LIFETIME_SECONDS
    })
    await insertAuditEvents(tx, [
      tokenEvent(principal, account_uid, 'token.create', installation.installation_uid, `${slug}[bot]#${id}`)
    ])
    return {
      token,
      expiresAt: expires_at!,
      permissions: granted,
      repositories,
      allRepositories: locked.all_repositories && repositories === undefined
    }
  })
}

function narrowedPermissions(
  granted: Permissions,
  asked: Readonly<Record<string, string>> | undefined
): Permissions {
  // As on GitHub: an empty object asks for nothing less. Some clients send it always.
  if (!asked || Object.keys(asked).length === 0) return granted
  const levels = Object.values(asked).every((level) => level === 'read' || level === 'write')
  if (levels && includesPermissions(granted, asked as Permissions)) {
    return { ...(asked as Permissions), metadata: 'read' }
  }
  throw new InvalidInput('The permissions requested are not granted to this installation.', [
    {
      field: 'permissions',
      code: 'invalid',
      message: `permissions may be at most those of the installation: ${describePermissions(granted)}`
    }
  ])
}

function requireGiven(names: RepositoryNames, given: RepositoryFacts[]): RepositoryFacts[] {
  const found = given.map(({ repository_id, name }) => ({ id: repository_id, name_key: name.toLowerCase() }))
  if (allFound(names, found)) return given
  throw new InvalidInput(
    'There is at least one repository that does not exist or is not accessible to the parent installation.',
    [
      {
        field: names.names ? 'repositories' : 'repository_ids',
        code: 'invalid',
        message:
          'repositories are named without their owner, and repository_ids are theirs; each must be of the installation'
      }
    ]
  )
}

/** Revokes the very token that asks for it; gives its hash, as caches hold it. */
export async function revokeOwnToken(
  db: Kysely<Database>,
  principal: Principal & { tokenId: number },
  { account_uid, installation_uid, slug }: Installation
): Promise<string[]> {
  const { tokenId } = principal
  return await db.transaction().execute(async (tx) => {
    const hash = await deleteToken(tx, tokenId)
    // Somebody else was faster.
    if (!hash) return []
    await insertAuditEvents(tx, [
      tokenEvent(principal, account_uid, 'token.revoke', installation_uid, `${slug}[bot]#${tokenId}`)
    ])
    return await forgetTokens(tx, [hash])
  })
}

function tokenEvent(
  principal: Principal,
  streamUid: string,
  action: string,
  subjectUid: string,
  name: string
) {
  return { streamUid, principal, action, subjectUid, name }
}
