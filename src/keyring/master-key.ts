import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { RefusedToStart } from '../errors.ts'
import { deriveFingerprint, deriveWrappingKey, KEY_BYTES } from './derivation.ts'
import { secureCopy } from './memory.ts'

/** 32 bytes as 44 characters of base64, as 64 hexadecimal digits, or as they are. */
const MAX_FILE_BYTES = 128
const NONCE_BYTES = 12
const TAG_BYTES = 16

export interface WrappedGeneration {
  wrapped: Buffer
  /** fingerprint of the master key that wrapped it */
  fingerprint: string
}

/**
 * Wraps key generations. Asynchronous so that a key management service fits behind the same interface;
 * `fingerprint` tells which wrapper a stored generation needs, so nothing is ever tried out.
 */
export interface MasterKey {
  readonly fingerprint: string
  wrap(generationId: bigint, material: Uint8Array): Promise<WrappedGeneration>
  /** Throws `RefusedToStart` when the wrapped bytes were altered or belong to another id. */
  unwrap(generationId: bigint, wrapped: Uint8Array): Promise<Buffer>
}

/** AES-256-GCM under a key derived from the master key; nonce ‖ ciphertext ‖ tag, bound to purpose and id. */
export function localMasterKey(bytes: Uint8Array): MasterKey {
  const fingerprint = deriveFingerprint(bytes)
  const key = deriveWrappingKey(bytes)
  const additionalData = (id: bigint) => Buffer.from(`coffer/v1/generation/${id}`, 'utf8')
  return {
    fingerprint,
    async wrap(generationId, material) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
      cipher.setAAD(additionalData(generationId))
      const ciphertext = cipher.update(material)
      cipher.final()
      return { wrapped: Buffer.concat([nonce, ciphertext, cipher.getAuthTag()]), fingerprint }
    },
    async unwrap(generationId, wrapped) {
      try {
        const nonce = wrapped.subarray(0, NONCE_BYTES)
        const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
        decipher.setAAD(additionalData(generationId))
        decipher.setAuthTag(wrapped.subarray(wrapped.length - TAG_BYTES))
        const material = decipher.update(wrapped.subarray(NONCE_BYTES, wrapped.length - TAG_BYTES))
        decipher.final()
        return secureCopy(material)
      } catch {
        throw new RefusedToStart(
          `Key generation ${generationId} does not unwrap although master key ${fingerprint} is the one that ` +
            'wrapped it: its row in key_material was altered. Restore the database from a backup.'
        )
      }
    }
  }
}

/** Reads a master key file; refuses one that group or world can read, or that does not hold 32 bytes. */
export async function readMasterKey(path: string): Promise<MasterKey> {
  const file = await openKeyFile(path)
  try {
    const stat = await file.stat()
    if (stat.isDirectory()) throw notAKey(path)
    const { mode, size } = stat
    if ((mode & 0o077) !== 0) {
      throw new RefusedToStart(
        `The master key file ${path} can be read by others (mode ${(mode & 0o777).toString(8)}). ` +
          `Run: chmod 600 '${path}'`
      )
    }
    if (size > MAX_FILE_BYTES) throw notAKey(path)
    const content = await file.readFile()
    const bytes = parseKey(content)
    content.fill(0)
    if (!bytes) throw notAKey(path)
    const masterKey = localMasterKey(bytes)
    bytes.fill(0)
    return masterKey
  } finally {
    await file.close()
  }
}

async function openKeyFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    throw new RefusedToStart(
      `The master key file ${path} cannot be opened (${code}). Set COFFER_MASTER_KEY_FILE to the file that ` +
        'holds the key, or make a new key with: coffer key generate FILE'
    )
  }
}

function notAKey(path: string): RefusedToStart {
  return new RefusedToStart(
    `The master key file ${path} does not hold 32 bytes, in base64, in hexadecimal, or as they are. ` +
      'Make a new key with: coffer key generate FILE'
  )
}

function parseKey(content: Buffer): Buffer | undefined {
  if (content.length === KEY_BYTES) return Buffer.from(content)
  const text = content.toString('latin1').trim()
  if (/^[0-9A-Fa-f]{64}$/.test(text)) return Buffer.from(text, 'hex')
  if (/^[A-Za-z0-9+/]{43}=$/.test(text)) return Buffer.from(text, 'base64')
  return undefined
}

/**
 * Makes a new master key file (base64, mode 0600) and returns only when file and folder are on disk: whatever
 * is encrypted under the key afterwards cannot outlive it. Never overwrites a file.
 */
export async function createMasterKey(path: string): Promise<MasterKey> {
  const bytes = randomBytes(KEY_BYTES)
  const file = await createFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new RefusedToStart(
      `The master key file ${path} cannot be made (${error.code}); nothing was changed.`
    )
  })
  try {
    await file.writeFile(`${bytes.toString('base64')}\n`)
    await file.sync()
  } finally {
    await file.close()
  }
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
  const masterKey = localMasterKey(bytes)
  bytes.fill(0)
  return masterKey
}

async function createFile(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  return await open(path, 'wx', 0o600)
}
