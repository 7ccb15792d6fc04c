import { lookup } from 'node:dns/promises'
import { BlockList, isIPv6 } from 'node:net'
import { addressOf, parseHostAndPort } from './hosts.ts'

/** A remote may not be used, or cannot be found; the message names the rule and the remedy, and is fit to be shown. */
export class RemoteRefused extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'RemoteRefused'
  }
}

export interface Remote {
  /** for git: with the host in the form that was checked */
  uri: string
  protocol: 'https' | 'http' | 'ssh'
  host: string
  port: number
  /** the last part of the path, without `.git` */
  repository: string
}

/** A remote that was resolved, so that git goes where it was checked to lead. */
export interface ResolvedRemote extends Remote {
  /** undefined: the host is an address itself */
  addresses?: readonly string[]
}

const PORTS = { https: 443, http: 80, ssh: 22 } as const

const MAX_LENGTH = 2048
const FORMS = 'https://host/path, http://host/path, ssh://user@host/path or user@host:path'

/**
 * Where machines of a cloud ask for their own credentials, and all else that is link-local. Private and loopback
 * addresses are where people who host themselves have their git.
 */
const refusedAddresses = new BlockList()
refusedAddresses.addSubnet('169.254.0.0', 16)
refusedAddresses.addSubnet('fe80::', 10, 'ipv6')
for (const address of ['100.100.100.200', '192.0.0.192', '168.63.129.16'])
  refusedAddresses.addAddress(address)
for (const address of ['fd00:ec2::254', 'fd20:ce::254']) refusedAddresses.addAddress(address, 'ipv6')
// IPv4 within IPv6: compatible (RFC 4291), translated (RFC 6052), 6to4 (RFC 3056). Mapped ones, BlockList knows itself.
for (const prefix of ['::', '64:ff9b::']) {
  refusedAddresses.addSubnet(`${prefix}a9fe:0`, 112, 'ipv6')
  for (const low of ['6464:64c8', 'c000:c0', 'a83f:8110'])
    refusedAddresses.addAddress(`${prefix}${low}`, 'ipv6')
}
refusedAddresses.addSubnet('2002:a9fe::', 32, 'ipv6')

export function isRefusedAddress(address: string): boolean {
  return refusedAddresses.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

/** @throws RemoteRefused */
export function parseRemote(uri: string): Remote {
  if (uri.length > MAX_LENGTH) throw new RemoteRefused(`A remote has at most ${MAX_LENGTH} characters.`)
  // Spaces, control characters and backslashes are what programs read in different ways.
  if (!/^[^\s\\\p{Cc}]+$/u.test(uri)) {
    throw new RemoteRefused('A remote cannot be empty, or have spaces, backslashes or control characters.')
  }
  if (uri.startsWith('-')) throw new RemoteRefused('A remote cannot begin with "-".')
  if (/^[\w.+-]+::/.test(uri)) {
    throw new RemoteRefused(`A remote cannot name a helper of git ("::"). It can be ${FORMS}.`)
  }
  const url = /^([\w.+-]+):\/\/([^/]*)(\/.*)?$/.exec(uri)
  if (url) return parseUrl(url[1]!.toLowerCase(), url[2]!, url[3] ?? '')
  const scp = /^(?:([^@:/]*)@)?(\[[^\]]*\]|[^:/@[\]]+):(.+)$/.exec(uri)
  if (scp) return parseScp(scp[1], scp[2]!, scp[3]!)
  throw new RemoteRefused(`A remote can be ${FORMS}; a path of the machine or a bundle cannot.`)
}

function parseUrl(protocol: string, authority: string, path: string): Remote {
  if (protocol !== 'https' && protocol !== 'http' && protocol !== 'ssh') {
    throw new RemoteRefused(`A remote cannot use ${protocol}. It can be ${FORMS}.`)
  }
  const at = authority.lastIndexOf('@')
  const user = at < 0 ? undefined : authority.slice(0, at)
  requireUser(user)
  const where = parseHostAndPort(authority.slice(at + 1))
  if (!where)
    throw new RemoteRefused('The remote has no valid host. Names have to be ASCII ("xn--…" for others).')
  requireAllowed(where.host)
  const { host, port } = where
  const shownUser = user === undefined ? '' : `${user}@`
  const shownPort = port === undefined ? '' : `:${port}`
  return {
    uri: `${protocol}://${shownUser}${host}${shownPort}${path}`,
    protocol,
    host,
    port: port ?? PORTS[protocol],
    repository: repositoryName(path)
  }
}

function parseScp(user: string | undefined, name: string, path: string): Remote {
  requireUser(user)
  const where = parseHostAndPort(name)
  if (!where || where.port !== undefined) throw new RemoteRefused('The remote has no valid host.')
  requireAllowed(where.host)
  const { host } = where
  const shownUser = user === undefined ? '' : `${user}@`
  return {
    uri: `${shownUser}${host}:${path}`,
    protocol: 'ssh',
    host,
    port: PORTS.ssh,
    repository: repositoryName(path)
  }
}

/** What has a `-` in front would be an option of ssh. */
function requireUser(user: string | undefined): void {
  if (user === undefined) return
  if (user.includes(':')) {
    throw new RemoteRefused(
      'A remote cannot have a password in it: store it as a git secret for its host, and give the remote without.'
    )
  }
  if (!/^[\w.%+][\w.%+~-]*$/.test(user)) throw new RemoteRefused('The user name in the remote is not valid.')
}

function requireAllowed(host: string): void {
  const address = addressOf(host)
  if (address !== undefined) requireAllowedAddresses(host, [address])
}

function requireAllowedAddresses(host: string, addresses: readonly string[]): void {
  if (!addresses.some(isRefusedAddress)) return
  throw new RemoteRefused(
    `The remote's host ${host} leads to a link-local address or to the metadata of a cloud, where no git is. ` +
      'Use the address that the git server has on its network.'
  )
}

function repositoryName(path: string): string {
  const name = /([^/:]*?)(?:\.git)?\/*$/.exec(path.replace(/[?#].*$/, ''))![1]!
  if (name === '' || name.startsWith('.') || name.startsWith('-')) {
    throw new RemoteRefused('The path of the remote does not end with the name of a repository.')
  }
  return name
}

/**
 * Where the host of a remote leads now. One name may have several addresses; all of them have to be allowed.
 *
 * @throws RemoteRefused
 */
export async function resolveRemote(remote: Remote): Promise<ResolvedRemote> {
  if (addressOf(remote.host) !== undefined) return remote
  const found = await lookup(remote.host, { all: true }).catch((error: NodeJS.ErrnoException) => {
    throw new RemoteRefused(`The remote's host ${remote.host} was not found (${error.code}). Check its name.`)
  })
  const addresses = found.map(({ address }) => address)
  requireAllowedAddresses(remote.host, addresses)
  return { ...remote, addresses }
}

/** For git's `http.curloptResolve`; undefined: there is nothing to pin. */
export function curlResolve({ protocol, host, port, addresses }: ResolvedRemote): string | undefined {
  if (protocol === 'ssh' || !addresses) return undefined
  return `${host}:${port}:${addresses.map((address) => (isIPv6(address) ? `[${address}]` : address)).join(',')}`
}
