import type { Kysely } from 'kysely'
import type { Config } from '../../config.ts'
import { createOrganization, createUser, removeOrganization, removeUser } from '../../directory/accounts.ts'
import { inTheNameOf } from '../../directory/change.ts'
import { removeMembership, setMembership } from '../../directory/memberships.ts'
import {
  createRepository,
  removeCollaborator,
  removeRepository,
  setCollaborator
} from '../../directory/repositories.ts'
import { issueToken, revokeAll } from '../../directory/tokens.ts'
import { NotFound } from '../../errors.ts'
import { type Account, findAccount } from '../../store/accounts.ts'
import type { Principal } from '../../store/audit.ts'
import { findMembershipRole, listMembers } from '../../store/organizations.ts'
import { findRepository, listAllRepositories, type RepositoryFacts } from '../../store/repositories.ts'
import type { Database } from '../../store/tables.ts'
import { fullName, type RepositoryName } from '../names.ts'
import { type Administration, type MemberSummary, ORGANIZATION_ROLES } from './administration.ts'
import { offlineApps } from './apps-offline.ts'

const OPERATOR: Principal = { kind: 'system', uid: null, tokenId: null, issuedByUid: null, requestId: null }
/** Sees as an account without any role: for what is found by its name alone. */
const NOBODY = 0

/** Administration on the database itself, by the same functions as the routes call. */
export function offlineAdministration(
  db: Kysely<Database>,
  config: Pick<Config, 'tokenDefaultDays' | 'tokenMaxDays'>
): Administration {
  const getUser = async (login: string): Promise<Account> => {
    const account = await findAccount(db, login)
    if (account?.kind === 'user') return account
    throw new NotFound(`There is no user ${login}.`)
  }

  const getOrganization = async (login: string): Promise<Account> => {
    const account = await findAccount(db, login)
    if (account?.kind === 'organization') return account
    throw new NotFound(`There is no organization ${login}.`)
  }

  const getRepository = async (repository: RepositoryName, actorId = NOBODY): Promise<RepositoryFacts> => {
    const facts = await findRepository(db, actorId, { owner: repository.owner, repo: repository.name })
    if (facts) return facts
    throw new NotFound(`There is no repository ${fullName(repository)}.`)
  }

  return {
    apps: offlineApps(db, OPERATOR),

    async createUser(user) {
      const { id, login, site_admin } = await createUser(db, OPERATOR, user)
      return { id, login, site_admin }
    },

    async deleteUser(login) {
      await removeUser(db, OPERATOR, (await getUser(login)).login)
    },

    async createOrganization(login, owner) {
      const organization = await createOrganization(db, OPERATOR, {
        login,
        admin: (await getUser(owner)).login
      })
      return { id: organization.id, login: organization.login }
    },

    async deleteOrganization(login) {
      await removeOrganization(db, OPERATOR, await getOrganization(login))
    },

    async listMembers(organization) {
      const { id: organizationId } = await getOrganization(organization)
      const all: MemberSummary[] = []
      for (const role of ORGANIZATION_ROLES) {
        const page = { role, limit: Number.MAX_SAFE_INTEGER, offset: 0 }
        const { members } = await listMembers(db, organizationId, page)
        all.push(...members.map(({ id, login }) => ({ id, login, role })))
      }
      return all
    },

    async setMember(organization, login, role) {
      const account = await getOrganization(organization)
      await setMembership(db, OPERATOR, account, (await getUser(login)).login, role)
    },

    async removeMember(organization, login) {
      const account = await getOrganization(organization)
      const user = await getUser(login)
      if (!(await findMembershipRole(db, account.id, user.id))) {
        throw new NotFound(`${user.login} is no member of ${account.login}.`)
      }
      await removeMembership(db, OPERATOR, account, user.login)
    },

    async createToken(login, { scopes, permissions, repositories, allRepositories, note, expiresInDays }) {
      const account = await getUser(login)
      const repositoryIds: number[] = []
      for (const repository of repositories ?? []) {
        const facts = await getRepository(repository, account.id)
        if (facts.private && !facts.role) throw new NotFound(`${login} cannot see ${fullName(repository)}.`)
        repositoryIds.push(facts.repository_id)
      }
      const issued = await issueToken(
        db,
        OPERATOR,
        account,
        {
          repositoryIds,
          ...(scopes && { scopes }),
          ...(permissions && { permissions }),
          ...(allRepositories !== undefined && { allRepositories }),
          ...(note !== undefined && { note }),
          ...(expiresInDays !== undefined && { expiresInDays })
        },
        { defaultDays: config.tokenDefaultDays, maxDays: config.tokenMaxDays }
      )
      return {
        id: issued.id,
        token: issued.token,
        kind: issued.kind,
        scopes: issued.scopes,
        permissions: issued.permissions,
        note: issued.note,
        token_last_eight: issued.lastEight,
        expires_at: issued.expiresAt && `${issued.expiresAt.toISOString().slice(0, 19)}Z`
      }
    },

    async revokeTokens(login) {
      const account = await getUser(login)
      await inTheNameOf(db, OPERATOR, (tx) => revokeAll(tx, OPERATOR, account))
    },

    async createRepository({ owner, name }, isPrivate) {
      const account = await findAccount(db, owner)
      if (!account) throw new NotFound(`There is no user or organization ${owner}.`)
      const id = await createRepository(db, OPERATOR, account, { name, private: isPrivate })
      return { id, full_name: `${account.login}/${name}`, private: isPrivate }
    },

    async deleteRepository(repository) {
      await removeRepository(db, OPERATOR, await getRepository(repository))
    },

    async listRepositories() {
      const repositories = await listAllRepositories(db)
      return repositories.map(({ id, owner, name, private: flag }) => ({
        id,
        full_name: `${owner}/${name}`,
        private: flag
      }))
    },

    async setCollaborator(repository, login, role) {
      const { login: stored } = await getUser(login)
      await setCollaborator(db, OPERATOR, await getRepository(repository), stored, role)
    },

    async removeCollaborator(repository, login) {
      const { login: stored } = await getUser(login)
      await removeCollaborator(db, OPERATOR, await getRepository(repository), stored)
    }
  }
}
