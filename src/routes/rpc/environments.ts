import { listMethod } from './environment-classes.ts'
import type { Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'

// Environments: of which classes they can be made. https://ona.com/docs/ona/environments/overview

export function environmentService(dependencies: OnaDependencies): Service {
  return {
    name: 'EnvironmentService',
    description: 'Environments: of which classes they can be made',
    methods: [listMethod(dependencies)]
  }
}
