import { ACCESS, isAllowed, requireCollectionAccess, requireProjectAccess } from '../auth/access.ts'
import type { Actor } from '../auth/actor.ts'
import type { OrganizationFacts } from '../store/organizations.ts'
import type { OrganizationRole, ProjectRole } from '../store/tables.ts'
import type { ResourceEvent } from './resources.ts'

/** What watchers may know of, by the rules that reading the thing has. */

/** Somebody who watches, as it was when the stream began. */
export interface Watcher {
  actor: Actor
  /** the organization that the token acts in */
  organization: OrganizationFacts
}

/** What that somebody is now. */
export interface Standing {
  role: OrganizationRole
  /** on the project that the event is about */
  projectRole: ProjectRole | null
  /** whether the environment that the event is about is the watcher's, or the watcher itself */
  ownEnvironment: boolean
}

/** The project whose roles decide about an event; null: no project's. */
export function projectOf({ type, uid, collection }: ResourceEvent): string | null {
  if (type === 'RESOURCE_TYPE_PROJECT') return uid
  return collection?.kind === 'project' ? collection.ownerUid : null
}

/** Whether one may know of what has happened. What is neither secret, project nor environment all members know of. */
export function maySee({ actor, organization }: Watcher, event: ResourceEvent, now: Standing): boolean {
  const { role, projectRole, ownEnvironment } = now
  const { collection } = event
  if (collection) {
    const facts = { organization: { ...organization, role }, projectRole, serviceAccountHere: true }
    return isAllowed(() => requireCollectionAccess(actor, 'read', { ...collection, ...facts }))
  }
  if (event.type === 'RESOURCE_TYPE_PROJECT') {
    return isAllowed(() => requireProjectAccess(actor, ACCESS['project:use'], { project_role: projectRole }))
  }
  return event.type !== 'RESOURCE_TYPE_ENVIRONMENT' || role === 'admin' || ownEnvironment
}
