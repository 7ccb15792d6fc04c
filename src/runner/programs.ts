import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import path from 'node:path'

/** Where programs are looked for: the system's own folders, whatever the runner's PATH says. */
export const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The path of a program of the machine; undefined: it is not installed. */
export async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of SEARCH_PATH.split(':')) {
    const file = path.join(folder, name)
    const found = await access(file, constants.X_OK).then(
      () => true,
      () => false
    )
    if (found) return file
  }
  return undefined
}
