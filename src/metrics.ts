import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

interface Answers {
  labels: { method: string; route: string; status: number }
  count: number
  seconds: number
}

/** What `/metrics` shows; one function per event. Labels never hold names, logins or ids. */
export class Metrics {
  readonly registry = new Registry()
  readonly #answers = new Map<string, Answers>()
  readonly #duration: Histogram
  readonly #secretWrites: Counter<'action'>
  readonly #failedLogins: Counter
  readonly #rateLimited: Counter<'by'>
  readonly #unavailable: Counter
  readonly #unlistedDenials: Counter
  readonly #auditSealed: Counter
  readonly #auditFailures: Counter<'job'>
  readonly #auditDelay: Gauge
  readonly #auditCheckpoint: Gauge
  readonly #eventStreams: Gauge

  constructor() {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry, prefix: 'coffer_' })
    const answers = this.#answers
    new Counter({
      name: 'coffer_http_requests_total',
      help: 'Requests answered, by route and status.',
      labelNames: ['method', 'route', 'status'],
      registers,
      collect() {
        this.reset()
        for (const { labels, count } of answers.values()) this.inc(labels, count)
      }
    })
    new Counter({
      name: 'coffer_http_request_seconds_total',
      help: 'Time that answering took, by route and status.',
      labelNames: ['method', 'route', 'status'],
      registers,
      collect() {
        this.reset()
        for (const { labels, seconds } of answers.values()) this.inc(labels, seconds)
      }
    })
    this.#duration = new Histogram({
      name: 'coffer_http_request_duration_seconds',
      help: 'Time from the first byte of a request to the last of its answer.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers
    })
    this.#secretWrites = new Counter({
      name: 'coffer_secret_writes_total',
      help: 'Secrets created, updated and removed.',
      labelNames: ['action'],
      registers
    })
    this.#failedLogins = new Counter({
      name: 'coffer_failed_logins_total',
      help: 'Requests with credentials that are not valid.',
      registers
    })
    this.#rateLimited = new Counter({
      name: 'coffer_rate_limited_requests_total',
      help: 'Requests refused because of a rate limit, by what was counted: token, app or address.',
      labelNames: ['by'],
      registers
    })
    this.#unavailable = new Counter({
      name: 'coffer_database_unavailable_total',
      help: 'Requests answered with 503 because the database was away.',
      registers
    })
    this.#unlistedDenials = new Counter({
      name: 'coffer_audit_denials_unlisted_total',
      help: 'Refused requests that the audit log has as a number only.',
      registers
    })
    this.#auditSealed = new Counter({
      name: 'coffer_audit_sealed_total',
      help: 'Audit records that this server has sealed.',
      registers
    })
    this.#auditFailures = new Counter({
      name: 'coffer_audit_failures_total',
      help: 'Runs of the audit jobs that failed.',
      labelNames: ['job'],
      registers
    })
    this.#auditDelay = new Gauge({
      name: 'coffer_audit_unsealed_seconds',
      help: 'Age of the oldest audit record that is not sealed, as of the last minute.',
      registers
    })
    this.#auditCheckpoint = new Gauge({
      name: 'coffer_audit_checkpoint_timestamp_seconds',
      help: 'When this server has taken its last audit checkpoint.',
      registers
    })
    this.#eventStreams = new Gauge({
      name: 'coffer_event_streams',
      help: 'Streams of events that are open.',
      registers
    })
  }

  /** Counted here and handed over when they are asked for: labels cost more than all else on a short request. */
  requestAnswered(method: string, route: string, status: number, seconds: number): void {
    const key = `${method} ${route} ${status}`
    let answers = this.#answers.get(key)
    if (!answers) {
      answers = { labels: { method, route, status }, count: 0, seconds: 0 }
      this.#answers.set(key, answers)
    }
    answers.count += 1
    answers.seconds += seconds
    this.#duration.observe(seconds)
  }

  secretWritten(action: 'create' | 'update' | 'remove'): void {
    this.#secretWrites.inc({ action })
  }

  loginFailed(): void {
    this.#failedLogins.inc()
  }

  requestLimited(by: 'token' | 'app' | 'address'): void {
    this.#rateLimited.inc({ by })
  }

  databaseUnavailable(): void {
    this.#unavailable.inc()
  }

  denialsUnlisted(requests: number): void {
    this.#unlistedDenials.inc(requests)
  }

  auditSealed(records: number): void {
    this.#auditSealed.inc(records)
  }

  auditJobFailed(job: 'seal' | 'checkpoint'): void {
    this.#auditFailures.inc({ job })
  }

  auditDelay(seconds: number): void {
    this.#auditDelay.set(seconds)
  }

  eventStreams(open: number): void {
    this.#eventStreams.set(open)
  }

  auditCheckpointTaken(at: Date): void {
    this.#auditCheckpoint.set(at.getTime() / 1000)
  }
}
