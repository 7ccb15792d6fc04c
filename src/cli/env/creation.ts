import { randomUUID } from 'node:crypto'
import { type Command, InvalidArgumentError } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { type ApiClient, FailedByServer } from '../api-client.ts'
import { shortOf } from '../api-errors.ts'
import { NoAnswer } from '../no-answer.ts'
import { CommandFailed } from '../terminal.ts'
import { call, listAll } from './client.ts'
import { parseDuration } from './duration.ts'
import { findProject, findSecretId } from './find.ts'
import type { Environment, Initializer, Project } from './messages.ts'

export interface CreationOptions {
  project: string
  name?: string
  class?: string
  branch?: string
  timeout?: number
  secret?: string[]
  gitSecret?: GitSecret[]
}

interface GitSecret {
  secret: string
  host: string
}

export function addCreationOptions(command: Command): Command {
  return command
    .requiredOption('-p, --project <project>', 'name or id of the project that it is made from')
    .option('-n, --name <name>', 'its name; one is made where none is given')
    .option('--class <id>', 'environment class; otherwise the first that the project allows')
    .option('-b, --branch <branch>', "check out this branch of the project's repository")
    .option(
      '--timeout <duration>',
      'stop it when nobody has been at work for so long: 30m or more, 0 for never',
      parseDuration
    )
    .option('--secret <secret>', 'receive this one alone, by name or id; repeatable', addText)
    .option(
      '--git-secret <secret=host>',
      'use a secret as the credential of git for a host; repeatable',
      addGitSecret
    )
}

/** What to ask a server for. */
export interface Creation {
  projectId: string
  name?: string
  spec: object
}

/** Asks for all that names stand for, before anything is made. */
export async function readCreation(client: ApiClient, options: CreationOptions): Promise<Creation> {
  const project = await findProject(client, options.project)
  const { name, class: classId, branch, timeout } = options
  const secrets: object[] = []
  for (const secret of options.secret ?? []) {
    secrets.push({ sourceRef: await findSecretId(client, project, secret) })
  }
  for (const { secret, host } of options.gitSecret ?? []) {
    secrets.push({ sourceRef: await findSecretId(client, project, secret), gitCredentialHost: host })
  }
  return {
    projectId: project.id!,
    ...(name !== undefined && { name }),
    spec: {
      ...(classId !== undefined && { machine: { class: classId } }),
      ...(branch !== undefined && { content: { initializer: onBranch(project, branch) } }),
      ...(timeout !== undefined && { timeout: { disconnected: `${timeout}s` } }),
      ...(secrets.length > 0 && { secrets })
    }
  }
}

/**
 * Makes an environment, once: when the answer is lost, the one that was made is found by its session.
 *
 * @returns the environment as it is then
 */
export async function createEnvironment(client: ApiClient, creation: Creation): Promise<Environment> {
  const sessionId = randomUUID()
  const { patience: _, ...once } = client
  try {
    const method = 'gitpod.v1.EnvironmentService/CreateEnvironmentFromProject'
    const { environment } = await call<{ environment: Environment }>(once, method, { ...creation, sessionId })
    if (environment?.id) return environment
    throw new CommandFailed('The server made no environment.')
  } catch (error) {
    if (!(error instanceof NoAnswer || error instanceof FailedByServer)) throw error
    const [made] = await findBySession(client, sessionId).catch(() => [])
    if (made) return made
    throw error
  }
}

async function findBySession(client: ApiClient, sessionId: string): Promise<Environment[]> {
  const method = 'gitpod.v1.EnvironmentService/ListEnvironments'
  return await listAll<Environment>(client, method, { filter: { sessionIds: [sessionId] } }, 'environments')
}

/** The project's repositories, the first of them on that branch. */
function onBranch({ initializer, metadata }: Project, branch: string): Initializer {
  const [first, ...others] = initializer?.specs ?? []
  if (!first?.git) {
    throw new RefusedToStart(
      `--branch needs a project with the address of a repository; ${shortOf(metadata?.name ?? '')} has none.`
    )
  }
  const git = { ...first.git, targetMode: 'CLONE_TARGET_MODE_REMOTE_BRANCH' as const, cloneTarget: branch }
  return { specs: [{ git }, ...others] }
}

function addText(text: string, given: string[] = []): string[] {
  return [...given, text]
}

function addGitSecret(text: string, given: GitSecret[] = []): GitSecret[] {
  const [secret = '', host = '', ...rest] = text.split('=')
  if (secret === '' || host === '' || rest.length > 0) {
    throw new InvalidArgumentError('Write it as SECRET=HOST, as DEPLOY_KEY=github.com.')
  }
  return [...given, { secret, host }]
}
