import type { Static } from '@sinclair/typebox'
import type { Explanation, Verdict } from '../../environments/resolve.ts'
import { explainCreation, explainEnvironment } from '../../environments/service.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import { findActingOrganization } from '../../store/acting.ts'
import { findProject } from '../../store/projects.ts'
import type { Mount, OrganizationRole } from '../../store/tables.ts'
import { creatorOf, getEnvironment } from './environments.ts'
import { NO_ORGANIZATION } from './guard.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { compact } from './present.ts'
import { List, Message, Text, Uuid } from './schema.ts'

// Which secrets an environment receives, and why the others do not come in: an extension.

const ExplainedSecret = Message('coffer.v1.ExplainedSecret', {
  id: Uuid(),
  name: Text(),
  origin: Text({ description: '`user`, `service-account`, `project`, `repository` or `organization`' }),
  mount: Text({ description: '`variable`, `file`, `registry`, `git` or `api-only`' }),
  target: Text({ description: 'The path of a file, the host of a registry or of git' }),
  result: Text({ description: '`wins`, `loses` or `withheld`' }),
  reason: Text({ description: 'Why it is withheld, or to which origin it loses' })
})

const REASONS: { [V in Verdict as V['result']]: (verdict: V) => string | undefined } = {
  wins: () => undefined,
  loses: ({ to }) => `the ${to}'s comes first`,
  withheld: ({ reason }) => reason
}

function presentExplanation({ secret, origin, verdict }: Explanation): Static<typeof ExplainedSecret> {
  return compact({
    id: secret.secret_uid,
    name: secret.secret_name,
    origin,
    mount: secret.mount satisfies Mount,
    target: secret.mount_target,
    result: verdict.result,
    reason: (REASONS[verdict.result] as (verdict: Verdict) => string | undefined)(verdict)
  })
}

/**
 * What does not come in is for those to know who may list it: an organization's for its owners, one's own and a
 * repository's for whom it is resolved.
 */
function seesOf(role: OrganizationRole | null, own: boolean) {
  return ({ origin, verdict }: Explanation): boolean => {
    if (verdict.result === 'wins') return true
    if (origin === 'organization') return role === 'admin'
    return own || origin === 'project'
  }
}

export function resolutionService(dependencies: OnaDependencies): Service {
  const { db } = dependencies
  const ofProject = async (call: Call, projectId: string) => {
    const organization = await findActingOrganization(db, call.acting)
    if (!organization) throw new Forbidden(NO_ORGANIZATION)
    call.organization = organization
    const project = await findProject(db, call.acting, projectId)
    if (!project?.project_role) {
      throw new NotFound('There is no such project in the organization of this token.')
    }
    return {
      found: await explainCreation(db, creatorOf(dependencies, call), project),
      sees: seesOf(organization.role, true)
    }
  }
  const ofEnvironment = async (call: Call, environmentId: string) => {
    const environment = await getEnvironment(dependencies, call, environmentId)
    const own = environment.creator_uid === call.actor.accountUid
    return { found: await explainEnvironment(db, environment), sees: seesOf(environment.role, own) }
  }
  return {
    package: 'coffer.v1',
    name: 'ResolutionService',
    description: 'Which secrets environments receive, and why',
    methods: [
      method({
        name: 'ExplainSecrets',
        summary:
          'Tell for each secret whether an environment receives it, or would if it was made now, and why',
        access: 'environment:use',
        reads: true,
        request: Message(
          'coffer.v1.ExplainSecretsRequest',
          {
            environmentId: Uuid({ description: 'One that is there' }),
            projectId: Uuid({ description: 'One that the caller would make from this project' })
          },
          { oneofs: { of: { members: ['environmentId', 'projectId'], required: true } } }
        ),
        response: Message('coffer.v1.ExplainSecretsResponse', { secrets: List(ExplainedSecret) }),
        async handle({ environmentId, projectId }, call) {
          const { found, sees } = await (environmentId === undefined
            ? ofProject(call, projectId!)
            : ofEnvironment(call, environmentId))
          return compact({ secrets: found.filter(sees).map(presentExplanation) })
        }
      })
    ]
  }
}
