import type { ExitStatus } from './exit-status.ts'
import { isLoopback } from './hosts.ts'
import type { Remote } from './remotes.ts'

const MAX_REASON_LENGTH = 300

/**
 * Why git has failed, in a sentence for whoever wants the repository.
 *
 * @param stderr with the words of the remote's server in it, so neither short nor harmless
 */
export function explainFailure(remote: Remote, status: ExitStatus, stderr: string): string {
  if (status.signal) return `git was ended by ${status.signal} while it cloned from ${remote.host}.`
  const host = hostWithPort(remote)
  // A git secret is for https, unless its host says otherwise or is this machine.
  const secretHost = remote.protocol === 'http' && !isLoopback(remote.host) ? `http://${host}` : host
  if (/could not read (?:Username|Password) for/.test(stderr)) {
    return `${host} asks for credentials. Store a git secret for ${secretHost}: username:password, or a token.`
  }
  if (/Authentication failed for|returned error: 403/.test(stderr)) {
    return `${host} did not accept the credentials. Check the git secret for ${secretHost}.`
  }
  if (/Permission denied \(/.test(stderr)) {
    return `${host} did not accept an SSH key. Deliver one as a file secret, or use https with a git secret.`
  }
  if (/unable to update url base from redirection|returned error: 30\d/.test(stderr)) {
    return `${host} sends git to another address, which is not followed. Give that address as the remote.`
  }
  // Not the remote's disk, of which it would tell so, too.
  if (/^(?!remote: ).*(?:No space left on device|Disk quota exceeded)/m.test(stderr)) {
    return `The disk of the runner is full: what ${host} sent could not be written. Make room there, and start again.`
  }
  return `git could not clone from ${host}: ${reasonOf(stderr)}`
}

function hostWithPort({ protocol, host, port }: Remote): string {
  const isUsual = port === { https: 443, http: 80, ssh: 22 }[protocol]
  return isUsual ? host : `${host}:${port}`
}

/** The last error of git itself, on one line. */
function reasonOf(stderr: string): string {
  const lines = stderr.split(/[\r\n]+/).filter(Boolean)
  const errors = lines.filter((line) => /^(?:fatal|error): /.test(line))
  const line = (errors.at(-1) ?? lines.at(-1) ?? 'it said nothing').replace(/^(?:fatal|error): /, '')
  const shown = line
    .replace(/\p{Cc}+/gu, ' ')
    // Whoever is logged in is of no interest here.
    .replace(/\/\/[^/\s@]*@/g, '//')
  return shown.length > MAX_REASON_LENGTH ? `${shown.slice(0, MAX_REASON_LENGTH)}…` : shown
}
