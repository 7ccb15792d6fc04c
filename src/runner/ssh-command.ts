import type { ResolvedRemote } from './remotes.ts'
import { quote } from './terminal.ts'

/**
 * What git runs for ssh. It asks nothing, and goes to the address that was checked, by the host's own name in
 * `known_hosts`: there, a host that is met for the first time is believed, and later has to be the same.
 */
export function sshCommand({ host, port, addresses }: ResolvedRemote): string {
  const name = port === 22 ? host : `[${host}]:${port}`
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=accept-new',
    'ConnectTimeout=30',
    ...(addresses?.[0] === undefined ? [] : [`HostName=${addresses[0]}`, `HostKeyAlias=${name}`])
  ]
  return ['ssh', ...options.flatMap((option) => ['-o', quote(option)])].join(' ')
}
