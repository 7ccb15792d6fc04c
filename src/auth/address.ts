import { isIP } from 'node:net'

/**
 * Whom an address stands for, where requests are counted: an IPv4 address itself; of IPv6 the network of 64 bits,
 * since whoever has one address there has them all; `local` for the unix socket, which has none.
 */
export function addressKey(ip: string | undefined): string {
  if (!ip) return 'local'
  const mapped = /^::ffff:([0-9.]+)$/i.exec(ip)?.[1]
  const address = mapped ?? ip.replace(/%.*$/, '')
  if (isIP(address) === 4) return address
  // A trusted proxy may pass on anything: whatever is no address is counted together.
  return isIP(address) === 6 ? `${networkOf(address)}::/64` : 'unknown'
}

/** The first four of the eight groups, with what `::` stands for, and without leading zeros. */
function networkOf(address: string): string {
  const [head = '', tail] = address.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail ? tail.split(':') : []
  const afterCount = after.length + (tail?.includes('.') ? 1 : 0)
  const zeros = tail === undefined ? 0 : 8 - before.length - afterCount
  return [...before, ...Array<string>(zeros).fill('0'), ...after]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}
