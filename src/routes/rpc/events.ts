import type { Static } from '@sinclair/typebox'
import type { Kysely } from 'kysely'
import { ACCESS, requireAccess, requireOrganizationAccess } from '../../auth/access.ts'
import { readAuthorization, tokenCacheKey } from '../../auth/token.ts'
import { Forbidden, NotFound } from '../../errors.ts'
import type { EventFilter } from '../../events/interest.ts'
import { findActingOrganization } from '../../store/acting.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import type { Database } from '../../store/tables.ts'
import { findWatchedEnvironment } from '../../store/watchers.ts'
import { getAuditLog, listAuditLogs } from './audit-logs.ts'
import { invalid } from './decode.ts'
import { NO_ORGANIZATION } from './guard.ts'
import { type Call, type Service, streamMethod } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { ResourceType } from './resource-types.ts'
import { Bool, Enum, List, Message, required, Uuid } from './schema.ts'

// What happens to the resources of an organization, as it happens, and its audit log.

const Ids = List(Uuid({ required: true }), { max: 25 })

const ResourceTypeFilter = Message('WatchEventsRequest.ResourceTypeFilter', {
  resourceType: required(ResourceType),
  resourceIds: Ids,
  creatorIds: {
    ...Ids,
    description: 'Of what is deleted nobody knows it: deletions are told whoever created it'
  }
})

const WatchEventsRequest = Message(
  'WatchEventsRequest',
  {
    organization: Bool({
      description: 'All that one may see in the organization; so it is without any scope'
    }),
    environmentId: Uuid({ description: 'This environment alone' }),
    resourceTypeFilters: List(ResourceTypeFilter, {
      max: 50,
      description: 'Only what fits one of these; with the scope of an organization alone'
    })
  },
  { oneofs: { scope: { members: ['organization', 'environmentId'] } } }
)

const WatchEventsResponse = Message('WatchEventsResponse', {
  operation: Enum('RESOURCE_OPERATION', {
    RESOURCE_OPERATION_CREATE: 1,
    RESOURCE_OPERATION_UPDATE: 2,
    RESOURCE_OPERATION_DELETE: 3,
    RESOURCE_OPERATION_UPDATE_STATUS: 4
  }),
  resourceType: ResourceType,
  resourceId: Uuid()
})

/** The organization that the token acts in, which it may watch. */
async function requireOrganization(db: Kysely<Database>, call: Call): Promise<OrganizationFacts> {
  const { actor, acting } = call
  if (actor.kind === 'environment') {
    throw new Forbidden('The token of an environment watches that environment: set environmentId.')
  }
  const organization = await findActingOrganization(db, acting)
  if (!organization) throw new Forbidden(NO_ORGANIZATION)
  call.organization = organization
  requireOrganizationAccess(actor, ACCESS['organization:read'], organization)
  return organization
}

/** The organization of an environment that may be watched: one's own, the one that asks, or any for owners. */
async function requireEnvironment(
  db: Kysely<Database>,
  { actor, acting }: Call,
  environmentUid: string
): Promise<OrganizationFacts> {
  if (actor.kind !== 'environment') requireAccess(actor, ACCESS['organization:read'])
  const found = await findWatchedEnvironment(db, acting, environmentUid)
  const own = found && [found.environment_uid, found.creator_uid].includes(actor.accountUid)
  if (own || found?.role === 'admin') return found!
  throw new NotFound('There is no such environment that this token may know of.')
}

function filterOf({ resourceType, resourceIds, creatorIds }: Static<typeof ResourceTypeFilter>): EventFilter {
  return { type: resourceType!, uids: new Set(resourceIds), creatorUids: new Set(creatorIds) }
}

export function eventService(dependencies: OnaDependencies): Service {
  const { db, events } = dependencies
  return {
    name: 'EventService',
    description: 'What happens to resources, as it happens, and the audit log',
    methods: [
      streamMethod({
        name: 'WatchEvents',
        summary: 'Watch what happens to the resources of an organization, or to an environment',
        access: 'events',
        reads: true,
        stream: true,
        request: WatchEventsRequest,
        response: WatchEventsResponse,
        async open({ environmentId, resourceTypeFilters = [] }, call) {
          const { actor, acting, http } = call
          if (environmentId !== undefined && resourceTypeFilters.length > 0) {
            throw invalid('resourceTypeFilters', 'does not go with environmentId')
          }
          const begin = await events.admit({
            actor,
            acting,
            organization:
              environmentId === undefined
                ? await requireOrganization(db, call)
                : await requireEnvironment(db, call, environmentId),
            tokenKey: tokenCacheKey(readAuthorization(http.headers.authorization)!),
            environmentUid: environmentId,
            filters: resourceTypeFilters.map(filterOf)
          })
          return (lines) => {
            const leave = begin({
              send: ({ operation, type, uid }) =>
                lines.send({ operation, resourceType: type, resourceId: uid }),
              keepAlive: () => lines.send({}),
              end: () => lines.end()
            })
            lines.onClose(leave)
          }
        }
      }),
      listAuditLogs(dependencies),
      getAuditLog(dependencies)
    ]
  }
}
