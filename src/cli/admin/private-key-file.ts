import { type FileHandle, open, rm } from 'node:fs/promises'
import { RefusedToStart } from '../../errors.ts'
import { CommandFailed } from '../terminal.ts'

/**
 * Makes a private key and writes it to a file of mode 0600, which must not be there: a key that can be shown only
 * once never takes the place of another. The file is made first, so that no key is made that cannot be kept.
 */
export async function writePrivateKey<T extends { pem: string }>(
  file: string,
  make: () => Promise<T>
): Promise<T> {
  const handle = await openNew(file)
  try {
    const made = await make()
    await write(handle, file, made.pem)
    return made
  } catch (error) {
    await rm(file, { force: true })
    throw error
  } finally {
    await handle.close()
  }
}

async function openNew(file: string): Promise<FileHandle> {
  try {
    return await open(file, 'wx', 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') throw new RefusedToStart(`${file} is there already. Name another file.`)
    throw new RefusedToStart(`The file ${file} cannot be made (${code}).`)
  }
}

async function write(handle: FileHandle, file: string, pem: string): Promise<void> {
  try {
    await handle.chmod(0o600)
    await handle.writeFile(pem)
    await handle.sync()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new CommandFailed(
      `The key was made, and could not be written to ${file} (${code}). Make another one with: ` +
        'npx coffer admin app key rotate'
    )
  }
}
