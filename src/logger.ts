import { type DestinationStream, destination, type Logger, pino } from 'pino'

/** Members that never reach a log, wherever an object that has them is logged by mistake. */
const REDACTED = [
  'authorization',
  'token',
  'password',
  'encrypted_value',
  'value',
  'key',
  'pem',
  'body',
  'headers'
]

/**
 * Lines are written together, and after this time at the latest: a write for each request costs more than the
 * rest of its logging. Whoever ends the process flushes; what must outlive a crash is in the audit.
 */
const BUFFERED_BYTES = 4096
const FLUSH_MS = 100

let second = 0
let secondText = ''

/** ISO 8601 to the millisecond, where all but that is made once a second: there is a line for each request. */
function timestamp(): string {
  const now = Date.now()
  const milliseconds = now % 1000
  if (now - milliseconds !== second) {
    second = now - milliseconds
    secondText = new Date(second).toISOString().slice(0, 20)
  }
  return `,"time":"${secondText}${String(milliseconds).padStart(3, '0')}Z"`
}

/** SQLSTATE or system code: what an error is, without what its message quotes. */
function codeOf(error: Error): string | undefined {
  const { code } = error as { code?: unknown }
  return typeof code === 'string' ? code : undefined
}

export interface ErrorDescription {
  name: string
  code?: string
  stack?: string[]
}

/** What `describeError` made; the serializer of the logger meets it a second time. */
const descriptions = new WeakSet<object>()

/**
 * An error as it may be logged: its name, its code and where it came from. Never its message or its cause:
 * `JSON.parse`, Ajv and PostgreSQL quote their input there.
 */
export function describeError(error: unknown): ErrorDescription {
  if (!(error instanceof Error)) {
    const described = typeof error === 'object' && error !== null && descriptions.has(error)
    return described ? (error as ErrorDescription) : { name: typeof error }
  }
  const code = codeOf(error)
  const { stack = '', message } = error
  // A message may have lines that look like frames.
  const frames = stack
    .slice(stack.indexOf(message) + message.length)
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
  const description = {
    name: error.name,
    ...(code && { code }),
    stack: frames.slice(0, 12).map((line) => line.trim())
  }
  descriptions.add(description)
  return description
}

export function createLogger(level: string, stream?: DestinationStream): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError, error: describeError, req: () => undefined, res: () => undefined },
      redact: { paths: REDACTED, censor: '[redacted]' }
    },
    stream ?? destination({ dest: 1, sync: true, minLength: BUFFERED_BYTES, periodicFlush: FLUSH_MS })
  )
}
