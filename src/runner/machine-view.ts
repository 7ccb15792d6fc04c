import { lstat, readlink, realpath } from 'node:fs/promises'
import path from 'node:path'
import { RefusedToStart } from '../errors.ts'
import { INSIDE } from './sandbox.ts'

/** Programs and what they load. Where one is a symbolic link, as on systems with a merged /usr, so it is inside. */
const PROGRAMS = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32']

/** Of /etc what programs cannot do without; never a folder that has private keys, as /etc/ssl has. */
const SETTINGS = [
  'alternatives',
  'ca-certificates',
  'crypto-policies',
  'gai.conf',
  'host.conf',
  'hosts',
  'ld.so.cache',
  'ld.so.conf',
  'ld.so.conf.d',
  'localtime',
  'mime.types',
  'nsswitch.conf',
  'pki/ca-trust',
  'pki/tls/cert.pem',
  'pki/tls/certs',
  'protocols',
  'resolv.conf',
  'services',
  'ssl/cert.pem',
  'ssl/certs',
  'ssl/openssl.cnf',
  'terminfo'
].map((name) => `/etc/${name}`)

/** What every sandbox makes anew, or shows of the environment. */
const OWN = ['/proc', '/dev', '/tmp', '/run', '/etc/passwd', '/etc/group', ...Object.values(INSIDE)]
/** Of these, where nothing can be linked. */
const CLOSED = ['/proc', '/dev', '/etc/passwd', '/etc/group', INSIDE.secrets]

export interface MachineView {
  /** arguments of bubblewrap, before those of the environment */
  arguments: readonly string[]
  /** why a link cannot be made there; undefined: it can */
  refuse(path: string): string | undefined
}

/**
 * The part of the machine that environments see, read-only.
 *
 * @param more absolute paths that are shown, too, as the folder of the node binary
 * @param hidden absolute paths that stay unseen, even below one that is shown: the runner's data folder
 * @throws RefusedToStart when one would cover what an environment has itself, or lies in what shall be hidden
 */
export async function viewMachine(more: readonly string[], hidden: readonly string[]): Promise<MachineView> {
  const shown: string[] = []
  const args: string[] = []
  for (const place of more) {
    const reason = refuse(place, [])
    if (reason) throw new RefusedToStart(`${place} cannot be shown to environments. ${reason}`)
  }
  for (const place of [...PROGRAMS, ...SETTINGS, ...more]) {
    if (shown.some((other) => isBelow(place, other))) continue
    const stats = await lstat(place).catch(() => undefined)
    if (!stats) continue
    shown.push(place)
    const linked = stats.isSymbolicLink() && PROGRAMS.includes(place)
    args.push(...(linked ? ['--symlink', await readlink(place), place] : ['--ro-bind-try', place, place]))
  }
  args.push(...(await cover(hidden, shown)))
  return { arguments: args, refuse: (place) => refuse(place, shown) }
}

/** An empty folder over each that stays unseen, wherever it comes in sight. */
async function cover(hidden: readonly string[], shown: readonly string[]): Promise<string[]> {
  const args: string[] = []
  for (const folder of hidden) {
    const real = await realpath(folder).catch(() => undefined)
    if (real === undefined) continue
    for (const place of shown) {
      const source = await realpath(place).catch(() => place)
      if (isBelow(source, real)) {
        throw new RefusedToStart(`${place} cannot be shown to environments: it lies in ${real}.`)
      }
      if (!isBelow(real, source)) continue
      const inside = path.posix.join(place, path.posix.relative(source, real))
      args.push('--tmpfs', inside, '--remount-ro', inside)
    }
  }
  return args
}

function refuse(place: string, shown: readonly string[]): string | undefined {
  if (!place.startsWith('/')) return 'The path is not absolute.'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\x00-\x1f\x7f]/.test(place)) return 'The path has control characters.'
  if (place !== path.posix.normalize(place) || place.endsWith('/')) {
    return 'The path has empty segments, "." or "..", or ends with "/".'
  }
  if (Buffer.byteLength(place) > 4095 || place.split('/').some((name) => Buffer.byteLength(name) > 255)) {
    return 'The path is longer than the system allows.'
  }
  const fixed = [...shown, ...CLOSED].find((other) => isBelow(place, other))
  if (fixed) return `The path lies in ${fixed}, where an environment has nothing of its own.`
  const covered = [...shown, ...OWN].find((other) => isBelow(other, place))
  return covered && `The path is that of a folder which an environment needs for ${covered}.`
}

/** The path itself counts, too. */
export function isBelow(place: string, folder: string): boolean {
  return place === folder || place.startsWith(folder.endsWith('/') ? folder : `${folder}/`)
}
