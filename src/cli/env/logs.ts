import type { Command } from 'commander'
import { openClient } from './client.ts'
import { contentOf, failuresOf, phaseOf, secretsOf, warningsOf } from './describe.ts'
import { findEnvironment } from './find.ts'
import { follow } from './follow.ts'
import type { Environment } from './messages.ts'

const HELP = `
A line each for the phase, for failures and warnings, for the content of the workspace and for each secret, with the
time when it was seen. The server keeps nothing of what processes write, and no past of the status; the audit log has
who did what.

Examples:
  $ npx coffer env logs web-1a2b3c
  $ npx coffer env logs web-1a2b3c --follow`

export function addLogsCommand(env: Command): void {
  env
    .command('logs')
    .description('Show what becomes of an environment.')
    .argument('<environment>', 'its name or id')
    .option('-f, --follow', 'go on with each change, until the environment is gone')
    .addHelpText('after', HELP)
    .action(logs)
}

async function logs(nameOrId: string, { follow: goesOn }: { follow?: true }): Promise<void> {
  const client = openClient()
  const environment = await findEnvironment(client, nameOrId)
  let before = new Map<string, string>()
  const show = (state: Environment) => {
    const now = new Map(linesOf(state))
    const time = new Date().toISOString()
    for (const [subject, text] of now) if (before.get(subject) !== text) print(time, subject, text)
    for (const subject of before.keys()) if (!now.has(subject)) print(time, subject, 'gone')
    before = now
  }
  show(environment)
  if (!goesOn) return
  for await (const state of follow(client, environment.id!, new AbortController().signal)) {
    if (state) show(state)
    else print(new Date().toISOString(), 'phase', 'deleted')
  }
}

/** By what they are about. */
function linesOf(environment: Environment): [string, string][] {
  const content = contentOf(environment)
  return [
    ['phase', phaseOf(environment)],
    ...failuresOf(environment).map((failure): [string, string] => [`failure  ${failure}`, '']),
    ...warningsOf(environment).map((warning): [string, string] => [`warning  ${warning}`, '']),
    ...(content ? [['content', content] as [string, string]] : []),
    ...secretsOf(environment).map(({ name, mount, state, reason, session }): [string, string] => [
      `secret  ${name}  ${mount}`,
      [session && state === 'ready' ? `ready, session ${session}` : state, reason].filter(Boolean).join(': ')
    ])
  ]
}

function print(time: string, subject: string, text: string): void {
  process.stdout.write(`${[time, subject, text].filter(Boolean).join('  ')}\n`)
}
