import { request as httpRequest, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'

// What go-github sends, request by request, and how it reads the answers: measured, and from its source.

export interface GoGitHubOptions {
  /** in `User-Agent` */
  version?: string
  /** what Terraform's provider adds to `Accept` */
  preview?: string
  /** keeps answers and asks with `If-None-Match`, as a caching transport below go-github does */
  caching?: boolean
}

export interface GoResponse<T> {
  status: number
  headers: IncomingHttpHeaders
  value: T
  /** 0 after the last page */
  nextPage: number
}

/** What go-github's `ErrorResponse` holds. */
export class ErrorResponse extends Error {
  readonly status: number
  readonly documentationUrl: string

  constructor(status: number, message: string, documentationUrl: string) {
    super(message)
    this.status = status
    this.documentationUrl = documentationUrl
  }
}

export class GoGitHub {
  /** everything that was sent, in order: `PUT /orgs/acme/codespaces/secrets/A {"key_id":…}` */
  readonly sent: string[] = []
  /** how many answers were 304 */
  revalidated = 0
  private readonly cache = new Map<string, Answer>()
  private readonly baseUrl: string
  private readonly token: string
  private readonly options: GoGitHubOptions

  /** As `NewClient(nil).WithAuthToken(token).WithEnterpriseURLs(url, url)`: the prefix is put where it is missing. */
  constructor(url: string, token: string, options: GoGitHubOptions = {}) {
    this.baseUrl = url.endsWith('/api/v3/') ? url : `${url.replace(/\/$/, '')}/api/v3/`
    this.token = token
    this.options = options
  }

  /** A body is a struct in the order of its fields, which Go's encoder ends with a newline. */
  async do<T = undefined>(method: string, path: string, body?: unknown): Promise<GoResponse<T>> {
    const bytes = body === undefined ? undefined : Buffer.from(`${JSON.stringify(body)}\n`)
    const { preview = '', version = 'v89.0.0' } = this.options
    const headers: OutgoingHttpHeaders = {
      'User-Agent': `go-github/${version}`,
      Accept: `application/vnd.github.v3+json${preview}`,
      Authorization: `Bearer ${this.token}`,
      'X-Github-Api-Version': '2022-11-28',
      'Accept-Encoding': 'gzip'
    }
    if (bytes) headers['Content-Type'] = 'application/json'
    if (bytes || method === 'PUT') headers['Content-Length'] = bytes?.length ?? 0
    const kept = method === 'GET' ? this.cache.get(path) : undefined
    if (kept) headers['If-None-Match'] = String(kept.headers.etag)
    this.sent.push([method, `/${path}`, bytes?.toString().trimEnd()].filter(Boolean).join(' '))
    const answer = await send(this.baseUrl + path, method, headers, bytes)
    if (kept && answer.status === 304) {
      this.revalidated += 1
      return readResponse<T>(kept)
    }
    if (this.options.caching && answer.headers.etag && answer.status === 200) this.cache.set(path, answer)
    return readResponse<T>(answer)
  }

  /** Asks for pages, by the number in `Link` and never by its URL, until there is none. */
  async all<T>(path: string, perPage: number, read: (value: T) => unknown[]): Promise<unknown[]> {
    const found: unknown[] = []
    for (let page = 0; ; ) {
      const query = page === 0 ? `per_page=${perPage}` : `page=${page}&per_page=${perPage}`
      const { value, nextPage } = await this.do<T>('GET', `${path}?${query}`)
      found.push(...read(value))
      if (nextPage === 0) return found
      page = nextPage
    }
  }
}

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

function send(
  url: string,
  method: string,
  headers: OutgoingHttpHeaders,
  bytes: Buffer | undefined
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (piece) => {
        body += piece
      })
      response.once('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }))
    })
    request.once('error', reject)
    request.end(bytes)
  })
}

function readResponse<T>({ status, headers, body }: Answer): GoResponse<T> {
  if (status === 202) throw new Error('AcceptedError: go-github takes 202 for a failure')
  if (status < 200 || status > 299) {
    const { message, documentation_url } = JSON.parse(body)
    throw new ErrorResponse(status, message, documentation_url)
  }
  // 204 has no body; every other one is decoded, and an empty one would be an error of io.EOF
  const value = status === 204 ? undefined : JSON.parse(body)
  return { status, headers, value: value as T, nextPage: readNextPage(headers.link) }
}

function readNextPage(link: string | string[] | undefined): number {
  for (const part of String(link ?? '').split(',')) {
    const [url, ...relations] = part.split(';').map((text) => text.trim())
    if (!url?.startsWith('<') || !relations.includes('rel="next"')) continue
    return Number(new URL(url.slice(1, -1)).searchParams.get('page') ?? 0)
  }
  return 0
}

/** As Go prints its `Timestamp`, which is what Terraform keeps and compares. */
export function goTime(text: string): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)Z$/.exec(text)
  if (!match) throw new Error('not RFC 3339 to the second, in UTC')
  return `${match[1]} ${match[2]} +0000 UTC`
}
