import type { Violation } from '../../errors.ts'

/** A detail of an error as Connect has it: a protobuf message in base64 without padding, and the same as JSON. */
export interface ErrorDetail {
  /** the name of the message, without a prefix */
  type: string
  value: string
  debug: object
}

/** A field of bytes, of text or of a message: tag, length, content. */
function delimited(field: number, content: Buffer | string): Buffer {
  const bytes = Buffer.from(content as string)
  return Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128)
  return Buffer.from([...bytes, rest])
}

function detail(type: string, message: Buffer, debug: object): ErrorDetail {
  return { type, value: message.toString('base64').replace(/=+$/, ''), debug }
}

/** Which field breaks which rule. */
export function badRequest(violations: readonly Violation[]): ErrorDetail {
  const fields = violations.map(({ field, message }) => ({ field, description: message }))
  const message = fields.map(({ field, description }) =>
    delimited(1, Buffer.concat([delimited(1, field), delimited(2, description)]))
  )
  return detail('google.rpc.BadRequest', Buffer.concat(message), { fieldViolations: fields })
}

/** Which classes a project allows. */
export function allowedClasses(environmentClassIds: readonly string[]): ErrorDetail {
  const message = Buffer.concat(environmentClassIds.map((id) => delimited(1, id)))
  const type = 'gitpod.v1.CreateEnvironmentFromProjectBadRequestEnvironmentClassDetails'
  return detail(type, message, { environmentClassIds })
}

/** When to try again. */
export function retryInfo(seconds: number): ErrorDetail {
  const duration = Buffer.concat([varint(1 << 3), varint(seconds)])
  return detail('google.rpc.RetryInfo', delimited(1, duration), { retryDelay: `${seconds}s` })
}
