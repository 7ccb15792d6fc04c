import { type Command, InvalidArgumentError } from 'commander'
import { loadClientConfig, readEnvironment } from '../../config.ts'
import { type ApiClient, exchange, nextQuery, requireSuccess, segment } from '../api-client.ts'
import { parseLogin } from '../names.ts'
import { printJson, printTable } from '../terminal.ts'

const PER_PAGE = 100
const DEFAULT_LIMIT = 30

const REMEDIES: ApiClient['remedies'] = {
  unreachable: 'Set COFFER_URL to where the server is.',
  wrongUrl: 'Set COFFER_URL.',
  token: 'Set COFFER_TOKEN, or COFFER_TOKEN_FILE, to a valid token.'
}

const HELP = `
It asks the server at COFFER_URL (http://127.0.0.1:3000) with COFFER_TOKEN, or COFFER_TOKEN_FILE: for the whole server
a token of an administrator with the scope site_admin, for one organization a token of one of its owners with the
scope read:audit_log.

A phrase has qualifiers, all of which must hold; a minus before one negates it, the same one twice means either:
  action:secret.create   action:secret.*   actor:mona   repo:mona/web   org:acme   outcome:denied
  created:2026-11-21   created:>=2026-11-01   created:2026-11-01..2026-11-07T18:00Z

Example:
  $ npx coffer audit list --phrase 'actor:mona -action:secret.update' --limit 100
  $ npx coffer audit list --org acme --phrase outcome:denied --json`

interface Options {
  org?: string
  all?: true
  phrase?: string
  limit: number
  oldestFirst?: true
  json?: true
}

interface Event {
  '@timestamp': number
  action: string
  outcome: string
  actor?: string
  actor_kind: string
  actor_ip?: string
  org?: string
  user?: string
  repo?: string
  name?: string
  occurrences?: number
}

export function addAuditList(audit: Command): void {
  audit
    .command('list')
    .description('Show records of the audit log, newest first.')
    .option('--org <login>', 'of this organization', parseLogin)
    .option('--all', 'of the whole server (as without --org)')
    .option('--phrase <phrase>', 'only those that it asks for')
    .option('--limit <number>', 'so many at most', parseLimit, DEFAULT_LIMIT)
    .option('--oldest-first', 'in the order in which they happened')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(list)
}

function parseLimit(text: string): number {
  const limit = Number(text)
  if (/^[0-9]{1,7}$/.test(text) && limit > 0) return limit
  throw new InvalidArgumentError('It must be a whole number from 1 to 9999999.')
}

async function list(options: Options, command: Command): Promise<void> {
  const { org, all, phrase, limit, oldestFirst, json } = options
  if (org !== undefined && all) command.error('error: --org and --all do not go together')
  const server = loadClientConfig(readEnvironment())
  const client: ApiClient = { ...server, expected: 'Coffer server', remedies: REMEDIES }
  const query = new URLSearchParams({
    per_page: String(Math.min(limit, PER_PAGE)),
    ...(phrase !== undefined && { phrase }),
    ...(oldestFirst && { order: 'asc' })
  })
  const events: Event[] = []
  const log = `${org === undefined ? '/admin' : `/orgs/${segment(org)}`}/audit-log`
  const notFound =
    org === undefined ? '' : `There is no organization ${org}, or the token's account is none of its members.`
  for (let page: string | undefined = `?${query}`; page !== undefined && events.length < limit; ) {
    const request = { method: 'GET', path: log + page, notFound } as const
    const answer = requireSuccess(client, request, await exchange(client, request))
    events.push(...(answer.body as Event[]))
    page = nextQuery(answer)
    if (process.stderr.isTTY && page !== undefined)
      process.stderr.write(`\r${events.length} records found … `)
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  events.length = Math.min(events.length, limit)
  if (json) printJson(events)
  else if (events.length === 0) process.stderr.write('No records.\n')
  else printTable(['TIME', 'WHO', 'ACTION', 'OF', 'IN', ''], events.map(row))
}

function row(event: Event): string[] {
  const { action, outcome, actor, actor_kind, actor_ip, occurrences } = event
  const remarks = [
    ...(outcome === 'allowed' ? [] : [outcome]),
    ...(occurrences === undefined ? [] : [`${occurrences} times`]),
    ...(actor_ip === undefined ? [] : [`from ${actor_ip}`])
  ]
  return [
    new Date(event['@timestamp']).toISOString(),
    actor ?? `(${actor_kind})`,
    action,
    event.name ?? '',
    event.repo ?? event.org ?? event.user ?? '',
    remarks.join(', ')
  ]
}
