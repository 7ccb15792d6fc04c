import { findActingOrganization } from '../../store/acting.ts'
import { method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { compact, Subject, subject } from './present.ts'
import { Message, Text, Uuid } from './schema.ts'
import { exchangeMethods } from './token-exchange.ts'

// Who a token stands for: every kind of them has one; and how runners get theirs.

export function identityService(dependencies: OnaDependencies): Service {
  const { db } = dependencies
  return {
    name: 'IdentityService',
    description: 'Who a token stands for, and how runners get theirs',
    methods: [
      method({
        name: 'GetAuthenticatedIdentity',
        summary: 'Get who the token stands for, and the organization that it acts in',
        access: 'authenticated',
        reads: true,
        request: Message('GetAuthenticatedIdentityRequest', {}),
        response: Message('GetAuthenticatedIdentityResponse', {
          subject: Subject,
          organizationId: Uuid({ description: 'Unset: the token acts in none' }),
          organizationTier: Text()
        }),
        async handle(_input, { acting, principal }) {
          const organization = await findActingOrganization(db, acting)
          return compact({
            subject: subject(principal.kind, principal.uid),
            organizationId: organization?.organization_uid,
            organizationTier: organization && 'ORGANIZATION_TIER_ENTERPRISE'
          })
        }
      }),
      ...exchangeMethods(dependencies)
    ]
  }
}
