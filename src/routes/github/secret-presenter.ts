import { Type } from '@sinclair/typebox'
import type { FastifyReply } from 'fastify'
import { secretTag } from '../../secrets/vault.ts'
import type { SecretHead, SecretItem as StoredItem } from '../../store/secrets.ts'
import { DateTime } from './schemas.ts'

/** The members that every kind of secret shows. */
export const SecretItem = Type.Object({ name: Type.String(), created_at: DateTime, updated_at: DateTime })

/** UTC text from the database, as JSON or not, to the second: `2026-11-21T09:30:00Z`. */
export function toSecond(text: string): string {
  return `${text.slice(0, 10)}T${text.slice(11, 19)}Z`
}

export function presentSecret(secret: { name: string; created_at: string; updated_at: string }) {
  return {
    name: secret.name,
    created_at: toSecond(secret.created_at),
    updated_at: toSecond(secret.updated_at)
  }
}

/** A single secret as an entry of a list. */
export function itemOf({ secret_name, visibility, created_at, updated_at }: SecretHead): StoredItem {
  return { name: secret_name, visibility, created_at, updated_at }
}

/** The tag that If-Match compares; it moves with every change to the secret. */
export function setSecretTag(reply: FastifyReply, head: SecretHead): void {
  reply.header('etag', `W/"${secretTag(head)}"`)
}
