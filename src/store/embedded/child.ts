import { spawn } from 'node:child_process'
import type { Account } from './account.ts'

/** All that a child gets of an environment: nothing of ours, so that no secret and no PG* variable reaches it. */
export const childEnvironment = {
  PATH: '/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin',
  LANG: 'C',
  LC_ALL: 'C',
  TZ: 'UTC'
}

/** Spawn options that make a child run as `account`; the working folder is one that every user can enter. */
export function spawnAs(account: Account | undefined) {
  const identity = account?.switched ? { uid: account.uid, gid: account.gid } : {}
  return { cwd: '/', env: childEnvironment, ...identity }
}

/**
 * Runs a command to its end, without a shell. `code` is undefined when it could not be started or was killed;
 * `output` is stdout and stderr together.
 */
export function run(
  command: string,
  args: string[],
  { account, input = '' }: { account?: Account; input?: string } = {}
): Promise<{ code: number | undefined; output: string }> {
  return new Promise((resolve) => {
    let output = ''
    const child = spawn(command, args, { ...spawnAs(account), stdio: 'pipe' })
    const collect = (chunk: Buffer) => {
      output += chunk.toString()
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    child.on('error', (error) => resolve({ code: undefined, output: error.message }))
    child.on('close', (code, signal) => {
      resolve({ code: code ?? undefined, output: signal ? `${output}\nended by ${signal}` : output })
    })
  })
}

/** The last lines of a program's output, on one line, to be quoted in a message. */
export function lastLines(output: string): string {
  return output.trim().split('\n').slice(-4).join(' | ')
}
