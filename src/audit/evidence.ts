import type { Head } from './chain.ts'
import {
  checkpointHash,
  isCheckpointSigned,
  parseCheckpointLine,
  Root,
  type SignedCheckpoint
} from './checkpoint.ts'
import type { PublicKeys } from './key.ts'

/** Where a checkpoint says that a stream was. */
export interface Mark extends Head {
  counter: number
}

/** What was kept of checkpoints outside the database, to verify an export against. */
export interface Evidence {
  /** by stream */
  marks: ReadonlyMap<string, readonly Mark[]>
  /** the newest with the ends of all streams; undefined: none has them */
  newest: SignedCheckpoint | undefined
  /** the newest of all, those of a log included */
  newestStatement: SignedCheckpoint | undefined
  /** why one of them is not to be believed */
  problems: string[]
}

/** Text of a file of checkpoints, line by line. */
export interface CheckpointFile {
  name: string
  lines: AsyncIterable<string>
}

/** Reads checkpoints, and checks each by itself and all against each other. */
export async function readEvidence(files: readonly CheckpointFile[], keys: PublicKeys): Promise<Evidence> {
  const marks = new Map<string, Mark[]>()
  const problems: string[] = []
  const statements: { name: string; checkpoint: SignedCheckpoint; full: boolean }[] = []
  for (const { name, lines } of files) {
    for (const read of await readFile(name, lines, keys, problems)) {
      const { checkpoint, ends } = read
      statements.push({ name, checkpoint, full: ends !== undefined })
      for (const [stream, head] of ends ?? []) {
        const list = marks.get(stream) ?? []
        list.push({ ...head, counter: checkpoint.counter })
        marks.set(stream, list)
      }
    }
  }
  statements.sort((a, b) => a.checkpoint.counter - b.checkpoint.counter)
  problems.push(...contradictions(statements))
  return {
    marks,
    newest: statements.findLast(({ full }) => full)?.checkpoint,
    newestStatement: statements.at(-1)?.checkpoint,
    problems
  }
}

interface Read {
  checkpoint: SignedCheckpoint
  /** undefined: it is one of a log, without them */
  ends: Map<string, Head> | undefined
}

/** A checkpoint with the ends before it, or a log of statements; of a log the first and the last are kept. */
async function readFile(
  name: string,
  lines: AsyncIterable<string>,
  keys: PublicKeys,
  problems: string[]
): Promise<Read[]> {
  const read: Read[] = []
  let ends = new Map<string, Head>()
  let root: Root | undefined = new Root()
  let number = 0
  for await (const line of lines) {
    number += 1
    if (line === '') continue
    const parsed = parseCheckpointLine(line)
    if (!parsed) {
      problems.push(`${name}: line ${number} is none of a checkpoint`)
      return []
    }
    if ('end' in parsed) {
      if (root) root = addTo(root, parsed.end)
      ends.set(parsed.end.stream, parsed.end)
      continue
    }
    const problem = problemOf(parsed.checkpoint, keys, ends.size > 0 || parsed.checkpoint.streams === 0, root)
    if (problem) {
      problems.push(`${name}: checkpoint ${parsed.checkpoint.counter} ${problem}`)
      return []
    }
    const last = read.at(-1)
    if (last && !follows(last.checkpoint, parsed.checkpoint)) {
      problems.push(`${name}: checkpoint ${parsed.checkpoint.counter} does not follow the one before it`)
      return []
    }
    if (read.length > 1 && !last?.ends) read.pop()
    read.push({ checkpoint: parsed.checkpoint, ends: ends.size > 0 ? ends : undefined })
    ends = new Map()
    root = new Root()
  }
  if (read.length === 0) problems.push(`${name}: it holds no checkpoint`)
  return read
}

function addTo(root: Root, end: { stream: string } & Head): Root | undefined {
  try {
    root.add(end)
    return root
  } catch {
    return undefined
  }
}

function problemOf(
  checkpoint: SignedCheckpoint,
  keys: PublicKeys,
  full: boolean,
  root: Root | undefined
): string | undefined {
  if (!keys.has(checkpoint.key)) {
    return `names the key ${checkpoint.key}, and the given public keys are ${[...keys.keys()].join(', ') || 'none'}`
  }
  if (!isCheckpointSigned(keys, checkpoint)) return 'is not signed by the key that it names: it was altered'
  if (!full) return undefined
  const { streams, records } = checkpoint
  const same = root?.streams === streams && root.records === records && root.digest() === checkpoint.root
  return same ? undefined : 'has other ends of streams than were signed: they were altered'
}

/** Later in counter and time, and linked to it when nothing is between them. */
function follows(before: SignedCheckpoint, after: SignedCheckpoint): boolean {
  if (before.instance !== after.instance) return true
  if (after.counter <= before.counter || after.created_at < before.created_at) return false
  return after.counter > before.counter + 1 || isPrevious(before, after)
}

/** After a crash the one before may be missing, and then it is none that anybody has. */
function isPrevious(before: SignedCheckpoint, after: SignedCheckpoint): boolean {
  return after.previous === checkpointHash(before).toString('hex')
}

function contradictions(statements: readonly { name: string; checkpoint: SignedCheckpoint }[]): string[] {
  return statements.slice(1).flatMap(({ name, checkpoint }, index) => {
    const before = statements[index]!
    const same = checkpointHash(before.checkpoint).equals(checkpointHash(checkpoint))
    if (same || follows(before.checkpoint, checkpoint)) return []
    return [
      `${name}: checkpoint ${checkpoint.counter} of ${checkpoint.created_at} contradicts checkpoint ` +
        `${before.checkpoint.counter} of ${before.checkpoint.created_at} in ${before.name}: one of them is not genuine`
    ]
  })
}
