import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino'

/** Members that never reach a log, wherever an object that has them is logged by mistake. */
const REDACTED = ['authorization', 'token', 'password', 'encrypted_value', 'value', 'key', 'body', 'headers']

/** SQLSTATE or system code: what an error is, without what its message quotes. */
function codeOf(error: Error): string | undefined {
  const { code } = error as { code?: unknown }
  return typeof code === 'string' ? code : undefined
}

/**
 * An error as it may be logged: its name, its code and where it came from. Never its message or its cause:
 * `JSON.parse`, Ajv and PostgreSQL quote their input there.
 */
export function describeError(error: unknown): { name: string; code?: string; stack?: string[] } {
  if (!(error instanceof Error)) return { name: typeof error }
  const code = codeOf(error)
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line))
  return {
    name: error.name,
    ...(code && { code }),
    stack: frames.slice(0, 12).map((line) => line.trim())
  }
}

export function createLogger(level: string, stream?: DestinationStream): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError, error: describeError, req: () => undefined, res: () => undefined },
      redact: { paths: REDACTED.flatMap((name) => [name, `*.${name}`]), censor: '[redacted]' }
    },
    stream ?? destination({ dest: 1, sync: true })
  )
}
