import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client'

/** What `/metrics` shows; one function per event. Labels never hold names, logins or ids. */
export class Metrics {
  readonly registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  readonly #secretWrites: Counter<'action'>
  readonly #failedLogins: Counter
  readonly #unavailable: Counter

  constructor() {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry, prefix: 'coffer_' })
    this.#requests = new Histogram({
      name: 'coffer_http_request_duration_seconds',
      help: 'Time from the first byte of a request to the last of its answer.',
      labelNames: ['method', 'route', 'status'],
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
    this.#unavailable = new Counter({
      name: 'coffer_database_unavailable_total',
      help: 'Requests answered with 503 because the database was away.',
      registers
    })
  }

  requestAnswered(method: string, route: string, status: number, seconds: number): void {
    this.#requests.observe({ method, route, status }, seconds)
  }

  secretWritten(action: 'create' | 'update' | 'remove'): void {
    this.#secretWrites.inc({ action })
  }

  loginFailed(): void {
    this.#failedLogins.inc()
  }

  databaseUnavailable(): void {
    this.#unavailable.inc()
  }
}
