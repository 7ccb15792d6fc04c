/** The life of an environment as data: by Ona's names of phases, https://ona.com/docs/ona/environments/overview */

export const PHASES = [
  'ENVIRONMENT_PHASE_CREATING',
  'ENVIRONMENT_PHASE_STARTING',
  'ENVIRONMENT_PHASE_RUNNING',
  'ENVIRONMENT_PHASE_UPDATING',
  'ENVIRONMENT_PHASE_STOPPING',
  'ENVIRONMENT_PHASE_STOPPED',
  'ENVIRONMENT_PHASE_DELETING',
  'ENVIRONMENT_PHASE_DELETED'
] as const
export type EnvironmentPhase = (typeof PHASES)[number]

const CREATING = 'ENVIRONMENT_PHASE_CREATING'
const STARTING = 'ENVIRONMENT_PHASE_STARTING'
const RUNNING = 'ENVIRONMENT_PHASE_RUNNING'
const UPDATING = 'ENVIRONMENT_PHASE_UPDATING'
const STOPPING = 'ENVIRONMENT_PHASE_STOPPING'
const STOPPED = 'ENVIRONMENT_PHASE_STOPPED'
const DELETING = 'ENVIRONMENT_PHASE_DELETING'
const DELETED = 'ENVIRONMENT_PHASE_DELETED'

const ENDINGS = [STOPPING, STOPPED, DELETING, DELETED] as const

/**
 * What may be observed after what. A runner tells the newest state and may have passed others on the way; one that
 * takes an environment over from another that died begins it again.
 */
const NEXT: Readonly<Record<EnvironmentPhase, readonly EnvironmentPhase[]>> = {
  [CREATING]: [CREATING, STARTING, RUNNING, UPDATING, ...ENDINGS],
  [STARTING]: [CREATING, STARTING, RUNNING, UPDATING, ...ENDINGS],
  [RUNNING]: [CREATING, STARTING, RUNNING, UPDATING, ...ENDINGS],
  [UPDATING]: [CREATING, STARTING, RUNNING, UPDATING, ...ENDINGS],
  [STOPPING]: [...ENDINGS, CREATING, STARTING, RUNNING],
  [STOPPED]: [STOPPED, CREATING, STARTING, RUNNING, DELETING, DELETED],
  [DELETING]: [DELETING, DELETED],
  [DELETED]: [DELETED]
}

export function mayFollow(before: EnvironmentPhase, after: EnvironmentPhase): boolean {
  return NEXT[before].includes(after)
}

/** After which this may be observed. */
export function phasesBefore(after: EnvironmentPhase): EnvironmentPhase[] {
  return PHASES.filter((before) => mayFollow(before, after))
}

/** What somebody asks an environment to do. */
export type Wish = 'start' | 'stop' | 'delete' | 'archive' | 'unarchive' | 'update'

/** What an environment is to be, and whether it is in the archive. */
export interface Intention {
  desiredPhase: string
  archived: boolean
}

/** What it is to be then; a refusal says why not and what to do. */
export type Decision = { intention: Intention } | { refusal: string }

const GONE = 'The environment is being deleted.'
const IN_ARCHIVE = 'The environment is archived. Unarchive it first.'

/** What comes of a wish; asking for what is so already changes nothing. */
export function decide(wish: Wish, now: Intention): Decision {
  if (wish === 'delete') return { intention: { ...now, desiredPhase: DELETED } }
  if (now.desiredPhase === DELETED) return { refusal: GONE }
  switch (wish) {
    case 'start':
      if (now.archived) return { refusal: IN_ARCHIVE }
      return { intention: { ...now, desiredPhase: RUNNING } }
    case 'stop':
      return { intention: { ...now, desiredPhase: STOPPED } }
    case 'archive':
      // One that runs is stopped first.
      return { intention: { desiredPhase: STOPPED, archived: true } }
    case 'unarchive':
      return { intention: { ...now, archived: false } }
    case 'update':
      return now.archived ? { refusal: IN_ARCHIVE } : { intention: now }
  }
}
