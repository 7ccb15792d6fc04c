import type { FastifyReply } from 'fastify'
import { secretTag } from '../../secrets/vault.ts'
import type { SecretHead } from '../../store/secrets.ts'

/** UTC text from the database, as JSON or not, to the second: `2026-11-21T09:30:00Z`. */
export function toSecond(text: string): string {
  return `${text.slice(0, 10)}T${text.slice(11, 19)}Z`
}

/** The members that every kind of secret shows. */
export function presentSecret(secret: { name: string; created_at: string; updated_at: string }) {
  return {
    name: secret.name,
    created_at: toSecond(secret.created_at),
    updated_at: toSecond(secret.updated_at)
  }
}

export function presentHead(head: SecretHead) {
  return presentSecret({
    name: head.secret_name,
    created_at: head.created_at,
    updated_at: head.updated_at
  })
}

/** The tag that If-Match compares; it moves with every change to the secret. */
export function setSecretTag(reply: FastifyReply, head: SecretHead): void {
  reply.header('etag', `W/"${secretTag(head)}"`)
}
