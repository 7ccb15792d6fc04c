import type { Test } from 'tap'
import { type Code, STATUSES } from '../../../src/routes/rpc/errors.ts'
import type { TestServer } from '../../helper.ts'
import { stored, texts } from '../github/refusal.ts'
import type { OnaServer } from './helper.ts'

/** What a call that fails is answered with. */
export interface Refusal {
  code: Code
  /** other than that of the code */
  status?: number
  message?: string | RegExp
  /** `field: rule` of each violation; none: no details */
  violations?: readonly string[]
  /** seconds that details and header tell to wait; any number of them when it is `true` */
  retryAfter?: number | true
  shouldRetry?: boolean
}

type Answer = Awaited<ReturnType<OnaServer['call']>>

/** Fields of a protobuf message by hand: number, and the bytes or the number that it holds. */
function fieldsOf(bytes: Buffer): { number: number; value: Buffer | number }[] {
  let at = 0
  const varint = () => {
    for (let value = 0, shift = 1; ; shift *= 128) {
      const byte = bytes[at++]!
      value += (byte & 127) * shift
      if (byte < 128) return value
    }
  }
  const fields: { number: number; value: Buffer | number }[] = []
  while (at < bytes.length) {
    const tag = varint()
    if (tag % 8 === 0) fields.push({ number: tag >> 3, value: varint() })
    else if (tag % 8 === 2) {
      const length = varint()
      at += length
      fields.push({ number: tag >> 3, value: bytes.subarray(at - length, at) })
    } else throw new Error(`wire type ${tag % 8}`)
  }
  return fields
}

/** The details of an error, read from the bytes of each. */
function detailsOf(t: Test, body: Answer['body'], name: string) {
  const details: { violations?: string[]; retryAfter?: number } = {}
  for (const { type, value, debug, ...rest } of body.details ?? []) {
    t.strictSame(rest, {}, `${name}: a detail has nothing besides`)
    t.match(value, /^[A-Za-z0-9+/]*$/, `${name}: base64 without padding`)
    const fields = fieldsOf(Buffer.from(value, 'base64'))
    if (type === 'google.rpc.BadRequest') {
      const read = fields.map(({ value }) => {
        const [field, description] = fieldsOf(value as Buffer).map(({ value }) => String(value))
        return { field, description }
      })
      t.strictSame(debug, { fieldViolations: read }, `${name}: the same as JSON`)
      details.violations = read.map(({ field, description }) => `${field}: ${description}`)
    } else if (type === 'google.rpc.RetryInfo') {
      const [seconds] = fieldsOf(fields[0]!.value as Buffer)
      t.strictSame(debug, { retryDelay: `${seconds!.value}s` }, `${name}: the same as JSON`)
      details.retryAfter = seconds!.value as number
    } else t.fail(`${name}: a detail of type ${type}`)
  }
  return details
}

/** An error as Connect has it, and nothing besides. */
export function isRefusal(t: Test, answer: Answer, expected: Refusal, name: string): void {
  const { code, message, violations, retryAfter, shouldRetry = false } = expected
  const { status, headers, body } = answer
  t.equal(status, expected.status ?? STATUSES[code], `${name}: status`)
  t.equal(headers['content-type'], 'application/json', `${name}: content-type`)
  t.equal(headers['x-should-retry'], String(shouldRetry), `${name}: x-should-retry`)
  t.equal(headers['cache-control'], 'no-store', `${name}: cache-control`)
  t.equal(body.code, code, `${name}: code`)
  const members = ['code', 'message', ...(body.details ? ['details'] : [])]
  t.strictSame(Object.keys(body), members, `${name}: members of the body`)
  t.equal(typeof body.message, 'string', `${name}: a message`)
  if (typeof message === 'string') t.equal(body.message, message, `${name}: message`)
  else if (message) t.match(body.message, message, `${name}: message`)
  const details = detailsOf(t, body, name)
  t.strictSame(details.violations, violations, `${name}: violations`)
  if (retryAfter === undefined) t.equal(headers['retry-after'], undefined, `${name}: no retry-after`)
  else t.match(headers['retry-after'], retryAfter === true ? /^[1-9][0-9]*$/ : String(retryAfter), name)
  if (details.retryAfter !== undefined) t.equal(headers['retry-after'], String(details.retryAfter), name)
}

/** Calls what must be refused: nothing of the input comes back, and no row moves. */
export async function refuses(
  t: Test,
  server: Pick<OnaServer, 'call'> & Pick<TestServer, 'db'>,
  [method, token, message]: readonly [method: string, token: string | undefined, message?: unknown],
  expected: Refusal,
  name: string
): Promise<Answer> {
  const before = await stored(server.db)
  const answer = await server.call(method, token, message)
  isRefusal(t, answer, expected, name)
  const text = JSON.stringify(answer.headers) + JSON.stringify(answer.body)
  // Some rules list words, of which what was sent may be one.
  const words = JSON.stringify(expected)
  for (const sent of texts(message).filter((sent) => !words.includes(sent))) {
    t.notOk(text.includes(sent), `${name}: the answer does not hold what was sent`)
  }
  t.strictSame(await stored(server.db), before, `${name}: nothing changed`)
  return answer
}
