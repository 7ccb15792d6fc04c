import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify
} from 'node:crypto'
import { mkdir, open } from 'node:fs/promises'
import path from 'node:path'
import { RefusedToStart } from '../errors.ts'

/**
 * The key that signs checkpoints and prunings: Ed25519 (RFC 8032), in PKCS #8 as PEM. It is a file and never in the
 * database, so that who can write to the database cannot make a signature.
 */

const MAX_FILE_BYTES = 4096
const FINGERPRINT_BYTES = 16

export interface AuditKey {
  fingerprint: string
  /** SPKI as PEM */
  publicKey: string
  sign(statement: Statement): Buffer
}

/** What is signed: a label and members, as the bytes of a JSON array. */
export type Statement = readonly [label: string, ...members: (string | number | null)[]]

export function statementBytes(statement: Statement): Buffer {
  return Buffer.from(JSON.stringify(statement))
}

/** Public keys, by fingerprint. */
export type PublicKeys = ReadonlyMap<string, KeyObject>

/** Whether one of the keys, the one that is named, signed this. */
export function isSigned(
  keys: PublicKeys,
  fingerprint: string,
  statement: Statement,
  signature: Uint8Array
): boolean {
  const key = keys.get(fingerprint)
  return key !== undefined && verify(null, statementBytes(statement), key, signature)
}

/** SHA-256 of the public key in DER, the first half in hexadecimal. */
function fingerprintOf(publicKey: KeyObject): string {
  const der = publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(der).digest().toString('hex', 0, FINGERPRINT_BYTES)
}

function auditKey(privateKey: KeyObject): AuditKey {
  const publicKey = createPublicKey(privateKey)
  return {
    fingerprint: fingerprintOf(publicKey),
    publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    sign: (statement) => sign(null, statementBytes(statement), privateKey)
  }
}

/** Reads the key; refuses a file that group or world can read. Undefined when there is no such file. */
export async function readAuditKey(file: string): Promise<AuditKey | undefined> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new RefusedToStart(`The audit key file ${file} cannot be opened (${error.code}).`)
  })
  if (!handle) return undefined
  try {
    const stat = await handle.stat()
    if (!stat.isFile() || stat.size > MAX_FILE_BYTES) throw notAKey(file)
    if ((stat.mode & 0o077) !== 0) {
      throw new RefusedToStart(
        `The audit key file ${file} can be read by others (mode ${(stat.mode & 0o777).toString(8)}). ` +
          `Run: chmod 600 '${file}'`
      )
    }
    const content = await handle.readFile()
    const key = parsePrivateKey(content)
    content.fill(0)
    if (!key) throw notAKey(file)
    return auditKey(key)
  } finally {
    await handle.close()
  }
}

function parsePrivateKey(pem: Buffer): KeyObject | undefined {
  try {
    const key = createPrivateKey(pem)
    return key.asymmetricKeyType === 'ed25519' ? key : undefined
  } catch {
    return undefined
  }
}

function notAKey(file: string): RefusedToStart {
  return new RefusedToStart(
    `The audit key file ${file} does not hold an Ed25519 private key in PEM. Make one with: ` +
      `openssl genpkey -algorithm ed25519 -out '${file}'`
  )
}

/** Makes a key (mode 0600), and returns when file and folder are on disk. Never overwrites a file. */
export async function createAuditKey(file: string): Promise<AuditKey> {
  const { privateKey } = generateKeyPairSync('ed25519')
  const folder = path.dirname(file)
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const handle = await open(file, 'wx', 0o600)
    try {
      await handle.writeFile(privateKey.export({ type: 'pkcs8', format: 'pem' }))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await flushFolder(folder)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new RefusedToStart(
      `The audit key file ${file} cannot be made (${code}). Set COFFER_AUDIT_KEY_FILE to where it can be.`
    )
  }
  return auditKey(privateKey)
}

/** A new name in a folder is on disk when the folder is. */
export async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const PUBLIC_KEY = /-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g

/** The Ed25519 public keys in a text, by fingerprint; none when it holds anything else. */
export function parsePublicKeys(pem: string): PublicKeys {
  const keys = new Map<string, KeyObject>()
  for (const [block] of pem.matchAll(PUBLIC_KEY)) {
    try {
      const key = createPublicKey(block)
      if (key.asymmetricKeyType !== 'ed25519') return new Map()
      keys.set(fingerprintOf(key), key)
    } catch {
      return new Map()
    }
  }
  return keys
}
