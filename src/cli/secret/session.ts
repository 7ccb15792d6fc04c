import type { Command } from 'commander'
import { InvalidArgumentError } from 'commander'
import { loadSecretsClientConfig, readOwnEnvironment } from '../../config.ts'
import type { ApiClient } from '../api-client.ts'
import { Patience } from '../patience.ts'

export interface SessionOptions {
  maxWait: number
}

const REMEDIES: ApiClient['remedies'] = {
  unreachable: 'Set COFFER_URL to where the server is.',
  wrongUrl:
    'Set COFFER_URL to the API: https://coffer.example.com for Coffer, https://HOST/api/v3 for GitHub Enterprise ' +
    'Server, https://api.github.com for GitHub.',
  token: 'Set COFFER_TOKEN, or COFFER_TOKEN_FILE, to a valid token for this server.'
}

export function addSessionOptions(command: Command): Command {
  return command.option(
    '--max-wait <seconds>',
    'how long to wait, in all, for rate limits and failures that pass',
    parseSeconds,
    300
  )
}

/** A client as the environment has it; `say` tells a person what it waits for. */
export function openSession(
  { maxWait }: SessionOptions,
  { say = (line) => process.stderr.write(`${line}\n`), signal }: Session = {}
): ApiClient {
  return {
    ...loadSecretsClientConfig(readOwnEnvironment()),
    expected: "server of GitHub's secrets API",
    remedies: REMEDIES,
    patience: new Patience({ maxWaitSeconds: maxWait, say, ...(signal && { signal }) })
  }
}

interface Session {
  say?: (line: string) => void
  /** ends waiting; requests under way go on */
  signal?: AbortSignal
}

function parseSeconds(text: string): number {
  if (/^[0-9]{1,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('Give a whole number of seconds.')
}
