import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { OPERATOR_TOKEN } from '../config.ts'
import type { TokenKind } from '../store/tables.ts'
import { TOKEN_KINDS } from './token-kinds.ts'

/**
 * Tokens that Coffer makes: prefix ‖ 43 characters (256 random bits) ‖ 6 characters (CRC-32 of all before),
 * in letters and digits without dots, since Octokit takes two dots for a JWT. The checksum lets a scanner
 * tell a leaked token from a lookalike, and lets garbage be refused before any query.
 */
const SECRET_LENGTH = 43
const CHECKSUM_LENGTH = 6
const MADE_HERE = /^coffer_(?:pat|fgt|sva|env|ops|run|rex|ins)_[0-9A-Za-z]{49}$/

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

function base62(value: bigint, length: number): string {
  let digits = ''
  for (let rest = value; digits.length < length; rest /= 62n) digits = ALPHABET[Number(rest % 62n)] + digits
  return digits
}

function checksum(text: string): string {
  return base62(BigInt(crc32(text)), CHECKSUM_LENGTH)
}

export function makeToken(kind: TokenKind): string {
  return makeSecret(TOKEN_KINDS[kind].prefix)
}

const EXCHANGE_PREFIX = 'coffer_rex_'

/** What a runner gets its token for, once. */
export function makeExchangeToken(): string {
  return makeSecret(EXCHANGE_PREFIX)
}

function makeSecret(prefix: string): string {
  const body = prefix + base62(BigInt(`0x${randomBytes(32).toString('hex')}`), SECRET_LENGTH)
  return body + checksum(body)
}

/** Whether a token can be one at all; what has the form of Coffer's own needs the right checksum. */
export function isWellFormedToken(token: string): boolean {
  return MADE_HERE.test(token) ? hasChecksum(token) : OPERATOR_TOKEN.test(token)
}

function hasChecksum(token: string): boolean {
  const end = token.length - CHECKSUM_LENGTH
  return checksum(token.slice(0, end)) === token.slice(end)
}

/** Whether a text can be an exchange token at all. */
export function isExchangeToken(text: string): boolean {
  return text.startsWith(EXCHANGE_PREFIX) && MADE_HERE.test(text) && hasChecksum(text)
}

/** What is stored of a token: SHA-256, enough for 256 random bits. */
export function hashToken(token: string): Buffer {
  return hash('sha256', token, 'buffer')
}

/** The same in base64, as caches and notifications hold it. */
export function tokenCacheKey(token: string): string {
  return hash('sha256', token, 'base64')
}

export function lastEight(token: string): string {
  return token.slice(-8)
}

/**
 * The token of an Authorization header: `Bearer T` or `token T` in any case, or Basic with the token as the
 * password (or as the user name, without a password). Undefined when there is none.
 */
export function readAuthorization(header: string | undefined): string | undefined {
  const text = header?.trim()
  if (!text) return undefined
  const space = text.indexOf(' ')
  if (space < 0) return ''
  const scheme = text.slice(0, space).toLowerCase()
  const credentials = text.slice(space + 1).trim()
  if (scheme === 'bearer' || scheme === 'token') return credentials
  if (scheme !== 'basic') return ''
  const decoded = Buffer.from(credentials, 'base64').toString('latin1')
  const colon = decoded.indexOf(':')
  if (colon < 0) return ''
  return decoded.slice(colon + 1) || decoded.slice(0, colon)
}

/** What follows `Bearer`, the only scheme for a JWT: '' for any other; undefined when there is no header. */
export function readBearer(header: string | undefined): string | undefined {
  const text = header?.trim()
  if (!text) return undefined
  return /^bearer +(\S+)$/i.exec(text)?.[1] ?? ''
}
