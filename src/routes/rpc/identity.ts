import type { Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { exchangeMethods } from './token-exchange.ts'

// Who asks, and how runners get their tokens.

export function identityService(dependencies: OnaDependencies): Service {
  return {
    name: 'IdentityService',
    description: 'Who asks, and how runners get their tokens',
    methods: [...exchangeMethods(dependencies)]
  }
}
