import type { Static } from '@sinclair/typebox'
import { createExchangeToken } from '../../directory/runner-tokens.ts'
import { createRunner, type NewRunner, removeRunner, updateRunnerSettings } from '../../directory/runners.ts'
import { NotFound } from '../../errors.ts'
import { findRunner, listRunners } from '../../store/runners.ts'
import { some } from './filters.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact } from './present.ts'
import {
  CreateRunnerRequest,
  presentRunner,
  Runner,
  RunnerKind,
  RunnerProvider,
  runnerSettings,
  UpdateRunnerRequest
} from './runner-messages.ts'
import { Bool, Empty, List, Message, required, Text, Uuid } from './schema.ts'

// Runners: where environments run. One of each organization is the servers themselves.
// https://ona.com/docs/ona/runners/overview

const RunnerRequest = { runnerId: Uuid({ required: true }) }

const ListRunnersRequest = Message('ListRunnersRequest', {
  pagination: PaginationRequest,
  filter: Message('ListRunnersRequest.Filter', {
    creatorIds: List(Uuid({ required: true }), { max: 25 }),
    kinds: List(required(RunnerKind), { max: 25 }),
    providers: List(required(RunnerProvider), { max: 25 })
  })
})

const ExchangeToken = Text({
  description: 'For IdentityService/ExchangeToken, once, within a day; shown once'
})

function filterOf({ filter = {} }: Static<typeof ListRunnersRequest>) {
  const { creatorIds, kinds, providers } = filter
  return { creatorUids: some(creatorIds), kinds: some(kinds), providers: some(providers) }
}

export function runnerService({ db, pages, authenticator }: OnaDependencies): Service {
  const get = async ({ organization }: Call, runnerUid: string) => {
    const runner = await findRunner(db, organization.organization_id, runnerUid)
    if (!runner) throw new NotFound('There is no such runner in the organization of this token.')
    return presentRunner(runner)
  }

  return {
    name: 'RunnerService',
    description: 'Runners: where environments run',
    methods: [
      method({
        name: 'CreateRunner',
        summary: 'Register a runner',
        access: 'organization:administer',
        request: CreateRunnerRequest,
        response: Message('CreateRunnerResponse', { runner: Runner, exchangeToken: ExchangeToken }),
        async handle(input, call) {
          const { kind, provider } = input
          const runner = { ...runnerSettings(input), kind, provider } as NewRunner
          const { uid, exchangeToken } = await createRunner(db, call.principal, call.organization, runner)
          return { runner: await get(call, uid), exchangeToken }
        }
      }),
      method({
        name: 'GetRunner',
        summary: 'Get a runner',
        access: 'organization:read',
        reads: true,
        request: Message('GetRunnerRequest', RunnerRequest),
        response: Message('GetRunnerResponse', { runner: Runner }),
        handle: async ({ runnerId }, call) => ({ runner: await get(call, runnerId!) })
      }),
      method({
        name: 'ListRunners',
        summary: 'List the runners of the organization, oldest first',
        access: 'organization:read',
        reads: true,
        request: ListRunnersRequest,
        response: Message('ListRunnersResponse', { pagination: PaginationResponse, runners: List(Runner) }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const place = { after: page.after?.[0] ?? 0, limit: page.limit }
          const found = await listRunners(db, call.organization.organization_id, filterOf(input), place)
          const { rows, pagination } = page.close(found, ({ runner_id }) => [runner_id])
          return compact({ pagination, runners: rows.map(presentRunner) })
        }
      }),
      method({
        name: 'UpdateRunner',
        summary: 'Change settings of a runner; what is unset stays',
        access: 'organization:administer',
        request: UpdateRunnerRequest,
        response: Empty,
        async handle(input, { principal, organization }) {
          await updateRunnerSettings(db, principal, organization, input.runnerId!, runnerSettings(input))
          return {}
        }
      }),
      method({
        name: 'DeleteRunner',
        summary: 'Delete a runner with its tokens and its classes, which projects allow no more',
        access: 'organization:administer',
        request: Message('DeleteRunnerRequest', {
          ...RunnerRequest,
          force: Bool({ description: 'With its environments' })
        }),
        response: Empty,
        async handle({ runnerId, force = false }, { principal, organization }) {
          authenticator.forget(await removeRunner(db, principal, organization, runnerId!, force))
          return {}
        }
      }),
      method({
        name: 'CreateRunnerToken',
        summary: 'Make another exchange token for a runner; its tokens stay valid',
        access: 'organization:administer',
        request: Message('CreateRunnerTokenRequest', RunnerRequest),
        response: Message('CreateRunnerTokenResponse', { exchangeToken: ExchangeToken }),
        handle: async ({ runnerId }, { principal, organization }) => ({
          exchangeToken: await createExchangeToken(db, principal, organization, runnerId!)
        })
      })
    ]
  }
}
