import { text } from 'node:stream/consumers'
import type { EnvironmentFolders, Sandbox } from './sandbox.ts'

const PATIENCE_MS = 30_000

/**
 * Makes and removes links, inside, as the environment's user: what is at a place already stays, and a link is removed
 * only where it is the one that was made. Arguments are action, path and target, again and again; for each that fails
 * a line is written: its number, and why.
 */
const SCRIPT = `
number=0
while [ $# -gt 0 ]; do
  action=$1 path=$2 target=$3
  shift 3
  there=
  if [ -L "$path" ]; then
    [ "$(readlink -- "$path")" = "$target" ] && there=ours || there=other
  elif [ -e "$path" ]; then
    there=other
  fi
  case $action$there in
  makeother) echo "$number taken" ;;
  make)
    folder=\${path%/*}
    { [ -d "$folder" ] || mkdir -p -- "$folder"; } 2>/dev/null && ln -s -- "$target" "$path" 2>/dev/null ||
      echo "$number failed"
    ;;
  removeours) rm -f -- "$path" ;;
  esac
  number=$((number + 1))
done
`

const REASONS: Readonly<Record<string, string>> = {
  taken: "A file of the environment's own is at this place.",
  failed: 'The link could not be made at this place: its folder may be read-only, or no folder.'
}

export interface FileSecret {
  secretId: string
  /** absolute, inside */
  path: string
  /** where the value is, inside */
  target: string
}

export interface LinkPlan {
  /** in folders of the environment's own: path → target */
  kept: Map<string, string>
  /** made anew at each start of a process: path → target */
  fresh: Map<string, string>
  /** secret id → reason */
  problems: Map<string, string>
}

/** Which links are made, and how; of two that are at odds the later one fails. */
export function planLinks(files: readonly FileSecret[], sandbox: Sandbox): LinkPlan {
  const plan: LinkPlan = { kept: new Map(), fresh: new Map(), problems: new Map() }
  const taken = new Set<string>()
  const above = new Set<string>()
  for (const { secretId, path, target } of files) {
    const problem = sandbox.refuseLink(path) ?? findCollision(path, taken, above)
    if (problem) {
      plan.problems.set(secretId, problem)
      continue
    }
    taken.add(path)
    for (const folder of foldersAbove(path)) above.add(folder)
    plan[sandbox.keepsLink(path) ? 'kept' : 'fresh'].set(path, target)
  }
  return plan
}

function findCollision(
  path: string,
  taken: ReadonlySet<string>,
  above: ReadonlySet<string>
): string | undefined {
  if (taken.has(path)) return 'Another secret is at this place.'
  if (above.has(path)) return 'Another secret is below this place.'
  const covered = foldersAbove(path).some((folder) => taken.has(folder))
  return covered ? 'A folder above this place is the file of another secret.' : undefined
}

function foldersAbove(path: string): string[] {
  const names = path.split('/').slice(1, -1)
  return names.map((_, index) => `/${names.slice(0, index + 1).join('/')}`)
}

export interface LinkChange {
  action: 'make' | 'remove'
  path: string
  target: string
}

/**
 * Makes and removes links in the environment's own folders, by one process for all of them.
 *
 * @returns path → why it could not be made
 */
export async function changeLinks(
  sandbox: Sandbox,
  folders: EnvironmentFolders,
  changes: readonly LinkChange[],
  signal: AbortSignal
): Promise<Map<string, string>> {
  if (changes.length === 0) return new Map()
  const operands = changes.flatMap(({ action, path, target }) => [action, path, target])
  const process = await sandbox.start(folders, {
    command: ['/bin/sh', '-c', SCRIPT, 'sh', ...operands],
    variables: {},
    links: new Map()
  })
  const end = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)])
  end.addEventListener('abort', () => process.kill(), { once: true })
  if (end.aborted) process.kill()
  process.stdin.end()
  process.stderr.resume()
  const [output, { code }] = await Promise.all([text(process.stdout), process.exit])
  signal.throwIfAborted()
  if (code !== 0) return new Map(changes.map(({ path }) => [path, REASONS.failed!]))
  return readProblems(output, changes)
}

function readProblems(output: string, changes: readonly LinkChange[]): Map<string, string> {
  const lines = output.split('\n').filter(Boolean)
  return new Map(
    lines.map((line) => {
      const [number, reason] = line.split(' ') as [string, string]
      return [changes[Number(number)]!.path, REASONS[reason]!]
    })
  )
}
