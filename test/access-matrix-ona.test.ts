import { sql } from 'kysely'
import t from 'tap'
import { ACCESS, FULL_SCOPES } from '../src/auth/access.ts'
import { SCOPES } from '../src/auth/scopes.ts'
import { hashToken, lastEight, makeToken } from '../src/auth/token.ts'
import { pathOf } from '../src/routes/rpc/method.ts'
import { type OnaDependencies, onaServices } from '../src/routes/rpc/ona.ts'
import type { Account } from '../src/store/accounts.ts'
import { insertToken } from '../src/store/tokens.ts'
import { installTestApp, mint, registerTestApp } from './github-app.ts'
import { type OnaServer, startOnaServer } from './routes/rpc/helper.ts'
import { makeRunner, makeServiceAccount, tokenOfEnvironment } from './routes/rpc/machines.ts'
import { record } from './routes/rpc/watching.ts'

// Who may do what on Ona's API: method × target × who asks with which token, cell by cell. The letters are written
// down from what the documentation promises, not computed.

t.setTimeout(600_000)

/**
 * `+` done · `0` to `9` done, and so many of the things that the test knows are shown · `f` done, and each item failed
 * `-` not_found · `d` permission_denied · `r` the same, since the token only reads · `u` unauthenticated
 * `p` failed_precondition: the last owner stays · `v` invalid_argument: a class of another organization
 * `l` aborted: the lease is none of the runner's
 */
const CODES: Readonly<Record<string, string>> = {
  not_found: '-',
  permission_denied: 'd',
  unauthenticated: 'u',
  failed_precondition: 'p',
  invalid_argument: 'v',
  aborted: 'l'
}

/** Who asks, with a token that may all that they may. The project that has roles is `roled`. */
const PEOPLE = {
  O: 'owner of acme',
  M: 'member, without a role on roled',
  A: 'member, admin of roled by a group',
  E: 'member, editor of roled by a group',
  U: 'member, user of roled by a group',
  s: 'service account, without a role on roled',
  S: 'service account, editor of roled by a group',
  X: 'stranger: owner of globex',
  N: 'user without any organization',
  T: 'site administrator without any organization',
  e: 'environment of acme',
  k: 'runner of acme',
  i: 'installation of a GitHub App on acme, with all permissions',
  a: 'no token',
  w: 'a token that is none'
} as const

/** The owner of acme with less: scopes, or permissions; all of them act in acme but the last. */
const LIMITS = {
  0: { scopes: [] },
  r: { scopes: ['read:org'] },
  a: { scopes: ['admin:org'] },
  c: { scopes: ['codespace'] },
  k: { scopes: ['codespace:secrets'] },
  R: 'read-only',
  n: { permissions: {} },
  u: { permissions: { codespaces_user_secrets: 'read' } },
  U: { permissions: { codespaces_user_secrets: 'write' } },
  o: { permissions: { organization_codespaces_secrets: 'read' } },
  O: { permissions: { organization_codespaces_secrets: 'write' } },
  p: { permissions: { organization_administration: 'read' } },
  P: { permissions: { organization_administration: 'write' } },
  Z: 'for initech, which the owner owns, too'
} as const satisfies Record<
  string,
  string | { scopes: readonly string[] } | { permissions: Readonly<Record<string, 'read' | 'write'>> }
>

const HEADER = 'OMAEUsSXNTekiaw 0rackRnuUoOpPZ'
const COLUMNS = [
  ...Object.keys(PEOPLE).map((letter) => `who ${letter}`),
  ...[...HEADER.split(' ')[1]!].map((letter) => `limit ${letter}`)
]

// Targets: `own` is of whoever asks. `everyones` is a project on which the group everyone has the role user, `bare` one
// without roles. `bot` is the service account `s`. Without a target, the method is about no thing.
const TABLE = `
SecretService                             OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateSecret        own                 +++++dd+++ddduu ddd++rdd+dddd+
  CreateSecret        ursula              ------------duu -----r--------
  CreateSecret        acme                +dddddd-ddddduu dd+ddrdddd+dd-
  CreateSecret        globex              -------+dd--duu -----r--------
  CreateSecret        roled               +-++d-+-----duu dd+ddrdddddd+-
  CreateSecret        everyones           +dddddd-----duu dd+ddrdddddd+-
  CreateSecret        bare                +-----------duu dd+ddrdddddd+-
  CreateSecret        globex-project      -------+----duu -----r--------
  CreateSecret        bot                 +dddd+d---ddduu dd+ddrdddddd+-
  CreateSecret        globex-bot          -------+----duu -----r--------
  ListSecrets         own                 +++++dd+++ddduu ddd+++d++dddd+
  ListSecrets         ursula              ------------duu --------------
  ListSecrets         acme                +dddddd-ddddduu dd+dd+ddd++dd-
  ListSecrets         globex              -------+dd--duu --------------
  ListSecrets         roled               +-+++-+-----duu d++dd+ddddd++-
  ListSecrets         everyones           +++++++-----duu d++dd+ddddd++-
  ListSecrets         bare                +-----------duu d++dd+ddddd++-
  ListSecrets         globex-project      -------+----duu --------------
  ListSecrets         bot                 +dddd+d---ddduu d++dd+ddddd++-
  ListSecrets         globex-bot          -------+----duu --------------
  ListSecrets         known               612222240000duu 04511601111441
  GetSecretValue      received            dddddddddd+dduu dddddddddddddd
  GetSecretValue      acme                dddddddddd-dduu dddddddddddddd
  GetSecretValue      globex              dddddddddd-dduu dddddddddddddd
  UpdateSecretValue   olga                +-----------duu ddd++rdd+dddd+
  UpdateSecretValue   ursula              ------------duu -----r--------
  UpdateSecretValue   acme                +dddddd---ddduu dd+ddrdddd+dd-
  UpdateSecretValue   globex              -------+----duu -----r--------
  UpdateSecretValue   roled               +-++d-+-----duu dd+ddrdddddd+-
  UpdateSecretValue   everyones           +dddddd-----duu dd+ddrdddddd+-
  UpdateSecretValue   globex-project      -------+----duu -----r--------
  UpdateSecretValue   bot                 +dddd+d---ddduu dd+ddrdddddd+-
  UpdateSecretValue   globex-bot          -------+----duu -----r--------
  DeleteSecret        olga                +-----------duu ddd++rdd+dddd+
  DeleteSecret        ursula              ------------duu -----r--------
  DeleteSecret        acme                +dddddd---ddduu dd+ddrdddd+dd-
  DeleteSecret        globex              -------+----duu -----r--------
  DeleteSecret        roled               +-++d-+-----duu dd+ddrdddddd+-
  DeleteSecret        everyones           +dddddd-----duu dd+ddrdddddd+-
  DeleteSecret        globex-project      -------+----duu -----r--------
  DeleteSecret        bot                 +dddd+d---ddduu dd+ddrdddddd+-
  DeleteSecret        globex-bot          -------+----duu -----r--------

ProjectService                            OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateProject       -                   +dddddd+ddddduu dd+ddrdddddd++
  CreateProjects      -                   +dddddd+ddddduu dd+ddrdddddd++
  CreateProjectFromEnvironment acme       +dddddd-ddddduu dd+ddrdddddd+-
  CreateProjectFromEnvironment globex     -dddddd+ddddduu dd-ddrdddddd--
  GetProject          roled               +-+++-+---ddduu d++dd+ddddd++-
  GetProject          everyones           +++++++---ddduu d++dd+ddddd++-
  GetProject          bare                +---------ddduu d++dd+ddddd++-
  GetProject          globex-project      -------+--ddduu d--dd-ddddd---
  ListProjects        known               31222121ddddduu d33dd3ddddd330
  UpdateProject       roled               +-++d-+---ddduu dd+ddrdddddd+-
  UpdateProject       everyones           +dddddd---ddduu dd+ddrdddddd+-
  UpdateProject       bare                +---------ddduu dd+ddrdddddd+-
  UpdateProject       globex-project      -------+--ddduu dd-ddrdddddd--
  DeleteProject       roled               +-+dd-d---ddduu dd+ddrdddddd+-
  DeleteProject       globex-project      -------+--ddduu dd-ddrdddddd--
  UpdateProjects      roled               +f++ff+fddddduu dd+ddrdddddd+f
  UpdateProjects      globex-project      fffffff+ddddduu ddfddrddddddff
  DeleteProjects      roled               +f+fffffddddduu dd+ddrdddddd+f
  DeleteProjects      globex-project      fffffff+ddddduu ddfddrddddddff
  ListProjectEnvironmentClasses roled     +-+++-+---ddduu d++dd+ddddd++-
  ListProjectEnvironmentClasses everyones +++++++---ddduu d++dd+ddddd++-
  ListProjectEnvironmentClasses globex-project -------+--ddduu d--dd-ddddd---
  UpdateProjectEnvironmentClasses roled   +-++d-+---ddduu dd+ddrdddddd+-
  UpdateProjectEnvironmentClasses globex-project -------+--ddduu dd-ddrdddddd--
  ListProjectPolicies roled               +-+++-+---ddduu d++dd+ddddd++-
  ListProjectPolicies everyones           +++++++---ddduu d++dd+ddddd++-
  ListProjectPolicies globex-project      -------+--ddduu d--dd-ddddd---
  CreateProjectPolicy roled               +-+dd-d---ddduu dd+ddrdddddd+-
  CreateProjectPolicy roled,globex-group  ---dd-d---ddduu dd-ddrdddddd--
  CreateProjectPolicy globex-project      -------+--ddduu dd-ddrdddddd--
  UpdateProjectPolicy roled               +-+dd-d---ddduu dd+ddrdddddd+-
  UpdateProjectPolicy roled,globex-group  ---dd-d---ddduu dd-ddrdddddd--
  UpdateProjectPolicy globex-project      -------+--ddduu dd-ddrdddddd--
  DeleteProjectPolicy roled               +-+dd-d---ddduu dd+ddrdddddd+-
  DeleteProjectPolicy roled,globex-group  ---dd-d---ddduu dd-ddrdddddd--
  DeleteProjectPolicy globex-project      -------+--ddduu dd-ddrdddddd--

IdentityService                           OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  GetAuthenticatedIdentity -              ++++++++++++duu ++++++++++++++
  ExchangeToken       acme                +++++++++++++++ ++++++++++++++
  ExchangeToken       wrong               uuuuuuuuuuuuuuu uuuuuuuuuuuuuu

UserService                               OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  GetAuthenticatedUser -                  +++++dd+++ddduu ++++++++++++++
  GetUser             own                 +++++--+++--duu ++++++++++++++
  GetUser             ursula              +++++++---ddduu d++dd+ddddd++-
  GetUser             sam                 -------+--ddduu d--dd-ddddd---
  CreatePersonalAccessToken own           +++++dd+++ddduu dddddrddddddd+
  CreatePersonalAccessToken ursula        ddddddddddddduu dddddrdddddddd
  GetPersonalAccessToken olga             +----dd---ddduu ddddd+ddddddd+
  GetPersonalAccessToken ursula           -----dd---ddduu ddddd-ddddddd-
  ListPersonalAccessTokens known          10000dd100ddduu ddddd1ddddddd1
  DeletePersonalAccessToken olga          +----dd---ddduu dddddrddddddd+
  DeletePersonalAccessToken ursula        -----dd---ddduu dddddrddddddd-

OrganizationService                       OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateOrganization  -                   +++++dd+++ddduu dd+ddrdddddd++
  GetOrganization     acme                +++++++-ddddduu d++dd+ddddd++-
  GetOrganization     globex              -------+ddddduu d--dd-ddddd---
  ListMembers         acme,known          6666666-ddddduu d66dd6ddddd66-
  ListMembers         globex,known        -------1ddddduu d--dd-ddddd---
  UpdateOrganization  acme                +dddddd-ddddduu dd+ddrdddddd+-
  UpdateOrganization  globex              -dddddd+ddddduu dd-ddrdddddd--
  SetRole             acme                +dddddd-ddddduu dd+ddrdddddd+-
  SetRole             globex              -dddddd+ddddduu dd-ddrdddddd--
  SetRole             acme,sam            -dddddd-ddddduu dd-ddrdddddd--
  LeaveOrganization   own                 p++++ddpddddduu ddpddrddddddpp
  LeaveOrganization   acme                +dddddd-ddddduu dd+ddrdddddd+-
  LeaveOrganization   sam                 -ddddddpddddduu dd-ddrdddddd--
  DeleteOrganization  acme                +dddddd-ddddduu dd+ddrdddddd+-
  DeleteOrganization  globex              -dddddd+ddddduu dd-ddrdddddd--

ServiceAccountService                     OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateServiceAccount -                  +dddddd+ddddduu dd+ddrdddddd++
  GetServiceAccount   acme                +++++++-ddddduu d++dd+ddddd++-
  GetServiceAccount   globex              -------+ddddduu d--dd-ddddd---
  ListServiceAccounts known               22222221ddddduu d22dd2ddddd220
  UpdateServiceAccount acme               +dddddd-ddddduu dd+ddrdddddd+-
  UpdateServiceAccount globex             -dddddd+ddddduu dd-ddrdddddd--
  DeleteServiceAccount acme               +dddddd-ddddduu dd+ddrdddddd+-
  DeleteServiceAccount globex             -dddddd+ddddduu dd-ddrdddddd--
  CreateServiceAccountAccessToken acme    +dddddd-ddddduu dd+ddrdddddd+-
  CreateServiceAccountAccessToken globex  -dddddd+ddddduu dd-ddrdddddd--
  CreateServiceAccountToken -             ddddd++dddddduu dddddrdddddddd
  ListServiceAccountTokens known          ddddd10dddddduu dddddddddddddd
  GetServiceAccountToken bot              ddddd+-dddddduu dddddddddddddd
  DeleteServiceAccountToken bot           ddddd+-dddddduu dddddrdddddddd

GroupService                              OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateGroup         -                   +dddddd+ddddduu dd+ddrdddddd++
  CreateGroup         globex              -dddddd+ddddduu dd-ddrdddddd--
  GetGroup            acme                +++++++-ddddduu d++dd+ddddd++-
  GetGroup            globex              -------+ddddduu d--dd-ddddd---
  ListGroups          known               33333331ddddduu d33dd3ddddd330
  UpdateGroup         acme                +dddddd-ddddduu dd+ddrdddddd+-
  UpdateGroup         globex              -dddddd+ddddduu dd-ddrdddddd--
  DeleteGroup         acme                +dddddd-ddddduu dd+ddrdddddd+-
  DeleteGroup         globex              -dddddd+ddddduu dd-ddrdddddd--
  CreateMembership    acme                +dddddd-ddddduu dd+ddrdddddd+-
  CreateMembership    globex              -dddddd+ddddduu dd-ddrdddddd--
  CreateMembership    acme,sam            -dddddd-ddddduu dd-ddrdddddd--
  GetMembership       acme                +++++++-ddddduu d++dd+ddddd++-
  GetMembership       globex              -------+ddddduu d--dd-ddddd---
  ListMemberships     acme                +++++++-ddddduu d++dd+ddddd++-
  ListMemberships     globex              -------+ddddduu d--dd-ddddd---
  DeleteMembership    acme                +dddddd-ddddduu dd+ddrdddddd+-
  DeleteMembership    globex              -dddddd+ddddduu dd-ddrdddddd--

EnvironmentService                        OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateEnvironmentFromProject roled      +-+++-+-ddddduu ddd+drddddddd-
  CreateEnvironmentFromProject everyones  +++++++-ddddduu ddd+drddddddd-
  CreateEnvironmentFromProject bare       +-------ddddduu ddd+drddddddd-
  CreateEnvironmentFromProject globex-project -------+ddddduu ddd-drddddddd-
  CreateEnvironment   acme                +++++++vddddduu ddd+drdddddddv
  GetEnvironment      acme                +---------+dduu ddd+d+ddddddd-
  GetEnvironment      globex              -------+---dduu ddd-d-ddddddd-
  ListEnvironments    -                   ++++++++ddddduu ddd+d+ddddddd+
  StartEnvironment    acme                +---------ddduu ddd+drddddddd-
  StartEnvironment    globex              -------+--ddduu ddd-drddddddd-
  StopEnvironment     acme                +---------ddduu ddd+drddddddd-
  StopEnvironment     globex              -------+--ddduu ddd-drddddddd-
  UpdateEnvironment   acme                +---------ddduu ddd+drddddddd-
  UpdateEnvironment   globex              -------+--ddduu ddd-drddddddd-
  DeleteEnvironment   acme                +---------ddduu ddd+drddddddd-
  DeleteEnvironment   globex              -------+--ddduu ddd-drddddddd-
  MarkEnvironmentActive acme              +---------+dduu ddd+drddddddd-
  MarkEnvironmentActive globex            -------+---dduu ddd-drddddddd-
  CreateEnvironmentAccessToken acme       +---------ddduu ddd+drddddddd-
  CreateEnvironmentAccessToken globex     -------+--ddduu ddd-drddddddd-
  CreateEnvironmentLogsToken acme         +---------ddduu ddd+drddddddd-
  CreateEnvironmentLogsToken globex       -------+--ddduu ddd-drddddddd-
  ArchiveEnvironment  acme                +---------ddduu ddd+drddddddd-
  ArchiveEnvironment  globex              -------+--ddduu ddd-drddddddd-
  UnarchiveEnvironment acme               +---------ddduu ddd+drddddddd-
  UnarchiveEnvironment globex             -------+--ddduu ddd-drddddddd-
  ListEnvironmentClasses known            11111111ddddduu d11dd1ddddd110

coffer.v1.ResolutionService               OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  ExplainSecrets      roled               +-+++-+-ddddduu ddd+d+ddddddd-
  ExplainSecrets      globex-project      -------+ddddduu ddd-d-ddddddd-
  ExplainSecrets      acme                +---------ddduu ddd+d+ddddddd-
  ExplainSecrets      globex              -------+--ddduu ddd-d-ddddddd-

coffer.v1.RunnerInterfaceService          OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  ClaimEnvironments   -                   ddddddddddd+duu dddddrdddddddd
  RenewLeases         acme                ddddddddddd+duu dddddrdddddddd
  ReleaseLeases       acme                ddddddddddd+duu dddddrdddddddd
  ReportStatus        acme                dddddddddddlduu dddddrdddddddd
  FindEnvironments    acme                ddddddddddd+duu dddddddddddddd
  RenewToken          -                   ddddddddddd+duu dddddrdddddddd

RunnerService                             OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateRunner        -                   +dddddd+ddddduu dd+ddrdddddd++
  GetRunner           acme                +++++++-ddddduu d++dd+ddddd++-
  GetRunner           globex              -------+ddddduu d--dd-ddddd---
  ListRunners         known               11111111ddddduu d11dd1ddddd110
  UpdateRunner        acme                +dddddd-ddddduu dd+ddrdddddd+-
  UpdateRunner        globex              -dddddd+ddddduu dd-ddrdddddd--
  DeleteRunner        acme                +dddddd-ddddduu dd+ddrdddddd+-
  DeleteRunner        globex              -dddddd+ddddduu dd-ddrdddddd--
  CreateRunnerToken   acme                +dddddd-ddddduu dd+ddrdddddd+-
  CreateRunnerToken   globex              -dddddd+ddddduu dd-ddrdddddd--

RunnerConfigurationService                OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  CreateEnvironmentClass acme             +dddddd-ddddduu dd+ddrdddddd+-
  CreateEnvironmentClass globex           -dddddd+ddddduu dd-ddrdddddd--
  GetEnvironmentClass acme                +++++++-ddddduu d++dd+ddddd++-
  GetEnvironmentClass globex              -------+ddddduu d--dd-ddddd---
  ListEnvironmentClasses known            11111111ddddduu d11dd1ddddd110
  UpdateEnvironmentClass acme             +dddddd-ddddduu dd+ddrdddddd+-
  UpdateEnvironmentClass globex           -dddddd+ddddduu dd-ddrdddddd--

EventService                              OMAEUsSXNTekiaw 0rackRnuUoOpPZ
  WatchEvents         -                   ++++++++ddddduu d++dd+ddddd+++
  WatchEvents         acme                +---------+dduu d++dd+ddddd++-
  WatchEvents         globex              -------+---dduu d--dd-ddddd---
  ListAuditLogs       -                   +dddddd+ddddduu dd+dd+ddddd+++
  GetAuditLog         acme                +dddddd-ddddduu dd+dd+ddddd++-
  GetAuditLog         globex              -dddddd+ddddduu dd-dd-ddddd---
`

interface Row {
  method: string
  target: string
  /** column → letter */
  cells: Map<string, string>
}

function readTable(text: string): Row[] {
  const rows: Row[] = []
  let service = ''
  for (const line of text.split('\n').filter((line) => line !== '')) {
    const [first = '', second = '', ...letters] = line.trim().split(/ +/)
    if (!line.startsWith(' ')) {
      if (`${second} ${letters}` !== HEADER) throw new Error(`header ${line}`)
      service = first
      continue
    }
    const cells = letters.join('')
    if (letters.length !== 2 || letters[0]!.length !== 15 || cells.length !== COLUMNS.length) {
      throw new Error(`row ${line}`)
    }
    rows.push({
      method: `${service}/${first}`,
      target: second,
      cells: new Map(COLUMNS.map((column, at) => [column, cells[at]!]))
    })
  }
  return rows
}

const FAR = '2099-01-01T00:00:00Z'
const INITIALIZER = { specs: [{ git: { remoteUri: 'https://git.example/web.git' } }] }

/** An organization with one of everything. */
interface Organization {
  account: Account
  /** the one who owns it */
  owner: { account: Account; token: string }
  runner: string
  environmentClass: string
  /** of the servers themselves */
  hostedClass: string
  environment: string
  group: string
  membership: string
  bot: { uid: string; token: string }
  auditEntry: string
}

interface World {
  server: OnaServer
  acme: Organization
  globex: Organization
  /** target → uid */
  projects: Record<string, string>
  /** of acme, with these roles on `roled` */
  groups: Record<'admins' | 'editors' | 'users', string>
  ursula: { account: Account; token: string }
  people: Record<string, Account>
  /** who asks → uid */
  selves: Map<string, string>
  /** who asks → token; undefined: none */
  tokens: Map<string, string | undefined>
  /** target → the secret that is listed */
  secrets: Record<string, string>
  pats: Record<'olga' | 'ursula', string>
  botToken: string
  /** what lists count */
  known: Set<string>
  url: string
}

// biome-ignore lint/suspicious/noExplicitAny: JSON of all methods
type Body = any

let made = 0
const next = (prefix: string) => `${prefix}_${++made}`

/** What has to work, or there is nothing to test. */
async function must(server: OnaServer, method: string, token: string, message: object): Promise<Body> {
  const { status, body } = await server.call(method, token, message)
  if (status !== 200) throw new Error(`${method}: ${status} ${body.message}`)
  return body
}

async function makeOrganization(
  server: OnaServer,
  account: Account,
  owner: Organization['owner']
): Promise<Organization> {
  const { token } = owner
  const subject = { id: owner.account.uid, principal: 'PRINCIPAL_USER' }
  const groupId = (await must(server, 'GroupService/CreateGroup', token, { name: 'people' })).group.id
  const membership = await must(server, 'GroupService/CreateMembership', token, { groupId, subject })
  const runner = await must(server, 'RunnerService/CreateRunner', token, {
    name: 'far',
    provider: 'RUNNER_PROVIDER_LINUX_HOST'
  })
  const runnerId = runner.runner.runnerId
  const { id: environmentClass } = await must(
    server,
    'RunnerConfigurationService/CreateEnvironmentClass',
    token,
    { runnerId, displayName: 'small', description: 'small ones' }
  )
  const { uid: environment } = await server.db
    .insertInto('environments')
    .values({ organization_id: account.id, creator_kind: 'user', creator_uid: owner.account.uid })
    .returning('uid')
    .executeTakeFirstOrThrow()
  await record(server.db, account.uid, 'runner.update', runnerId)
  const { environmentClasses } = await must(server, 'EnvironmentService/ListEnvironmentClasses', token, {
    filter: { canCreateEnvironments: true }
  })
  const { entries } = await must(server, 'EventService/ListAuditLogs', token, {})
  return {
    account,
    owner,
    runner: runnerId,
    environmentClass,
    hostedClass: environmentClasses[0].id,
    environment,
    group: groupId,
    membership: membership.member.id,
    bot: await makeServiceAccount(server, token),
    auditEntry: entries[0].id
  }
}

async function storeToken(
  { db }: OnaServer,
  values: Pick<Parameters<typeof insertToken>[1], 'kind' | 'accountId'> &
    Partial<Parameters<typeof insertToken>[1]>
): Promise<string> {
  const token = makeToken(values.kind)
  await db.transaction().execute((tx) =>
    insertToken(tx, {
      hash: hashToken(token),
      lastEight: lastEight(token),
      lifetimeSeconds: 3600,
      ...values
    })
  )
  return token
}

/** A project with the roles that its name stands for. */
async function makeProject(world: Pick<World, 'server' | 'acme' | 'globex' | 'groups'>, target: string) {
  const { server, acme, globex, groups } = world
  const { token } = target === 'globex-project' ? globex.owner : acme.owner
  const message = { name: target, initializer: INITIALIZER }
  const projectId: string = (await must(server, 'ProjectService/CreateProject', token, message)).project.id
  const policies: Record<string, [group: string, role: string][]> = {
    roled: [
      [groups.admins, 'ADMIN'],
      [groups.editors, 'EDITOR'],
      [groups.users, 'USER']
    ],
    everyones: [[await everyoneOf(server, token), 'USER']]
  }
  for (const [groupId, role] of policies[target] ?? []) {
    await must(server, 'ProjectService/CreateProjectPolicy', token, {
      projectId,
      groupId,
      role: `PROJECT_ROLE_${role}`
    })
  }
  return projectId
}

async function everyoneOf(server: OnaServer, token: string): Promise<string> {
  const { groups } = await must(server, 'GroupService/ListGroups', token, { filter: { systemManaged: true } })
  return groups[0].id
}

/** Whose secrets a target stands for. */
function scopeOf({ acme, globex, projects, ursula, server }: World, target: string, self: string): object {
  const scopes: Record<string, object> = {
    own: { userId: self },
    olga: { userId: server.owner.account.uid },
    ursula: { userId: ursula.account.uid },
    sam: { userId: globex.owner.account.uid },
    acme: { organizationId: acme.account.uid },
    globex: { organizationId: globex.account.uid },
    bot: { serviceAccountId: acme.bot.uid },
    'globex-bot': { serviceAccountId: globex.bot.uid }
  }
  return scopes[target] ?? { projectId: projects[target] }
}

/** Another secret of the target, made by whoever may. */
async function makeSecret(world: World, target: string): Promise<string> {
  const { server, acme, globex, ursula } = world
  const makers: Record<string, string> = { ursula: ursula.token, sam: globex.owner.token }
  const token = makers[target] ?? (target.startsWith('globex') ? globex : acme).owner.token
  const body = await must(server, 'SecretService/CreateSecret', token, {
    name: next('SECRET'),
    value: 'v',
    apiOnly: true,
    scope: scopeOf(world, target, '')
  })
  return body.secret.id
}

async function makePat(server: OnaServer, token: string): Promise<string> {
  const method = 'UserService/CreatePersonalAccessToken'
  const made = await must(server, method, token, {})
  const { uid } = await server.db
    .selectFrom('tokens')
    .select('uid')
    .where('hash', '=', hashToken(made.token))
    .executeTakeFirstOrThrow()
  return uid
}

async function makeMember({ server, acme, globex }: World, target: string): Promise<Account> {
  const user = await server.createUser(next('leaver').replace('_', '-'))
  await server.addMember((target === 'globex' ? globex : acme).account, user)
  return user
}

const LETTERS = { admins: 'A', editors: 'E', users: 'U' } as const

async function makeGroups(server: OnaServer, people: World['people'], bot: string) {
  const { token } = server.owner
  const groups: Partial<World['groups']> = {}
  for (const [name, letter] of Object.entries(LETTERS) as ['admins' | 'editors' | 'users', string][]) {
    const groupId = (await must(server, 'GroupService/CreateGroup', token, { name })).group.id
    groups[name] = groupId
    const subjects = [{ id: people[letter]!.uid, principal: 'PRINCIPAL_USER' }]
    if (name === 'editors') subjects.push({ id: bot, principal: 'PRINCIPAL_SERVICE_ACCOUNT' })
    for (const subject of subjects)
      await must(server, 'GroupService/CreateMembership', token, { groupId, subject })
  }
  return groups as World['groups']
}

type Limit =
  | { scopes: readonly string[] }
  | { permissions: Readonly<Record<string, 'read' | 'write'>> }
  | string

async function makeTokens(world: World): Promise<void> {
  const { server, acme, people, tokens } = world
  for (const [letter, account] of Object.entries(people)) {
    tokens.set(`who ${letter}`, await server.createToken(account, { scopes: SCOPES }))
  }
  const app = await registerTestApp(server, 'every', { organization_administration: 'write' })
  const installation = await installTestApp(server, app, 'acme')
  tokens.set('who i', (await mint(server, app, installation)).token)
  tokens.set('who k', (await makeRunner(server, acme.account)).token)
  tokens.set('who a', undefined)
  tokens.set('who w', makeToken('classic'))
  const accountId = server.owner.account.id
  for (const [letter, limit] of Object.entries(LIMITS) as [string, Limit][]) {
    if (typeof limit !== 'string')
      tokens.set(`limit ${letter}`, await server.createToken(server.owner.account, limit))
  }
  const initech = await server.createOrganization('initech', server.owner.account)
  const forInitech = { kind: 'classic', accountId, organizationId: initech.id, scopes: FULL_SCOPES } as const
  tokens.set('limit Z', await storeToken(server, forInitech))
  const readOnly = { readOnly: true }
  const pat = await must(server, 'UserService/CreatePersonalAccessToken', server.owner.token, readOnly)
  tokens.set('limit R', pat.token)
}

async function makeWorld(t: Parameters<typeof startOnaServer>[0]): Promise<World> {
  const server = await startOnaServer(t, { logLevel: 'warn' })
  const people: World['people'] = {
    O: server.owner.account,
    X: server.stranger.account,
    M: server.member.account
  }
  for (const letter of ['A', 'E', 'U']) {
    people[letter] = await server.createUser(`with-role-${letter}`)
    await server.addMember(server.acme, people[letter])
  }
  people.N = await server.createUser('nobody')
  people.T = await server.createUser('siteadmin', { siteAdmin: true })
  const user = await server.createUser('ursula')
  await server.addMember(server.acme, user)
  const ursula = { account: user, token: await server.createToken(user, { scopes: SCOPES }) }
  const acme = await makeOrganization(server, server.acme, server.owner)
  const globex = await makeOrganization(server, server.stranger.organization, server.stranger)
  const editor = await makeServiceAccount(server, server.owner.token, 'editor')
  const groups = await makeGroups(server, people, editor.uid)
  const world: World = {
    server,
    acme,
    globex,
    projects: {},
    groups,
    ursula,
    people,
    selves: new Map(Object.entries(people).map(([letter, { uid }]) => [`who ${letter}`, uid])),
    tokens: new Map([
      ['who s', acme.bot.token],
      ['who S', editor.token]
    ]),
    secrets: {},
    pats: { olga: await makePat(server, server.owner.token), ursula: await makePat(server, ursula.token) },
    botToken: '',
    known: new Set(),
    url: await server.listen()
  }
  await makeTokens(world)
  await fillWorld(world, editor.uid)
  return world
}

/** What is listed, and who asks that is no user. */
async function fillWorld(world: World, editorUid: string): Promise<void> {
  const { server, acme, globex, projects, secrets, selves, people, known } = world
  for (const target of ['roled', 'everyones', 'bare', 'globex-project']) {
    projects[target] = await makeProject(world, target)
    known.add(projects[target])
  }
  const owners = ['olga', 'ursula', 'sam', 'acme', 'globex', 'bot', 'globex-bot', ...Object.keys(projects)]
  for (const target of owners) secrets[target] = await makeSecret(world, target)
  secrets.received = await makeSecret(world, 'acme')
  await giveSecret(world, secrets.received)
  selves.set('who s', acme.bot.uid).set('who S', editorUid).set('who e', acme.environment)
  const { runner_uid } = await server.db
    .selectFrom('runners as r')
    .select('r.uid as runner_uid')
    .where('r.name', '=', 'far away')
    .executeTakeFirstOrThrow()
  selves.set('who k', runner_uid)
  for (const column of COLUMNS) if (!selves.has(column)) selves.set(column, server.owner.account.uid)
  const token = acme.bot.token
  const botToken = await must(server, 'ServiceAccountService/CreateServiceAccountToken', token, {})
  world.botToken = botToken.serviceAccountToken.id
  const { received: _, ...listed } = secrets
  for (const { bot, group, runner, environmentClass } of [acme, globex]) {
    for (const id of [bot.uid, group, runner, environmentClass]) known.add(id)
  }
  known.delete(acme.group)
  const samsPat = await makePat(server, globex.owner.token)
  const members = [...'OMAEU'].map((letter) => people[letter]!.uid)
  for (const id of [
    ...Object.values(listed),
    ...Object.values(world.groups),
    ...members,
    world.ursula.account.uid,
    globex.owner.account.uid,
    editorUid,
    world.pats.olga,
    samsPat,
    world.botToken
  ]) {
    known.add(id)
  }
}

async function giveSecret({ server, acme, tokens }: World, secretUid: string): Promise<void> {
  const { db } = server
  const { id } = await db
    .selectFrom('environments')
    .select('id')
    .where('uid', '=', acme.environment)
    .executeTakeFirstOrThrow()
  const secret = await db
    .selectFrom('secrets')
    .select('id')
    .where('uid', '=', secretUid)
    .executeTakeFirstOrThrow()
  await db.insertInto('environment_secrets').values({ environment_id: id, secret_id: secret.id }).execute()
  tokens.set('who e', await tokenOfEnvironment(server, acme.account.id, id))
}

type Build = (world: World, target: string, self: string) => object | Promise<object>

const organizationOf = ({ acme, globex }: World, target: string) =>
  target.startsWith('globex') ? globex : acme
const pagination = { pageSize: 100 }

const secretId = async (world: World, target: string) => ({ secretId: await makeSecret(world, target) })
const projectId = ({ projects }: World, target: string) => ({ projectId: projects[target.split(',')[0]!]! })
const organizationId = (world: World, target: string) => ({
  organizationId: organizationOf(world, target).account.uid
})
const freshGroup = async (world: World, target: string) => {
  const { server } = world
  const { token } = organizationOf(world, target).owner
  const { group } = await must(server, 'GroupService/CreateGroup', token, { name: next('group') })
  return { groupId: group.id as string }
}
/** A project with a group: one that has no role on it, or one of another organization. */
const policy = async (world: World, target: string) => {
  const group = target.endsWith('globex-group')
    ? { groupId: world.globex.group }
    : await freshGroup(world, target)
  return { ...projectId(world, target), ...group }
}
const presentPolicy = async (world: World, target: string) => {
  const message = await policy(world, target)
  if (target.endsWith('globex-group')) return message
  const { token } = organizationOf(world, target).owner
  const role = 'PROJECT_ROLE_USER'
  await must(world.server, 'ProjectService/CreateProjectPolicy', token, { ...message, role })
  return message
}
const freshBot = async (world: World, target: string) => ({
  serviceAccountId: (await makeServiceAccount(world.server, organizationOf(world, target).owner.token)).uid
})
const freshRunner = async (world: World, target: string) => {
  const message = { name: 'another', provider: 'RUNNER_PROVIDER_LINUX_HOST' }
  const { token } = organizationOf(world, target).owner
  const { runner } = await must(world.server, 'RunnerService/CreateRunner', token, message)
  return { runnerId: runner.runnerId as string }
}
const freshSubject = async (world: World, target: string) => {
  const user = target.endsWith('sam') ? world.globex.owner.account : await makeMember(world, target)
  return {
    groupId: organizationOf(world, target).group,
    subject: { id: user.uid, principal: 'PRINCIPAL_USER' }
  }
}
const freshBotToken = async ({ server, acme }: World) => {
  const made = await must(server, 'ServiceAccountService/CreateServiceAccountToken', acme.bot.token, {})
  return { serviceAccountTokenId: made.serviceAccountToken.id }
}
const userOf = ({ ursula, globex }: World, target: string, self: string) => ({
  userId: target === 'own' ? self : (target.endsWith('sam') ? globex.owner : ursula).account.uid
})
const patOf = async ({ server, ursula }: World, target: string) => ({
  personalAccessTokenId: await makePat(server, (target === 'olga' ? server.owner : ursula).token)
})
const subjectIn = (world: World, target: string) => {
  const { group, owner } = organizationOf(world, target)
  return { groupId: group, subject: { id: owner.account.uid, principal: 'PRINCIPAL_USER' } }
}

const environmentId = (world: World, target: string) => ({
  environmentId: organizationOf(world, target).environment
})
const freshEnvironment = async (world: World, target: string) => {
  const { owner, hostedClass } = organizationOf(world, target)
  const message = { spec: { machine: { class: hostedClass } } }
  const made = await must(world.server, 'EnvironmentService/CreateEnvironment', owner.token, message)
  return { environmentId: made.environment.id as string }
}
const HOLDER = '0b6f3c1e-58a7-4d0c-9f6a-2f1f0d5d7c11'

/** The message that each method is sent for a target. What changes things gets another thing each time. */
const MESSAGES: Record<string, Build> = {
  'SecretService/CreateSecret': (world, target, self) => ({
    name: next('NEW'),
    value: 'v',
    environmentVariable: true,
    scope: scopeOf(world, target, self)
  }),
  'SecretService/ListSecrets': (world, target, self) => ({
    pagination,
    ...(target !== 'known' && { filter: { scope: scopeOf(world, target, self) } })
  }),
  'SecretService/GetSecretValue': ({ secrets }, target) => ({ secretId: secrets[target] }),
  'SecretService/UpdateSecretValue': async (world, target) => ({
    ...(await secretId(world, target)),
    value: 'another'
  }),
  'SecretService/DeleteSecret': secretId,
  'ProjectService/CreateProject': () => ({ name: 'made', initializer: INITIALIZER }),
  'ProjectService/CreateProjects': () => ({ projects: [{ name: 'made', initializer: INITIALIZER }] }),
  'ProjectService/CreateProjectFromEnvironment': environmentId,
  'ProjectService/GetProject': projectId,
  'ProjectService/ListProjects': ({ projects }) => ({ filter: { projectIds: Object.values(projects) } }),
  'ProjectService/UpdateProject': (world, target) => ({ ...projectId(world, target), name: next('name') }),
  'ProjectService/DeleteProject': async (world, target) => ({ projectId: await makeProject(world, target) }),
  'ProjectService/UpdateProjects': (world, target) => ({
    projects: [{ ...projectId(world, target), name: next('name') }]
  }),
  'ProjectService/DeleteProjects': async (world, target) => ({
    projectIds: [await makeProject(world, target)]
  }),
  'ProjectService/ListProjectEnvironmentClasses': projectId,
  'ProjectService/UpdateProjectEnvironmentClasses': (world, target) => ({
    ...projectId(world, target),
    projectEnvironmentClasses: [{ localRunner: true }]
  }),
  'ProjectService/ListProjectPolicies': projectId,
  'ProjectService/CreateProjectPolicy': async (world, target) => ({
    ...(await policy(world, target)),
    role: 'PROJECT_ROLE_EDITOR'
  }),
  'ProjectService/UpdateProjectPolicy': async (world, target) => ({
    ...(await presentPolicy(world, target)),
    role: 'PROJECT_ROLE_EDITOR'
  }),
  'ProjectService/DeleteProjectPolicy': presentPolicy,
  'IdentityService/GetAuthenticatedIdentity': () => ({}),
  'IdentityService/ExchangeToken': async ({ server, acme }, target) => {
    if (target === 'wrong') return { exchangeToken: 'not one' }
    const runnerId = acme.runner
    return await must(server, 'RunnerService/CreateRunnerToken', acme.owner.token, { runnerId })
  },
  'UserService/GetAuthenticatedUser': () => ({}),
  'UserService/GetUser': userOf,
  'UserService/CreatePersonalAccessToken': userOf,
  'UserService/GetPersonalAccessToken': ({ pats }, target) => ({
    personalAccessTokenId: pats[target as 'olga' | 'ursula']
  }),
  'UserService/ListPersonalAccessTokens': () => ({ pagination }),
  'UserService/DeletePersonalAccessToken': patOf,
  'OrganizationService/CreateOrganization': () => ({ name: 'founded' }),
  'OrganizationService/GetOrganization': organizationId,
  'OrganizationService/ListMembers': (world, target) => ({ pagination, ...organizationId(world, target) }),
  'OrganizationService/UpdateOrganization': (world, target) => ({
    ...organizationId(world, target),
    name: next('name')
  }),
  'OrganizationService/SetRole': async (world, target) => ({
    ...organizationId(world, target),
    userId: target.endsWith('sam') ? world.globex.owner.account.uid : (await makeMember(world, target)).uid,
    // Another owner could go on without the first one, who must stay the last.
    role: 'ORGANIZATION_ROLE_MEMBER'
  }),
  'OrganizationService/LeaveOrganization': async (world, target, self) =>
    target === 'acme' ? { userId: (await makeMember(world, target)).uid } : userOf(world, target, self),
  'OrganizationService/DeleteOrganization': organizationId,
  'ServiceAccountService/CreateServiceAccount': () => ({ name: 'made', validUntil: FAR }),
  'ServiceAccountService/GetServiceAccount': (world, target) => ({
    serviceAccountId: organizationOf(world, target).bot.uid
  }),
  'ServiceAccountService/ListServiceAccounts': ({ acme, globex, selves }) => ({
    filter: { serviceAccountIds: [acme.bot.uid, globex.bot.uid, selves.get('who S')] }
  }),
  'ServiceAccountService/UpdateServiceAccount': (world, target) => ({
    serviceAccountId: organizationOf(world, target).bot.uid,
    description: next('text')
  }),
  'ServiceAccountService/DeleteServiceAccount': freshBot,
  'ServiceAccountService/CreateServiceAccountAccessToken': (world, target) => ({
    serviceAccountId: organizationOf(world, target).bot.uid
  }),
  'ServiceAccountService/CreateServiceAccountToken': () => ({}),
  'ServiceAccountService/ListServiceAccountTokens': () => ({ pagination }),
  'ServiceAccountService/GetServiceAccountToken': ({ botToken }) => ({ serviceAccountTokenId: botToken }),
  'ServiceAccountService/DeleteServiceAccountToken': freshBotToken,
  'GroupService/CreateGroup': (world, target) => ({
    name: next('group'),
    ...(target !== '-' && organizationId(world, target))
  }),
  'GroupService/GetGroup': (world, target) => ({ id: organizationOf(world, target).group }),
  'GroupService/ListGroups': ({ groups, globex }) => ({
    filter: { groupIds: [...Object.values(groups), globex.group] }
  }),
  'GroupService/UpdateGroup': (world, target) => ({
    groupId: organizationOf(world, target).group,
    description: next('text')
  }),
  'GroupService/DeleteGroup': freshGroup,
  'GroupService/CreateMembership': freshSubject,
  'GroupService/GetMembership': subjectIn,
  'GroupService/ListMemberships': (world, target) => ({ groupId: organizationOf(world, target).group }),
  'GroupService/DeleteMembership': async (world, target) => {
    const message = await freshSubject(world, target)
    const { token } = organizationOf(world, target).owner
    const { member } = await must(world.server, 'GroupService/CreateMembership', token, message)
    return { membershipId: member.id }
  },
  'EnvironmentService/CreateEnvironmentFromProject': async (world, target) => {
    const { owner, hostedClass } = organizationOf(world, target)
    const message = projectId(world, target)
    const projectEnvironmentClasses = [{ environmentClassId: hostedClass }]
    const classes = { ...message, projectEnvironmentClasses }
    await must(world.server, 'ProjectService/UpdateProjectEnvironmentClasses', owner.token, classes)
    return message
  },
  'EnvironmentService/CreateEnvironment': ({ acme }) => ({ spec: { machine: { class: acme.hostedClass } } }),
  'EnvironmentService/GetEnvironment': environmentId,
  'EnvironmentService/ListEnvironments': () => ({ pagination }),
  'EnvironmentService/StartEnvironment': freshEnvironment,
  'EnvironmentService/StopEnvironment': freshEnvironment,
  'EnvironmentService/UpdateEnvironment': async (world, target) => ({
    ...(await freshEnvironment(world, target)),
    metadata: { name: 'another' }
  }),
  'EnvironmentService/DeleteEnvironment': freshEnvironment,
  'EnvironmentService/MarkEnvironmentActive': (world, target) => ({
    ...environmentId(world, target),
    activitySignal: { source: 'an editor' }
  }),
  'EnvironmentService/CreateEnvironmentAccessToken': freshEnvironment,
  'EnvironmentService/CreateEnvironmentLogsToken': freshEnvironment,
  'EnvironmentService/ArchiveEnvironment': freshEnvironment,
  'EnvironmentService/UnarchiveEnvironment': freshEnvironment,
  'coffer.v1.ResolutionService/ExplainSecrets': (world, target) =>
    target in world.projects ? projectId(world, target) : environmentId(world, target),
  'coffer.v1.RunnerInterfaceService/ClaimEnvironments': () => ({ holder: HOLDER }),
  'coffer.v1.RunnerInterfaceService/RenewLeases': (world, target) => ({
    holder: HOLDER,
    leases: [{ ...environmentId(world, target), epoch: 0 }]
  }),
  'coffer.v1.RunnerInterfaceService/ReleaseLeases': (world, target) => ({
    holder: HOLDER,
    leases: [{ ...environmentId(world, target), epoch: 0 }]
  }),
  'coffer.v1.RunnerInterfaceService/ReportStatus': (world, target) => ({
    lease: { ...environmentId(world, target), epoch: 0 },
    report: { phase: 'ENVIRONMENT_PHASE_RUNNING', specVersion: '1' }
  }),
  'coffer.v1.RunnerInterfaceService/FindEnvironments': (world, target) => ({
    environmentIds: [organizationOf(world, target).environment]
  }),
  'coffer.v1.RunnerInterfaceService/RenewToken': () => ({}),
  'EnvironmentService/ListEnvironmentClasses': ({ acme, globex }) => ({
    filter: { runnerIds: [acme.runner, globex.runner] }
  }),
  'RunnerService/CreateRunner': () => ({ name: 'made', provider: 'RUNNER_PROVIDER_LINUX_HOST' }),
  'RunnerService/GetRunner': (world, target) => ({ runnerId: organizationOf(world, target).runner }),
  'RunnerService/ListRunners': () => ({ pagination }),
  'RunnerService/UpdateRunner': (world, target) => ({
    runnerId: organizationOf(world, target).runner,
    name: next('name')
  }),
  'RunnerService/DeleteRunner': freshRunner,
  'RunnerService/CreateRunnerToken': (world, target) => ({ runnerId: organizationOf(world, target).runner }),
  'RunnerConfigurationService/CreateEnvironmentClass': async (world, target) => ({
    ...(await freshRunner(world, target)),
    displayName: 'another',
    description: 'another one'
  }),
  'RunnerConfigurationService/GetEnvironmentClass': (world, target) => ({
    environmentClassId: organizationOf(world, target).environmentClass
  }),
  'RunnerConfigurationService/ListEnvironmentClasses': ({ acme, globex }) => ({
    filter: { runnerIds: [acme.runner, globex.runner] }
  }),
  'RunnerConfigurationService/UpdateEnvironmentClass': (world, target) => ({
    environmentClassId: organizationOf(world, target).environmentClass,
    displayName: next('name')
  }),
  'EventService/WatchEvents': (world, target) =>
    target === '-' ? { organization: true } : { environmentId: organizationOf(world, target).environment },
  'EventService/ListAuditLogs': () => ({ pagination }),
  'EventService/GetAuditLog': (world, target) => ({
    auditLogEntryId: organizationOf(world, target).auditEntry
  })
}

interface Answer {
  status: number
  body: Body
}

let requests = 0

/** Each request is from another address, or the number of wrong ones would decide. A stream is left at once. */
async function ask(
  { server, url }: World,
  method: string,
  token: string | undefined,
  message: object
): Promise<Answer> {
  const path = `/api/${method.startsWith('coffer.') ? method : `gitpod.v1.${method}`}`
  const headers = { ...(token && { authorization: `Bearer ${token}` }) }
  if (method === 'EventService/WatchEvents') {
    const abort = new AbortController()
    const body = JSON.stringify(message)
    const response = await fetch(url + path, { method: 'POST', headers, body, signal: abort.signal })
    if (response.status !== 200) return { status: response.status, body: await response.json() }
    abort.abort()
    return { status: 200, body: {} }
  }
  requests += 1
  const { statusCode, body } = await server.app.inject({
    method: 'POST',
    url: path,
    headers,
    remoteAddress: `10.${requests >> 16}.${(requests >> 8) & 255}.${requests & 255}`,
    payload: JSON.stringify(message)
  })
  return { status: statusCode, body: JSON.parse(body) }
}

function letterOf({ known }: World, target: string, { status, body }: Answer): string {
  if (status !== 200) {
    return body.message === 'This token only reads.' ? 'r' : (CODES[body.code] ?? `(${body.code})`)
  }
  if (body.failedProjects) return Object.keys(body).length === 1 ? 'f' : '(some failed)'
  if (!target.endsWith('known')) return '+'
  const entries: Body[] = Object.values(body).find((member) => Array.isArray(member)) ?? []
  return String(entries.filter(({ id, runnerId, userId }) => known.has(id ?? runnerId ?? userId)).length)
}

/** Ids that an answer to these must not have, but where they were sent. */
function hiddenFrom(world: World, column: string): string[] {
  const { acme, globex, projects, secrets, ursula, pats } = world
  const idsOf = ({
    account,
    runner,
    environmentClass,
    environment,
    group,
    membership,
    bot
  }: Organization) => [account.uid, runner, environmentClass, environment, group, membership, bot.uid]
  const pick = (from: Record<string, string>, ...names: string[]) => names.map((name) => from[name]!)
  const ofAcme = [
    ...idsOf(acme),
    ...pick(projects, 'roled', 'everyones', 'bare'),
    ...pick(secrets, 'acme', 'roled', 'everyones', 'bare', 'bot', 'ursula'),
    ursula.account.uid
  ]
  const ofGlobex = [
    ...idsOf(globex),
    ...pick(projects, 'globex-project'),
    ...pick(secrets, 'globex', 'globex-project', 'globex-bot', 'sam'),
    globex.owner.account.uid
  ]
  const ofOlga = [secrets.olga!, pats.olga]
  if (column === 'who X') return [...ofAcme, ...ofOlga]
  if (column === 'limit Z') return [...ofAcme, ...ofGlobex]
  if (column === 'who O' || column.startsWith('limit')) return [...ofGlobex, secrets.ursula!, pats.ursula]
  const letter = column.slice(-1)
  const elsewhere = [...ofGlobex, ...ofOlga, secrets.ursula!, pats.ursula]
  if (!'MAEUsS'.includes(letter)) {
    // Machines are told the organization that they are in.
    const hidden = 'ek'.includes(letter) ? ofAcme.filter((id) => !idsOf(acme).includes(id)) : ofAcme
    return [...hidden, ...elsewhere]
  }
  const roled = 'AEUS'.includes(letter) ? [] : [projects.roled!, secrets.roled!]
  const ofBot = letter === 's' ? [] : [secrets.bot!]
  return [...elsewhere, ...roled, ...ofBot, projects.bare!, secrets.bare!, secrets.acme!]
}

/** Every row of every table, but records of what was refused or read, and when a token was last used. */
async function makeDigest({ db }: OnaServer): Promise<() => Promise<unknown>> {
  const { rows } = await sql<{ name: string }>`select table_name as name from information_schema.tables
    where table_schema = 'public' and table_type = 'BASE TABLE'
      and table_name not in ('audit_chain', 'audit_streams', 'audit_sealer', 'audit_checkpoint', 'rate_limits', 'nodes')
    order by 1`.execute(db)
  const digests = rows.map(
    ({
      name
    }) => sql`(select count(*) || ' ' || coalesce(md5(string_agg(j::text, ',' order by j::text)), '') from (
      select to_jsonb(r) - 'last_used_at' - 'last_seen_at' as j from ${sql.table(name)} r) j
      where ${sql.lit(name)} <> 'audit_events'
        or (j->>'outcome' = 'allowed' and j->>'action' <> 'secret.read')) as ${sql.ref(name)}`
  )
  const query = sql`select ${sql.join(digests)}`
  return async () => (await query.execute(db)).rows[0]
}

/** An organization to delete, with a token like that of the column that acts in it. */
async function disposable({ server, people }: World, column: string): Promise<[string, object]> {
  const letter = column.slice(-1)
  const isLimit = column.startsWith('limit')
  const account = isLimit ? server.owner.account : people[letter]!
  const limit = (isLimit ? LIMITS[letter as keyof typeof LIMITS] : { scopes: SCOPES }) as Exclude<
    Limit,
    string
  >
  const organization = await server.createOrganization(next('gone').replace('_', '-'), account)
  const kind = 'permissions' in limit ? 'fine-grained' : 'classic'
  const values = { kind, accountId: account.id, organizationId: organization.id, ...limit } as const
  return [await storeToken(server, values), { organizationId: organization.uid }]
}

/** Undoes what would make the next rows others. */
async function restore(world: World, { method, target }: Row, column: string, body: Body): Promise<void> {
  const { server, people, groups } = world
  if (method === 'OrganizationService/CreateOrganization') {
    await server.db.deleteFrom('accounts').where('uid', '=', body.organization.id).execute()
  }
  if (method !== 'OrganizationService/LeaveOrganization' || target !== 'own') return
  const letter = column.slice(-1)
  await server.addMember(server.acme, people[letter]!)
  for (const [name, member] of Object.entries(LETTERS)) {
    if (member !== letter) continue
    const subject = { id: people[letter]!.uid, principal: 'PRINCIPAL_USER' }
    const groupId = groups[name as keyof typeof groups]
    await must(server, 'GroupService/CreateMembership', server.owner.token, { groupId, subject })
  }
}

const ENVIRONMENTS = /^(EnvironmentService|coffer\.v1\.ResolutionService)\//

const DONE = /[+0-9]/

/** Asks for all cells of a row: first what changes nothing, which is looked at, then each change on a thing of its own. */
async function walk(world: World, row: Row, reads: boolean, digest: () => Promise<unknown>) {
  const { method, target, cells } = row
  const build = MESSAGES[method]!
  const { selves, tokens } = world
  const actual = new Map<string, string>()
  const told: string[] = []
  const askFor = async (column: string, token: string | undefined, message: object) => {
    const answer = await ask(world, method, token, message)
    actual.set(column, letterOf(world, target, answer))
    const sent = JSON.stringify(message)
    const text = JSON.stringify(answer.body)
    // What an organization gives to all environments is told to those who make one.
    const given = answer.status === 200 && ENVIRONMENTS.test(method) ? world.secrets.acme : undefined
    const hidden = hiddenFrom(world, column).filter(
      (id) => !sent.includes(id) && id !== selves.get(column) && id !== given
    )
    if (hidden.some((id) => text.includes(id))) told.push(column)
    return answer
  }
  const harmless = COLUMNS.filter((column) => reads || !DONE.test(cells.get(column)!))
  const shared = await build(world, target, '')
  const messages = new Map<string, object>()
  for (const column of harmless) {
    const own = target === 'own'
    messages.set(column, own ? await build(world, target, selves.get(column)!) : shared)
  }
  const before = await digest()
  for (const column of harmless) await askFor(column, tokens.get(column), messages.get(column)!)
  const after = await digest()
  for (const column of COLUMNS.filter((column) => !harmless.includes(column))) {
    const [token, message] =
      method === 'OrganizationService/DeleteOrganization'
        ? await disposable(world, column)
        : [tokens.get(column), await build(world, target, selves.get(column)!)]
    const { status, body } = await askFor(column, token, message)
    if (status === 200) await restore(world, row, column, body)
  }
  return { actual, told, before, after }
}

const lettersOf = (cells: Map<string, string>) => {
  const letters = COLUMNS.map((column) => cells.get(column)!)
  return `${letters.slice(0, 15).join('')} ${letters.slice(15).join('')}`
}

const ROWS = readTable(TABLE)
const SERVICES = onaServices({} as OnaDependencies)
const METHODS = new Map<string, (typeof SERVICES)[number]['methods'][number]>(
  SERVICES.flatMap((service) =>
    service.methods.map(
      (method) =>
        [pathOf(service, method).replace('/gitpod.v1.', '').replace('/coffer', 'coffer'), method] as const
    )
  )
)

t.test('every method has its rows, and what they say of read-only tokens is what it says', (t) => {
  t.strictSame([...new Set(ROWS.map(({ method }) => method))].sort(), [...METHODS.keys()].sort())
  t.strictSame(Object.keys(MESSAGES).sort(), [...METHODS.keys()].sort())
  for (const { method, target, cells } of ROWS) {
    const { access, reads } = METHODS.get(method)!
    const open = ACCESS[access].on === 'nobody'
    t.equal(cells.get('limit R') === 'r', !reads && !open, `${method} ${target}`)
  }
  t.end()
})

t.test(
  'each cell is answered as the table says, tells nothing that is hidden, and refusals change nothing',
  async (t) => {
    const world = await makeWorld(t)
    const digest = await makeDigest(world.server)
    for (const row of ROWS) {
      const { method, target, cells } = row
      const reads = METHODS.get(method)!.reads === true
      const { actual, told, before, after } = await walk(world, row, reads, digest)
      t.equal(lettersOf(actual), lettersOf(cells), `${method} ${target}`)
      t.strictSame(told, [], `${method} ${target}: nothing hidden is told`)
      t.strictSame(after, before, `${method} ${target}: what is refused or reads changes nothing`)
    }
  }
)
