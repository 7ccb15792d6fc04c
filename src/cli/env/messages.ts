import type { Static } from '@sinclair/typebox'
import type { Environment as EnvironmentMessage } from '../../routes/rpc/environment-messages.ts'
import type { Project as ProjectMessage } from '../../routes/rpc/project-messages.ts'

// Of Ona's API, as the command line reads and writes them; members that have their default are left out.

export type Environment = Static<typeof EnvironmentMessage>
export type Spec = NonNullable<Environment['spec']>
export type Initializer = NonNullable<NonNullable<Spec['content']>['initializer']>
export type SecretReference = NonNullable<Spec['secrets']>[number]
export type Status = NonNullable<Environment['status']>
export type SecretStatus = NonNullable<Status['secrets']>[number]
export type Project = Static<typeof ProjectMessage>

/** One of `coffer.v1.ResolutionService/ExplainSecrets`. */
export interface ExplainedSecret {
  id?: string
  name?: string
  origin?: string
  mount?: string
  target?: string
  result?: string
  reason?: string
}
