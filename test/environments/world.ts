// biome-ignore-all lint/suspicious/noExplicitAny: JSON of all methods
import { randomUUID } from 'node:crypto'
import type { Test } from 'tap'
import type { TestServerOptions } from '../helper.ts'
import { type OnaServer, startOnaServer } from '../routes/rpc/helper.ts'

// An organization with a project and a runner that is asked what it would be told: the real one has tests of its own.

/** A runner that does nothing but ask and tell. */
export interface RunnerHere {
  id: string
  token: string
  /** a class of environments that are made there */
  classId: string
  /** the process that asks */
  holder: string
  call(method: string, message: object): Promise<{ status: number; body: any }>
  /** what it is told */
  claim(held?: readonly object[], capacity?: number): Promise<any[]>
  report(assignment: any, phase: string, more?: object): Promise<{ status: number; body: any }>
}

export interface World extends OnaServer {
  classId: string
  projectId: string
  runner: RunnerHere
  /** answers what the method gives, and throws when it refuses */
  ask(method: string, message: unknown, token?: string): Promise<any>
  addRunner(token?: string): Promise<RunnerHere>
  /** makes an environment of the project */
  create(token?: string, more?: object): Promise<any>
  /** makes one, and gives what its runner is told */
  start(token?: string, more?: object): Promise<any>
  /** a secret that is a variable, of the project unless another scope is given */
  addSecret(name: string, value: string, more?: object, token?: string): Promise<string>
  /** the value as an environment reads it */
  read(accessToken: string, secretId: string): Promise<{ status: number; body: any }>
  /** lets all members use the project */
  openProject(): Promise<void>
}

export const RUNNING = 'ENVIRONMENT_PHASE_RUNNING'

/** What a runner says of what it holds. */
export function held({ environmentId, epoch, specVersion }: any): object {
  return { environmentId, epoch, specVersion }
}

/** Asks until there is an answer. */
export async function until<T>(ask: () => Promise<T | undefined | false>): Promise<T> {
  for (let tries = 0; tries < 200; tries++) {
    const answer = await ask()
    if (answer) return answer
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('nothing came')
}

/** What a runner is told next of what it holds, as soon as that is what is waited for. */
export async function told(
  runner: RunnerHere,
  before: any,
  check: (assignment: any) => boolean = () => true
): Promise<any> {
  return await until(async () => {
    const assignments = await runner.claim([held(before)])
    return assignments.find((next) => next.environmentId === before.environmentId && check(next))
  })
}

export function names({ secrets = [] }: any): string[] {
  return secrets.map(({ name }: any) => name).sort()
}

function runnerOf(server: OnaServer, made: Pick<RunnerHere, 'id' | 'token' | 'classId'>): RunnerHere {
  const runner: RunnerHere = {
    ...made,
    holder: randomUUID(),
    async call(method, message) {
      const response = await server.request('POST', `/api/coffer.v1.RunnerInterfaceService/${method}`, {
        token: made.token,
        body: message
      })
      return { status: response.statusCode, body: response.json() }
    },
    async claim(held = [], capacity = 10) {
      const { status, body } = await runner.call('ClaimEnvironments', {
        holder: runner.holder,
        held,
        capacity
      })
      if (status !== 200) throw new Error(JSON.stringify(body))
      return body.assignments ?? []
    },
    report: (assignment, phase, more = {}) =>
      runner.call('ReportStatus', {
        lease: { environmentId: assignment.environmentId, epoch: assignment.epoch },
        report: { phase, specVersion: assignment.specVersion, ...more }
      })
  }
  return runner
}

export async function furnish(t: Test, options: TestServerOptions = {}): Promise<World> {
  const server = await startOnaServer(t, { events: true, ...options })
  const ask = async (method: string, message: unknown, token = server.owner.token) => {
    const { status, body } = await server.call(method, token, message)
    if (status !== 200) throw new Error(`${method} answered ${status}: ${JSON.stringify(body)}`)
    return body
  }
  const addRunner = async (token = server.owner.token) => {
    const made = await ask(
      'RunnerService/CreateRunner',
      { name: 'here', provider: 'RUNNER_PROVIDER_LINUX_HOST' },
      token
    )
    const { exchangeToken } = made
    const { accessToken } = await ask('IdentityService/ExchangeToken', { exchangeToken })
    const { runnerId: id } = made.runner
    const { id: classId } = await ask(
      'RunnerConfigurationService/CreateEnvironmentClass',
      { runnerId: id, displayName: 'small', description: 'small ones' },
      token
    )
    return runnerOf(server, { id, token: accessToken, classId })
  }
  const runner = await addRunner()
  const { project } = await ask('ProjectService/CreateProject', {
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: 'http://coffer.test/acme/web.git' } }] },
    environmentClass: { environmentClassId: runner.classId }
  })
  const projectId: string = project.id
  const create = async (token = server.owner.token, more: object = {}) => {
    const made = await ask('EnvironmentService/CreateEnvironmentFromProject', { projectId, ...more }, token)
    return made.environment
  }
  return Object.assign(server, {
    classId: runner.classId,
    projectId,
    runner,
    ask,
    addRunner,
    create,
    async start(token = server.owner.token, more: object = {}) {
      const { id } = await create(token, more)
      const assignments = await runner.claim()
      return assignments.find(({ environmentId }) => environmentId === id)
    },
    async addSecret(name: string, value: string, more: object = {}, token = server.owner.token) {
      const request = { name, value, environmentVariable: true, scope: { projectId }, ...more }
      const { secret } = await ask('SecretService/CreateSecret', request, token)
      return secret.id as string
    },
    read: (accessToken: string, secretId: string) =>
      server.call('SecretService/GetSecretValue', accessToken, { secretId }),
    async openProject() {
      const { groups } = await ask('GroupService/ListGroups', {})
      const { id: groupId } = groups.find(({ name }: any) => name === 'everyone')
      await ask('ProjectService/CreateProjectPolicy', { projectId, groupId, role: 'PROJECT_ROLE_USER' })
    }
  })
}
