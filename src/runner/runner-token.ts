import { createHash } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import path from 'node:path'
import { RefusedToStart } from '../errors.ts'
import { ConnectError, call } from './connect.ts'

const EXCHANGE_PREFIX = 'coffer_rex_'
/** A quarter of its life, so that a server that is away for hours costs nothing. */
const RENEWED_AFTER_MS = 6 * 3_600_000
const PAUSE_AFTER_FAILURE_MS = 60_000

export interface RunnerTokenOptions {
  /** the server's, without `/api` */
  url: string
  /** what the operator gave: an exchange token, which can be used once, or a runner's token */
  token: string
  /** where the runner's own token is kept */
  file: string
}

interface Kept {
  /** SHA-256 of what the operator gave, so that another one is noticed */
  givenSha256: string
  accessToken: string
  /** in milliseconds since 1970 */
  renewedAt: number
}

/** The token that a runner acts with: got once, kept in a file, and renewed long before it ends. */
export class RunnerToken {
  readonly #options: RunnerTokenOptions
  readonly #givenSha256: string
  #getting: Promise<Kept> | undefined
  #notBefore = 0

  constructor(options: RunnerTokenOptions) {
    this.#options = options
    this.#givenSha256 = createHash('sha256').update(options.token).digest('hex')
  }

  /**
   * @throws RefusedToStart when the exchange token is not valid
   * @throws Unavailable when the server is away
   */
  async get(): Promise<string> {
    this.#getting ??= this.#find().catch((error) => {
      this.#getting = undefined
      throw error
    })
    const kept = await this.#getting
    const now = Date.now()
    if (now - kept.renewedAt > RENEWED_AFTER_MS && now >= this.#notBefore) {
      this.#notBefore = now + PAUSE_AFTER_FAILURE_MS
      // While it lasts the present one is good; when it failed, too.
      void this.#renew(kept).then(
        (renewed) => {
          this.#getting = Promise.resolve(renewed)
        },
        () => {}
      )
    }
    return kept.accessToken
  }

  async #find(): Promise<Kept> {
    const kept = await this.#read()
    if (kept?.givenSha256 === this.#givenSha256) return kept
    const { token } = this.#options
    // Of what age it is nobody knows.
    if (!token.startsWith(EXCHANGE_PREFIX)) return this.#keep(token, 0)
    return await this.#exchange(token)
  }

  async #exchange(exchangeToken: string): Promise<Kept> {
    const { url } = this.#options
    const method = 'gitpod.v1.IdentityService/ExchangeToken'
    try {
      const { accessToken = '' } = await call<{ accessToken: string }>({
        url,
        method,
        body: { exchangeToken }
      })
      return await this.#write(this.#keep(accessToken, Date.now()))
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error
      throw new RefusedToStart(
        'The exchange token of the runner is not valid: it can be used once, within a day. Make another one.'
      )
    }
  }

  async #renew({ accessToken: token }: Kept): Promise<Kept> {
    const { url } = this.#options
    const method = 'coffer.v1.RunnerInterfaceService/RenewToken'
    const { accessToken } = await call<{ accessToken: string }>({ url, method, body: {}, token })
    return await this.#write(this.#keep(accessToken ?? token, Date.now()))
  }

  #keep(accessToken: string, renewedAt: number): Kept {
    return { givenSha256: this.#givenSha256, accessToken, renewedAt }
  }

  async #read(): Promise<Kept | undefined> {
    try {
      return JSON.parse(await readFile(this.#options.file, 'utf8')) as Kept
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw new RefusedToStart(`The runner's token cannot be read: ${this.#options.file}. Remove the file.`)
    }
  }

  async #write(kept: Kept): Promise<Kept> {
    const { file } = this.#options
    const partial = `${file}.new`
    await mkdir(path.dirname(file), { recursive: true, mode: 0o711 })
    const handle = await open(partial, 'w', 0o600)
    try {
      await handle.writeFile(JSON.stringify(kept))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, file)
    return kept
  }
}
