import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { BASE64_PATTERN } from '../../keyring/index.ts'

/** Schemas that several resources share. Strings are bounded by the limit on a body, or by the server itself. */

export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const EmptyObject = Type.Object({}, { additionalProperties: false })
export const NoContent = Type.Null()

export const BasicError = Type.Object({
  message: Type.String(),
  documentation_url: Type.String(),
  status: Type.String()
})

export const ValidationError = Type.Object({
  message: Type.String(),
  errors: Type.Optional(
    Type.Array(
      Type.Object({
        resource: Type.String(),
        field: Type.String(),
        code: Type.String(),
        message: Type.Optional(Type.String())
      })
    )
  ),
  documentation_url: Type.String(),
  status: Type.String()
})

const SUCCESS: Record<number, string> = { 200: 'OK', 201: 'Created', 202: 'Accepted', 204: 'Done' }

const ERRORS: Record<number, TSchema> = {
  400: { ...BasicError, description: 'The body is not JSON, or the API version is unknown' },
  401: { ...BasicError, description: 'No token, or none that is valid' },
  403: {
    ...BasicError,
    description: 'The token or the role does not allow this, or a rate limit is reached'
  },
  404: { ...BasicError, description: 'It does not exist, or this token may not know of it' },
  409: { ...BasicError, description: 'Its present state does not allow this' },
  412: { ...BasicError, description: 'It was changed since the ETag in If-Match' },
  413: { ...BasicError, description: 'The body is too large' },
  415: { ...BasicError, description: 'Accept rules out JSON' },
  422: { ...ValidationError, description: 'Something in the input breaks a rule' },
  500: { ...BasicError, description: 'A defect of the server' },
  503: { ...BasicError, description: 'The database is away; try again after `retry-after`' }
}

/** The answers of an operation: those that it lists, and the errors that every one can give. */
export function responses(success: Record<number, TSchema>): Record<number, TSchema> {
  const described = Object.entries(success).map(([status, schema]) => [
    status,
    { description: SUCCESS[Number(status)], ...schema }
  ])
  return { ...Object.fromEntries(described), ...ERRORS }
}

export const PageQuery = Type.Object({
  per_page: Type.Optional(Type.Integer({ default: 30, description: 'Results per page, at most 100' })),
  page: Type.Optional(Type.Integer({ default: 1, description: 'Page number, from 1' }))
})

export const RepositoryParams = Type.Object({
  owner: Type.String({ description: 'The account that owns the repository; case does not matter' }),
  repo: Type.String({ description: 'The name of the repository; case does not matter' })
})

export const OrganizationParams = Type.Object({
  org: Type.String({ description: 'The login of the organization; case does not matter' })
})

export const SecretName = Type.String({ description: 'The name of the secret; case does not matter' })

export const PublicKey = Type.Object({
  key_id: Type.String({ description: 'Names the key; send it back with the sealed value' }),
  key: Type.String({ description: 'X25519 public key, 32 bytes in base64' })
})
export type PublicKey = Static<typeof PublicKey>

export const DateTime = Type.String({ format: 'date-time' })
export const Uri = Type.String({ format: 'uri' })

export const Visibility = Type.Union([Type.Literal('all'), Type.Literal('private'), Type.Literal('selected')])

export const EncryptedValue = Type.String({
  pattern: BASE64_PATTERN,
  description: 'The value in a libsodium sealed box for the public key, in standard base64'
})
export const KeyId = Type.String({ description: 'The key_id that came with the public key' })

export const RepositoryIds = Type.Union(
  [Type.Array(Type.Union([Type.Integer(), Type.String()])), Type.Null()],
  {
    description: 'Repository ids as integers or decimal strings; null clears the selection'
  }
)
