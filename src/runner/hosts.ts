import { isIPv4, isIPv6 } from 'node:net'

/** A host as it stands in a URL: a name in ASCII, or an address; IPv6 in brackets. */
export interface Host {
  /** in lower case; an IPv4 address in its usual form */
  host: string
  /** undefined: the scheme's own */
  port?: number
}

const NAME = /^(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*\.?$/

/**
 * Undefined when it is none. Names that look like an address in numbers, as `0x7f.1` or `2130706433`, come out as that
 * address, since programs take them for it.
 */
export function parseHost(text: string): string | undefined {
  const host = text.toLowerCase()
  if (host.startsWith('[') && host.endsWith(']'))
    return isIPv6(host.slice(1, -1)) ? canonical(host) : undefined
  if (host.length > 253 || !NAME.test(host)) return undefined
  return canonical(host)
}

/** With a port, maybe. */
export function parseHostAndPort(text: string): Host | undefined {
  const [, name = '', digits] = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = parseHost(name)
  const port = digits === undefined ? undefined : Number(digits)
  if (!host || port === 0 || (port !== undefined && port > 65535)) return undefined
  return { host, ...(port !== undefined && { port }) }
}

/** As WHATWG's URL has it: https://url.spec.whatwg.org/#host-parsing */
function canonical(host: string): string | undefined {
  try {
    return new URL(`http://${host}`).hostname
  } catch {
    return undefined
  }
}

/** The address, without brackets; undefined: it is a name. */
export function addressOf(host: string): string | undefined {
  const bare = host.startsWith('[') ? host.slice(1, -1) : host
  return isIPv4(bare) || isIPv6(bare) ? bare : undefined
}

/** Whether it is this machine, whatever a resolver says. */
export function isLoopback(host: string): boolean {
  const address = addressOf(host)
  return address === '::1' || host === 'localhost' || (address?.startsWith('127.') ?? false)
}
