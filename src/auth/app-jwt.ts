import { createPublicKey } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, type JWTPayload, jwtVerify } from 'jose'
import { Unauthenticated } from '../errors.ts'
import type { Issuer } from '../store/integrations.ts'

/**
 * The JWT by which a GitHub App says who it is: RS256 and nothing else, of any of its keys, for ten minutes at
 * most. https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
 */
const ALGORITHM = 'RS256'
const MAX_LENGTH = 4096
const MAX_LIFETIME_SECONDS = 600
/** How far two clocks may differ. */
const SKEW_SECONDS = 60

const CLIENT_ID = /^[A-Za-z0-9._-]{1,64}$/

// The texts are GitHub's: clients tell by them that their clock is wrong, and correct for it.
export const NOT_DECODED = 'A JSON web token could not be decoded'
const NO_ISSUER = "Missing 'issuer' claim ('iss') in assertion"
const BAD_ISSUER = "'Issuer' claim ('iss') must be an Integer"
const EXPIRED =
  "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
const TOO_LONG = "'Expiration time' claim ('exp') is too far in the future"
const BAD_ISSUED_AT =
  "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"

function refuse(message: string): never {
  throw new Unauthenticated(true, message)
}

/**
 * What a JWT claims, before its signature is verified: all that can be said without a query and without public-key
 * cryptography.
 *
 * @returns the App that it names
 * @throws Unauthenticated
 */
export function readAppJwt(jwt: string, now = Date.now() / 1000): Issuer {
  const { iss, exp, iat } = decode(jwt)
  if (iss === undefined || iss === null) refuse(NO_ISSUER)
  const issuer = readIssuer(iss)
  if (typeof exp !== 'number' || !Number.isFinite(exp) || exp <= now - SKEW_SECONDS) refuse(EXPIRED)
  if (exp > now + MAX_LIFETIME_SECONDS + SKEW_SECONDS) refuse(TOO_LONG)
  if (!Number.isSafeInteger(iat) || iat! > now + SKEW_SECONDS) refuse(BAD_ISSUED_AT)
  return issuer
}

function decode(jwt: string): JWTPayload {
  if (jwt.length > MAX_LENGTH) refuse(NOT_DECODED)
  try {
    const { alg, crit } = decodeProtectedHeader(jwt)
    // No extension is understood, and one that is critical must be.
    if (alg === ALGORITHM && crit === undefined) return decodeJwt(jwt)
  } catch {
    // not three parts, not base64url, not JSON, no object
  }
  return refuse(NOT_DECODED)
}

/** The App's id, as a number or in decimal, or its client id; GitHub's clients send all three. */
function readIssuer(iss: unknown): Issuer {
  const id = typeof iss === 'string' && /^[0-9]{1,16}$/.test(iss) ? Number(iss) : iss
  if (typeof id === 'number' && Number.isSafeInteger(id)) return { integrationId: id }
  if (typeof id === 'string' && CLIENT_ID.test(id)) return { clientId: id }
  return refuse(BAD_ISSUER)
}

/** Whether one of the keys signed it; claims are checked once more, by the library's own rules. */
export async function isSignedByOneOf(jwt: string, publicKeys: readonly Buffer[]): Promise<boolean> {
  for (const der of publicKeys) {
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
    const verified = await jwtVerify(jwt, key, {
      algorithms: [ALGORITHM],
      clockTolerance: SKEW_SECONDS
    }).then(
      () => true,
      () => false
    )
    if (verified) return true
  }
  return false
}
