import t from 'tap'
import {
  type Choice,
  type Explanation,
  ORDER,
  type Origin,
  ownersOf,
  reasonToWithhold,
  resolve
} from '../../src/environments/resolve.ts'
import type { CandidateSecret, ResolutionContext } from '../../src/store/resolution.ts'
import type { Mount, RepositoryRole, Visibility } from '../../src/store/tables.ts'

// Which secrets an environment receives, as tables: what could come in, and what becomes of each.

const ORGANIZATION = 'aaaaaaaa-0000-4000-8000-000000000001'
const CREATOR = 'aaaaaaaa-0000-4000-8000-000000000002'
const PROJECT = 'aaaaaaaa-0000-4000-8000-000000000003'
const REPOSITORY = 'aaaaaaaa-0000-4000-8000-000000000004'

/** A member who may everything, on a private repository of the organization. */
function contextOf(change: Partial<ResolutionContext> = {}): ResolutionContext {
  return {
    organization_uid: ORGANIZATION,
    creator_kind: 'user',
    creator_uid: CREATOR,
    own_secrets: true,
    creator_here: true,
    project_uid: PROJECT,
    project_role: 'user',
    repository_id: 7,
    repository_uid: REPOSITORY,
    repository_private: true,
    repository_here: true,
    repository_role: 'write',
    ...change
  }
}

const VISIBILITIES: Partial<Record<Origin, Visibility>> = { user: 'all', organization: 'all' }
let made = 0

function secretOf(kind: Origin, name: string, change: Partial<CandidateSecret> = {}): CandidateSecret {
  made += 1
  return {
    secret_id: made,
    secret_uid: `bbbbbbbb-0000-4000-8000-${String(made).padStart(12, '0')}`,
    kind,
    secret_name: name,
    mount: 'variable',
    mount_target: null,
    credential_proxy: null,
    visibility: VISIBILITIES[kind] ?? null,
    value_version: 1,
    selected: false,
    ...change
  }
}

/** `wins`, `loses to …` or the reason, by origin and name. */
function verdicts(explanations: readonly Explanation[]): Record<string, string> {
  return Object.fromEntries(
    explanations.map(({ origin, secret, verdict }) => [
      `${origin} ${secret.secret_name}`,
      verdict.result === 'wins'
        ? 'wins'
        : verdict.result === 'loses'
          ? `loses to ${verdict.to}`
          : verdict.reason
    ])
  )
}

const TARGETS: Record<Mount, string | null> = {
  variable: null,
  file: '/etc/token',
  registry: 'ghcr.io',
  git: 'git.example',
  'api-only': null
}

t.test('of the same name and kind of mount the highest wins, whatever the order of rows', async (t) => {
  for (const mount of Object.keys(TARGETS) as Mount[]) {
    for (const [rank, first] of ORDER.entries()) {
      const kinds = ORDER.slice(rank)
      const secrets = kinds.map((kind) => secretOf(kind, 'TOKEN', { mount, mount_target: TARGETS[mount] }))
      const expected = Object.fromEntries(
        kinds.map((kind) => [`${kind} TOKEN`, kind === first ? 'wins' : `loses to ${first}`])
      )
      for (const rows of [secrets, [...secrets].reverse()]) {
        const resolution = resolve(contextOf(), rows, null)
        t.strictSame(verdicts(resolution.explanations), expected, `${mount} below ${first}`)
        t.strictSame(
          resolution.secrets.map(({ id, origin }) => [id, origin]),
          [[secrets[0]!.secret_uid, first]]
        )
        t.strictSame(resolution.readable, [secrets[0]!.secret_id])
      }
    }
  }
})

t.test('the same name with another kind of mount, and names in another case, do not compete', async (t) => {
  const secrets = [
    secretOf('user', 'TOKEN', { mount: 'file', mount_target: '/a' }),
    secretOf('project', 'TOKEN'),
    secretOf('repository', 'token'),
    secretOf('organization', 'TOKEN', { mount: 'registry', mount_target: 'ghcr.io' })
  ]
  const { explanations, readable } = resolve(contextOf(), secrets, null)
  t.ok(explanations.every(({ verdict }) => verdict.result === 'wins'))
  t.equal(readable.length, 4)
})

t.test('how each mount is delivered, and that the session moves with the value', async (t) => {
  const delivered: [Mount, object][] = [
    ['variable', { kind: 'variable', name: 'TOKEN' }],
    ['file', { kind: 'file', path: '/etc/token' }],
    ['registry', { kind: 'registry', host: 'ghcr.io' }],
    ['git', { kind: 'git', host: 'git.example' }],
    ['api-only', { kind: 'api-only' }]
  ]
  for (const [mount, expected] of delivered) {
    const secret = secretOf('project', 'TOKEN', { mount, mount_target: TARGETS[mount], value_version: 12 })
    const [resolved] = resolve(contextOf(), [secret], null).secrets
    t.strictSame(resolved, {
      id: secret.secret_uid,
      name: 'TOKEN',
      origin: 'project',
      session: '12',
      mount: expected
    })
  }
})

const NO_MEMBER = /no member of the organization/
const SOMEBODY_ELSE = /somebody else/
const NO_PROJECT_ROLE = /no role on the project/
const NO_WRITE = /not the role write on the repository/
const FOR_REPOSITORIES = /for repositories/
const FOR_PRIVATE = /for private repositories of the organization/
const NOT_SELECTED = /for selected repositories/

t.test("who may have what, by the creator's standing", async (t) => {
  const reasons: [string, Partial<ResolutionContext>, Partial<Record<Origin, RegExp>>][] = [
    ['all is as it should be', {}, {}],
    [
      'no member any more',
      { creator_here: false },
      Object.fromEntries(ORDER.map((kind) => [kind, NO_MEMBER])) as Record<Origin, RegExp>
    ],
    [
      'somebody else was let in',
      { own_secrets: false },
      { user: SOMEBODY_ELSE, 'service-account': SOMEBODY_ELSE }
    ],
    ['without a role on the project', { project_role: null }, { project: NO_PROJECT_ROLE }],
    ['role read', { repository_role: 'read' }, { repository: NO_WRITE }],
    ['role triage', { repository_role: 'triage' }, { repository: NO_WRITE }],
    ['role maintain', { repository_role: 'maintain' }, {}],
    ['role admin', { repository_role: 'admin' }, {}],
    ['no role', { repository_role: null }, { repository: NO_WRITE }],
    [
      'no role on a public one',
      { repository_role: null, repository_private: false },
      { repository: NO_WRITE }
    ],
    ['a public repository', { repository_private: false }, {}]
  ]
  for (const [name, change, expected] of reasons) {
    for (const kind of ORDER) {
      const reason = reasonToWithhold(contextOf(change), secretOf(kind, 'X'))
      if (expected[kind]) t.match(reason, expected[kind], `${name}: ${kind}`)
      else t.equal(reason, undefined, `${name}: ${kind}`)
    }
  }
})

t.test('visibility × repository', async (t) => {
  const none = { repository_id: null, repository_uid: null, repository_private: null, repository_here: false }
  const roles = (role: RepositoryRole | null) => ({ repository_role: role })
  const cells: [string, Visibility, boolean, Partial<ResolutionContext>, RegExp | undefined][] = [
    ['all, no repository', 'all', false, { ...none, ...roles(null) }, undefined],
    ['all, no role on it', 'all', false, roles(null), undefined],
    ['private, no repository', 'private', false, { ...none, ...roles(null) }, FOR_REPOSITORIES],
    ['private, private one of the organization', 'private', false, {}, undefined],
    ['private, private one of somebody else', 'private', false, { repository_here: false }, FOR_PRIVATE],
    ['private, public one', 'private', false, { repository_private: false }, FOR_PRIVATE],
    ['private, role read', 'private', false, roles('read'), FOR_REPOSITORIES],
    ['selected, and this one is', 'selected', true, {}, undefined],
    [
      'selected, public, and this one is',
      'selected',
      true,
      { repository_private: false, repository_here: false },
      undefined
    ],
    ['selected, and this one is not', 'selected', false, {}, NOT_SELECTED],
    ['selected, this one, role read', 'selected', true, roles('read'), FOR_REPOSITORIES],
    [
      'selected, this one, public and no role',
      'selected',
      true,
      { ...roles(null), repository_private: false },
      FOR_REPOSITORIES
    ],
    ['selected, no repository', 'selected', false, { ...none, ...roles(null) }, FOR_REPOSITORIES]
  ]
  for (const kind of ['user', 'organization'] as const) {
    for (const [name, visibility, selected, change, expected] of cells) {
      const reason = reasonToWithhold(contextOf(change), secretOf(kind, 'X', { visibility, selected }))
      if (expected) t.match(reason, expected, `${kind}: ${name}`)
      else t.equal(reason, undefined, `${kind}: ${name}`)
    }
  }
})

t.test('whether a repository is known here, but not to be written to, is not told', async (t) => {
  const unknown = {
    repository_id: null,
    repository_uid: null,
    repository_private: null,
    repository_role: null
  }
  const unseen = { repository_here: false, repository_role: null }
  for (const visibility of ['private', 'selected'] as const) {
    const secret = secretOf('user', 'X', { visibility })
    t.equal(reasonToWithhold(contextOf(unseen), secret), reasonToWithhold(contextOf(unknown), secret))
  }
})

t.test('what is withheld does not hide what is below it', async (t) => {
  const secrets = [
    secretOf('user', 'TOKEN', { visibility: 'selected' }),
    secretOf('organization', 'TOKEN', { visibility: 'all' })
  ]
  const found = verdicts(resolve(contextOf(), secrets, null).explanations)
  t.match(found['user TOKEN'], NOT_SELECTED)
  t.equal(found['organization TOKEN'], 'wins')
})

t.test('whose secrets are looked at', async (t) => {
  const kinds = (change: Partial<ResolutionContext>) => ownersOf(contextOf(change)).map(({ kind }) => kind)
  t.strictSame(kinds({}), ['user', 'project', 'repository', 'organization'])
  t.strictSame(kinds({ creator_kind: 'service-account' }), [
    'service-account',
    'project',
    'repository',
    'organization'
  ])
  t.strictSame(kinds({ project_role: null }), ['user', 'repository', 'organization'])
  t.strictSame(kinds({ project_uid: null, project_role: null }), ['user', 'repository', 'organization'])
  t.strictSame(kinds({ repository_role: 'triage' }), ['user', 'project', 'organization'])
  t.strictSame(kinds({ repository_role: null, repository_private: false }), [
    'user',
    'project',
    'organization'
  ])
  t.strictSame(kinds({ creator_here: false }), [])
  t.strictSame(
    ownersOf(contextOf()).map(({ ownerUid }) => ownerUid),
    [CREATOR, PROJECT, REPOSITORY, ORGANIZATION]
  )
})

t.test('a choice narrows, and what it leaves out still comes first', async (t) => {
  const mine = secretOf('user', 'TOKEN')
  const theirs = secretOf('project', 'TOKEN')
  const other = secretOf('project', 'OTHER')
  const choose = (...secrets: Choice['secrets']): Choice => ({ narrows: true, secrets })
  const one = resolve(contextOf(), [mine, theirs, other], choose({ id: other.secret_uid }))
  t.strictSame(
    one.secrets.map(({ name }) => name),
    ['OTHER']
  )
  t.strictSame(one.readable, [other.secret_id])
  t.match(verdicts(one.explanations)['user TOKEN'], /spec\.secrets/)
  t.equal(verdicts(one.explanations)['project TOKEN'], 'loses to user')
  // A loser is not to be had by choosing it.
  t.strictSame(resolve(contextOf(), [mine, theirs], choose({ id: theirs.secret_uid })).secrets, [])
  t.strictSame(
    resolve(contextOf({ creator_here: false }), [mine], choose({ id: mine.secret_uid })).secrets,
    [],
    'nor what is withheld'
  )
})

t.test('a choice for git changes how a secret is delivered, and narrows nothing', async (t) => {
  const token = secretOf('user', 'GH_TOKEN')
  const other = secretOf('project', 'OTHER')
  const choice = { narrows: false, secrets: [{ id: token.secret_uid, gitHost: 'git.example:8443' }] }
  const { secrets } = resolve(contextOf(), [token, other], choice)
  t.strictSame(
    secrets.map(({ mount }) => mount),
    [
      { kind: 'git', host: 'git.example:8443' },
      { kind: 'variable', name: 'OTHER' }
    ]
  )
})

t.test('what has a place already keeps it: of a path, a registry, a host of git', async (t) => {
  const pairs: [Mount, string, string, boolean][] = [
    ['file', '/etc/token', '/etc/token', true],
    ['file', '/etc/token', '/etc/TOKEN', false],
    ['registry', 'ghcr.io', 'GHCR.io', true],
    ['registry', 'ghcr.io', 'ghcr.io:443', false],
    ['git', 'git.example', 'GIT.example', true],
    ['git', 'git.example', 'git.example:8443', false],
    ['api-only', '', '', false]
  ]
  for (const [mount, one, other, collide] of pairs) {
    const secrets = [
      secretOf('project', 'LOW', { mount, mount_target: other }),
      secretOf('user', 'HIGH', { mount, mount_target: one })
    ]
    const { explanations, secrets: resolved, readable } = resolve(contextOf(), secrets, null)
    const found = verdicts(explanations)
    t.equal(found['user HIGH'], 'wins')
    t.equal(found['project LOW'], collide ? 'the secret HIGH has that place already' : 'wins', mount)
    t.equal(resolved.length, 2, 'both are told to the runner')
    t.equal(readable.length, collide ? 1 : 2, 'what is not delivered is not read')
  }
})

t.test('of two with the same place in one collection the first by name has it', async (t) => {
  const file = { mount: 'file', mount_target: '/a' } as const
  const secrets = [secretOf('project', 'ZED', file), secretOf('project', 'ABC', file)]
  t.strictSame(verdicts(resolve(contextOf(), secrets, null).explanations), {
    'project ABC': 'wins',
    'project ZED': 'the secret ABC has that place already'
  })
})

t.test('what is not delivered takes no place', async (t) => {
  const proxy = { targetHosts: ['api.example'], header: 'Authorization' }
  const secrets = [
    secretOf('user', 'HIGH', { mount: 'file', mount_target: '/a', credential_proxy: proxy }),
    secretOf('project', 'LOW', { mount: 'file', mount_target: '/a' })
  ]
  const { explanations, secrets: resolved, readable } = resolve(contextOf(), secrets, null)
  t.strictSame(verdicts(explanations), {
    'user HIGH': 'it is for a credential proxy, and none runs here',
    'project LOW': 'wins'
  })
  t.strictSame(resolved[0]!.credentialProxy, proxy)
  t.strictSame(readable, [secrets[1]!.secret_id])
})

t.test('reserved names are for no variable, and for everything else', async (t) => {
  for (const name of ['PATH', 'path', 'LD_PRELOAD', 'GIT_ASKPASS', 'COFFER_X', 'NODE_OPTIONS', 'Env']) {
    const variable = resolve(contextOf(), [secretOf('repository', name)], null)
    t.match(variable.secrets, [{ name, problem: /reserved/ }], name)
    t.strictSame(variable.readable, [])
    const file = resolve(
      contextOf(),
      [secretOf('project', name, { mount: 'file', mount_target: '/x' })],
      null
    )
    t.equal(file.secrets[0]!.problem, undefined)
    t.equal(file.readable.length, 1)
  }
  t.equal(resolve(contextOf(), [secretOf('repository', 'PATHS')], null).secrets[0]!.problem, undefined)
})
