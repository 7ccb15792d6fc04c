import type { FastifyRequest } from 'fastify'
import { renewRunnerToken } from '../../directory/runner-tokens.ts'
import {
  claim,
  findEnvironments,
  type RunnerSelf,
  release,
  renew,
  report
} from '../../environments/leases.ts'
import type { Lease as HeldLease, StatusReport as Report } from '../../runner/interface.ts'
import { ContentPhase, EnvironmentPhase } from './environment-messages.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { compact } from './present.ts'
import { CloneTargetMode } from './project-messages.ts'
import { Bool, Empty, Int32, List, Message, required, Text, Uint64, Uuid } from './schema.ts'

// What a runner on another machine asks, with its own token. The same is asked by the servers' own runner in process.

const MAX_WAIT_SECONDS = 30
const MAX_ENVIRONMENTS = 10_000

const held = { environmentId: Uuid({ required: true }), epoch: Int32({ required: true, min: 0 }) }
const Lease = Message('coffer.v1.Lease', held)
const Holder = Uuid({ required: true, description: 'This process of the runner' })
const Phase = (options: { required?: boolean } = {}) =>
  options.required ? required(EnvironmentPhase) : EnvironmentPhase

const Assignment = Message('coffer.v1.Assignment', {
  ...held,
  specVersion: Uint64(),
  desiredPhase: EnvironmentPhase,
  phase: EnvironmentPhase,
  accessToken: Text({ description: 'Reads the values of `secrets` for as long as the lease holds' }),
  insideToken: Text({
    description: 'For its processes: reads secrets for the API alone; unset: there are none'
  }),
  serverUrl: Text({ description: 'Where its processes reach the server' }),
  content: Message('coffer.v1.Content', {
    sources: List(
      Message('coffer.v1.GitSource', {
        remoteUri: Text(),
        upstreamRemoteUri: Text(),
        targetMode: CloneTargetMode,
        cloneTarget: Text(),
        checkoutLocation: Text()
      })
    ),
    gitUsername: Text(),
    gitEmail: Text(),
    session: Text()
  }),
  secrets: List(
    Message('coffer.v1.SecretReference', {
      id: Uuid(),
      name: Text(),
      session: Text(),
      mount: Message('coffer.v1.SecretMount', {
        kind: Text({ description: '`variable`, `file`, `registry`, `git` or `api-only`' }),
        name: Text({ description: 'Of a variable' }),
        path: Text({ description: 'Of a file' }),
        host: Text({ description: 'Of a registry, or of git' })
      }),
      problem: Text({ description: 'Why it is not delivered' })
    })
  )
})

const MAX_MESSAGE = 4096

const StatusReport = Message('coffer.v1.StatusReport', {
  phase: Phase({ required: true }),
  specVersion: Uint64({ required: true }),
  failureMessage: Text({ max: MAX_MESSAGE }),
  warningMessage: Text({ max: MAX_MESSAGE }),
  content: Message('coffer.v1.ContentStatus', {
    phase: ContentPhase,
    session: Text({ max: 255 }),
    location: Text({ max: MAX_MESSAGE }),
    failureMessage: Text({ max: MAX_MESSAGE }),
    git: Message('coffer.v1.GitStatus', {
      cloneUrl: Text({ max: MAX_MESSAGE }),
      branch: Text({ max: MAX_MESSAGE }),
      latestCommit: Text({ max: 255 })
    })
  }),
  secrets: List(
    Message('coffer.v1.SecretStatus', {
      id: Uuid({ required: true }),
      secretName: Text({ max: 255 }),
      phase: ContentPhase,
      session: Text({ max: 255 }),
      failureMessage: Text({ max: MAX_MESSAGE }),
      warningMessage: Text({ max: MAX_MESSAGE })
    }),
    { max: 10_000 }
  ),
  secretsInSync: Bool()
})

function selfOf({ principal, actor, http }: Call): RunnerSelf {
  return { principal, runners: { runnerId: actor.accountId }, serverUrl: http.server.baseUrl() }
}

/** Gives what the runner waits for; the signal says that it has gone: nothing is given to nobody. */
async function whileConnected<T>(
  { raw: { socket } }: FastifyRequest,
  give: (signal: AbortSignal) => Promise<T>
): Promise<T> {
  const gone = new AbortController()
  const leave = () => gone.abort()
  socket.once('close', leave)
  try {
    return await give(gone.signal)
  } finally {
    // The connection may be there for many more requests.
    socket.off('close', leave)
  }
}

export function runnerInterfaceService({ db, wakes, closing }: OnaDependencies): Service {
  return {
    package: 'coffer.v1',
    name: 'RunnerInterfaceService',
    description: 'What a runner asks: environments to work on, and where it tells how they are',
    methods: [
      method({
        name: 'ClaimEnvironments',
        summary: 'Wait for environments that are to be worked on, or changed',
        access: 'runner',
        request: Message('coffer.v1.ClaimEnvironmentsRequest', {
          holder: Holder,
          held: List(Message('coffer.v1.HeldEnvironment', { ...held, specVersion: Uint64() }), {
            max: MAX_ENVIRONMENTS
          }),
          capacity: Int32({ min: 0, max: 1000 }),
          waitSeconds: Int32({ min: 0, max: MAX_WAIT_SECONDS })
        }),
        response: Message('coffer.v1.ClaimEnvironmentsResponse', { assignments: List(Assignment) }),
        async handle({ holder, held = [], capacity = 0, waitSeconds = 0 }, call) {
          const request = {
            holder: holder!,
            held: held.map(({ environmentId, epoch, specVersion = '' }) => ({
              environmentId: environmentId!,
              epoch: epoch ?? 0,
              specVersion
            })),
            capacity,
            waitSeconds
          }
          const assignments = await whileConnected(call.http, (gone) =>
            claim(db, wakes, selfOf(call), request, AbortSignal.any([closing, gone]))
          )
          return compact({
            assignments: assignments.map(({ content, secrets, ...rest }) => ({
              ...compact(rest),
              content: compact({ ...content, sources: content.sources.map(compact) }),
              secrets: [...secrets]
            }))
          }) as object
        }
      }),
      method({
        name: 'RenewLeases',
        summary: 'Prolong leases',
        access: 'runner',
        request: Message('coffer.v1.RenewLeasesRequest', {
          holder: Holder,
          leases: List(Lease, { max: MAX_ENVIRONMENTS })
        }),
        response: Message('coffer.v1.RenewLeasesResponse', {
          lostEnvironmentIds: List(Uuid(), { description: 'Those that are no longer its own' })
        }),
        handle: async ({ holder, leases = [] }, call) =>
          compact({ lostEnvironmentIds: await renew(db, selfOf(call), holder!, leases.map(leaseOf)) })
      }),
      method({
        name: 'ReleaseLeases',
        summary: 'Give leases up before they have run out',
        access: 'runner',
        request: Message('coffer.v1.ReleaseLeasesRequest', {
          holder: Holder,
          leases: List(Lease, { max: MAX_ENVIRONMENTS })
        }),
        response: Empty,
        async handle({ holder, leases = [] }, call) {
          await release(db, selfOf(call), holder!, leases.map(leaseOf))
          return {}
        }
      }),
      method({
        name: 'ReportStatus',
        summary: 'Tell the state of an environment',
        access: 'runner',
        request: Message('coffer.v1.ReportStatusRequest', {
          lease: required(Lease),
          report: required(StatusReport)
        }),
        response: Empty,
        async handle({ lease, report: state }, call) {
          const whole = { secrets: [], secretsInSync: false, ...state } as unknown as Report
          await report(db, selfOf(call), leaseOf(lease!), whole)
          return {}
        }
      }),
      method({
        name: 'FindEnvironments',
        summary: 'Tell which of these environments are there',
        access: 'runner',
        reads: true,
        request: Message('coffer.v1.FindEnvironmentsRequest', {
          environmentIds: List(Uuid({ required: true }), { max: MAX_ENVIRONMENTS })
        }),
        response: Message('coffer.v1.FindEnvironmentsResponse', { environmentIds: List(Uuid()) }),
        handle: async ({ environmentIds = [] }, call) =>
          compact({ environmentIds: await findEnvironments(db, selfOf(call), environmentIds) })
      }),
      method({
        name: 'RenewToken',
        summary: 'Get another token before the present one ends',
        access: 'runner',
        request: Empty,
        response: Message('coffer.v1.RenewTokenResponse', {
          accessToken: Text({ description: 'Shown once; lives for a day' })
        }),
        handle: async (_input, { principal, organization, actor, http }) => ({
          accessToken: await renewRunnerToken(
            db,
            principal,
            organization,
            { runner_id: actor.accountId, runner_uid: actor.accountUid, name: actor.login },
            { requestId: http.id, address: http.ip as string | undefined }
          )
        })
      })
    ]
  }
}

function leaseOf({ environmentId, epoch }: { environmentId?: string; epoch?: number }): HeldLease {
  return { environmentId: environmentId!, epoch: epoch ?? 0 }
}
