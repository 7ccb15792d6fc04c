import type { Static } from '@sinclair/typebox'
import type { Keyring } from '../../keyring/index.ts'
import { decode, invalid } from './decode.ts'
import type { Call } from './method.ts'
import { Int32, Message, Text } from './schema.ts'

const DEFAULT_PAGE_SIZE = 25
const MAX_PAGE_SIZE = 100
/** In base64: a MAC, and where a page ended, with a name of 255 characters at most. */
const MAX_TOKEN = 1024

export const PaginationRequest = Message(
  'PaginationRequest',
  {
    token: Text({
      max: MAX_TOKEN,
      description: "`nextToken` of the page before; the query's `token` counts instead"
    }),
    pageSize: Int32({
      min: 0,
      max: MAX_PAGE_SIZE,
      description: `At most ${MAX_PAGE_SIZE}; 0 or unset: ${DEFAULT_PAGE_SIZE}. The query's \`pageSize\` counts instead`
    })
  },
  { description: 'Which page' }
)
export const PaginationResponse = Message('PaginationResponse', {
  nextToken: Text({ description: 'Of the next page; unset: this is the last one' })
})

type PaginationRequest = Static<typeof PaginationRequest>

export interface Page<K> {
  /** one more than a page holds, to know whether another one follows */
  limit: number
  /** where the page before ended; undefined: from the beginning */
  after: K | undefined
  /** the page, of the rows that were found */
  close<R>(
    rows: readonly R[],
    keyOf: (row: R) => K
  ): { rows: readonly R[]; pagination: { nextToken?: string } }
  /** for a list that knows itself where its next page begins; undefined: there is none */
  goOn(key: K | undefined): { nextToken?: string }
}

/**
 * Tokens of pages are opaque: where the page ended, with a MAC over that, the method, who asks and what is asked for.
 * So a token is good for its own list alone.
 */
export class Pages {
  readonly #keyring: Keyring

  constructor(keyring: Keyring) {
    this.#keyring = keyring
  }

  /**
   * Reads which page is asked for. What SDKs put into the query counts more than the message, whose first page they
   * repeat.
   *
   * @throws InvalidInput for a token of another list, or none of ours
   */
  open<K extends readonly (string | number)[]>(
    call: Call,
    input: { pagination?: PaginationRequest }
  ): Page<K> {
    const { pagination = {}, ...asked } = input
    const { token, pageSize } = { ...pagination, ...readQuery(call.http.query) }
    const bound = this.#boundTo(call, asked)
    const size = pageSize || DEFAULT_PAGE_SIZE
    const goOn = (key: K | undefined) => (key ? { nextToken: this.#write(key, bound) } : {})
    return {
      limit: size + 1,
      after: token ? (this.#read(token, bound) as unknown as K) : undefined,
      close: (rows, keyOf) => {
        const shown = rows.slice(0, size)
        const last = shown.at(-1)
        return { rows: shown, pagination: goOn(rows.length > size && last ? keyOf(last) : undefined) }
      },
      goOn
    }
  }

  #boundTo({ actor, http }: Call, asked: object): string {
    const { url } = http.routeOptions
    return JSON.stringify([url, actor.accountUid, asked])
  }

  #write(key: readonly (string | number)[], bound: string): string {
    const place = JSON.stringify(key)
    const mac = this.#keyring.digestValue(PURPOSE, signed(place, bound)).subarray(0, MAC_BYTES)
    return Buffer.concat([mac, Buffer.from(place)]).toString('base64url')
  }

  #read(token: string, bound: string): unknown {
    const bytes = Buffer.from(token, 'base64url')
    const mac = bytes.subarray(0, MAC_BYTES)
    const place = bytes.toString('utf8', MAC_BYTES)
    // Decoding passes over what is no base64.
    const canonical = mac.length === MAC_BYTES && bytes.toString('base64url') === token
    if (!canonical || !this.#keyring.isDigest(PURPOSE, signed(place, bound), mac)) {
      throw invalid(
        'pagination.token',
        'is no token of this list; start again without one, with the same request for each page'
      )
    }
    return JSON.parse(place)
  }
}

/** Both are JSON, which does not begin or end inside the other: their line is theirs alone. */
function signed(place: string, bound: string): Buffer {
  return Buffer.from(`${place}\n${bound}`)
}

const MAC_BYTES = 16
/** In the place of a collection, which it is not: no secret's digest is made with this key. */
const PURPOSE = 'ona/page-tokens'

function readQuery(query: unknown): PaginationRequest {
  const { token, pageSize } = query as Record<string, string | undefined>
  const given = { ...(token && { token }), ...(pageSize && { pageSize }) }
  return Object.keys(given).length > 0 ? decode(PaginationRequest, given) : {}
}
