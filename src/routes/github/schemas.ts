import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { BASE64_PATTERN } from '../../keyring/index.ts'

/** Schemas that several resources share. Strings are bounded by the limit on a body, or by the server itself. */

export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

export const EmptyObject = Type.Object({}, { additionalProperties: false })
export const NoContent = Type.Null({ description: 'No content' })

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

const ERRORS = {
  400: BasicError,
  401: BasicError,
  403: BasicError,
  404: BasicError,
  409: BasicError,
  412: BasicError,
  413: BasicError,
  415: BasicError,
  422: ValidationError,
  500: BasicError,
  503: BasicError
} as const

/** The answers of an operation: those that it lists, and these errors. */
export function responses<T extends Record<number, TSchema>>(success: T): T & typeof ERRORS {
  return { ...success, ...ERRORS }
}

export const PageQuery = Type.Object({
  per_page: Type.Optional(Type.Integer({ default: 30, description: 'Results per page, at most 100' })),
  page: Type.Optional(Type.Integer({ default: 1, description: 'Page number, from 1' }))
})

export const RepositoryParams = Type.Object({
  owner: Type.String({ description: 'The account that owns the repository; case does not matter' }),
  repo: Type.String({ description: 'The name of the repository; case does not matter' })
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

export const RepositoryIds = Type.Union([Type.Array(Type.Union([Type.Integer(), Type.String()])), Type.Null()], {
  description: 'Repository ids as integers or decimal strings; null clears the selection'
})
