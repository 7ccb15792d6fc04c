import { open, readFile, rename } from 'node:fs/promises'
import path from 'node:path'
import type { ContentStatus } from './interface.ts'

const NAME = 'environment.json'

/** What the runner remembers of an environment beside its folders, for whoever comes after it. Nothing secret. */
export interface EnvironmentRecord {
  /** what was put into the workspace, whole: without it, what lies there is half made */
  content: Pick<ContentStatus, 'session' | 'git'> & {
    /** where the first repository lies in the workspace; undefined: there is none */
    folder?: string
  }
  /** links in folders of the environment's own: path inside → what it leads to */
  links: Readonly<Record<string, string>>
}

/** @param folder the runner's own part of the environment */
export async function findRecord(folder: string): Promise<EnvironmentRecord | undefined> {
  try {
    return JSON.parse(await readFile(path.join(folder, NAME), 'utf8')) as EnvironmentRecord
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** On disk before it has its name: a record that a power failure took would cost the work in the workspace. */
export async function writeRecord(folder: string, record: EnvironmentRecord): Promise<void> {
  const partial = path.join(folder, `.${NAME}`)
  const handle = await open(partial, 'w', 0o600)
  try {
    await handle.writeFile(JSON.stringify(record))
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(partial, path.join(folder, NAME))
}
