import { Enum } from './schema.ts'

export const RunnerKind = Enum('RUNNER_KIND', {
  RUNNER_KIND_LOCAL: 1,
  RUNNER_KIND_REMOTE: 2,
  RUNNER_KIND_LOCAL_CONFIGURATION: 3
})
