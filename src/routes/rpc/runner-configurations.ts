import { NotFound } from '../../errors.ts'
import { createEnvironmentClass, updateEnvironmentClassSettings } from '../../projects/environment-classes.ts'
import { findEnvironmentClass } from '../../store/environment-classes.ts'
import {
  EnvironmentClass,
  EnvironmentClassConfiguration,
  listMethod,
  presentEnvironmentClass
} from './environment-classes.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { Bool, Empty, Message, Text, Uuid } from './schema.ts'

// What runners offer: classes of environments. https://ona.com/docs/ona/runners/overview

const DisplayName = { min: 3, max: 127 }
const Description = { min: 3, max: 200 }

const ClassRequest = { environmentClassId: Uuid({ required: true }) }

export function runnerConfigurationService(dependencies: OnaDependencies): Service {
  const { db } = dependencies
  const get = async ({ organization }: Call, classUid: string) => {
    const found = await findEnvironmentClass(db, organization.organization_id, classUid)
    if (!found) throw new NotFound('There is no such environment class in the organization of this token.')
    return found
  }

  return {
    name: 'RunnerConfigurationService',
    description: 'What runners offer: classes of environments',
    methods: [
      method({
        name: 'CreateEnvironmentClass',
        summary: 'Create a class of environments on a runner',
        access: 'organization:administer',
        request: Message('CreateEnvironmentClassRequest', {
          runnerId: Uuid({ required: true }),
          displayName: Text({ required: true, ...DisplayName }),
          description: Text({ required: true, ...Description }),
          configuration: EnvironmentClassConfiguration
        }),
        response: Message('CreateEnvironmentClassResponse', { id: Uuid() }),
        async handle(input, { principal, organization }) {
          const { runnerId, displayName, description, configuration = [] } = input
          const id = await createEnvironmentClass(db, principal, organization, runnerId!, {
            displayName: displayName!,
            description: description!,
            configuration: configuration.map(({ key, value = '' }) => ({ key: key!, value }))
          })
          return { id }
        }
      }),
      method({
        name: 'GetEnvironmentClass',
        summary: 'Get a class of environments',
        access: 'organization:read',
        reads: true,
        request: Message('GetEnvironmentClassRequest', ClassRequest),
        response: Message('GetEnvironmentClassResponse', { environmentClass: EnvironmentClass }),
        handle: async ({ environmentClassId }, call) => ({
          environmentClass: presentEnvironmentClass(await get(call, environmentClassId!))
        })
      }),
      listMethod(dependencies),
      method({
        name: 'UpdateEnvironmentClass',
        summary: 'Change a class of environments, or disable it; what is unset stays',
        access: 'organization:administer',
        request: Message('UpdateEnvironmentClassRequest', {
          ...ClassRequest,
          displayName: Text(DisplayName),
          description: Text(Description),
          enabled: Bool()
        }),
        response: Empty,
        async handle({ environmentClassId, displayName, description, enabled }, call) {
          const found = await get(call, environmentClassId!)
          await updateEnvironmentClassSettings(db, call.principal, call.organization, found, {
            ...(displayName !== undefined && { display_name: displayName }),
            ...(description !== undefined && { description }),
            ...(enabled !== undefined && { enabled })
          })
          return {}
        }
      })
    ]
  }
}
