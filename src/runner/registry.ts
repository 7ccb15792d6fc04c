/** What follows `user:`; a name has no colon, a password may have any. */
const CREDENTIAL = /^[^:\p{Cc}]+:[^\p{Cc}]+$/u
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/

export interface RegistryCredential {
  /** as Docker names it: `ghcr.io`, `https://index.docker.io/v1/` */
  host: string
  /** base64 of `user:password` */
  auth: string
}

/**
 * Reads the value of a registry's secret: `user:password`, or base64 of it. Neither form can be mistaken for the
 * other, since base64 has no colon.
 *
 * @returns base64 of `user:password`; undefined when it is neither
 */
export function parseRegistryCredential(value: Buffer): string | undefined {
  const text = readText(value)
  if (text === undefined) return undefined
  if (text.includes(':')) return CREDENTIAL.test(text) ? value.toString('base64') : undefined
  // What base64(1) writes has line breaks, which say nothing.
  const packed = text.replace(/\s/g, '')
  if (!BASE64.test(packed)) return undefined
  const bytes = Buffer.from(packed, 'base64')
  const credential = readText(bytes)
  return credential !== undefined && CREDENTIAL.test(credential) ? bytes.toString('base64') : undefined
}

/** Docker's `config.json`, which other clients of registries read, too. */
export function dockerConfig(credentials: readonly RegistryCredential[]): Buffer {
  const auths = Object.fromEntries(credentials.map(({ host, auth }) => [host, { auth }]))
  return Buffer.from(`${JSON.stringify({ auths }, undefined, 2)}\n`)
}

function readText(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}
