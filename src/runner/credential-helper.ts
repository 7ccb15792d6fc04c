import { isLoopback, parseHostAndPort } from './hosts.ts'
import { INSIDE } from './sandbox.ts'
import { quote } from './terminal.ts'

export interface GitCredential {
  username: Buffer
  password: Buffer
}

/** What GitHub, and whoever follows it, takes as the user name beside a token; others take any. */
const TOKEN_USERNAME = 'x-access-token'

const BREAKS = ['\0', '\r', '\n']

/**
 * The value of a git secret: `username:password`, or a token alone.
 *
 * @returns views of `value`, no copies
 * @throws Error whose message can be shown: it quotes nothing
 */
export function parseGitCredential(value: Buffer): GitCredential {
  if (BREAKS.some((character) => value.includes(character))) {
    throw new Error('The value has a line break or a NUL character, which git credentials cannot have.')
  }
  const colon = value.indexOf(':')
  const username = colon < 0 ? Buffer.from(TOKEN_USERNAME) : value.subarray(0, colon)
  const password = value.subarray(colon + 1)
  if (username.length > 0 && password.length > 0) return { username, password }
  throw new Error('The value has no user name or no password; it has to be username:password, or a token.')
}

/** The only protocol and host that a credential is for. */
export interface CredentialBinding {
  protocol: 'https' | 'http'
  /** as git names it: with a port only where it is not the protocol's own */
  host: string
}

const DEFAULT_PORTS = { https: 443, http: 80 } as const

/**
 * What the host of a git secret binds it to. `host` and `host:port` are for https, and for http only where that does
 * not leave the machine; `http://host:port` is for http, for whoever wants that.
 *
 * @throws Error whose message can be shown
 */
export function credentialBindings(gitHost: string): CredentialBinding[] {
  const [, scheme, rest = ''] = /^(?:(https?):\/\/)?([^/]*)\/?$/i.exec(gitHost) ?? []
  const where = parseHostAndPort(rest)
  if (!where) {
    throw new Error('The host of a git secret has to be one, as git.example.com or git.example.com:8443.')
  }
  const { host, port } = where
  const protocols = isLoopback(host) ? (['https', 'http'] as const) : (['https'] as const)
  const wanted = scheme ? [scheme.toLowerCase() as CredentialBinding['protocol']] : protocols
  return wanted.map((protocol) => {
    const hasOwnPort = port !== undefined && port !== DEFAULT_PORTS[protocol]
    return { protocol, host: hasOwnPort ? `${host}:${port}` : host }
  })
}

/**
 * What git asks for credentials (git-credential(1)). It compares what is asked with what stands in the file itself, as a
 * number in a configuration that git has read before may be another credential's by now. Only builtins of the shell
 * see a value, so that it is in no process list.
 */
const HELPER = `# Answers git from one credential, for its protocol and its host and no other.
case $1 in '' | *[!0-9]*) exit 0 ;; esac
[ "$2" = get ] || exit 0
LC_ALL=C
asked_protocol='' asked_host='' asked_username=''
while IFS= read -r line && [ -n "$line" ]; do
  case $line in
    protocol=*) asked_protocol=\${line#*=} ;;
    host=*) asked_host=\${line#*=} ;;
    username=*) asked_username=\${line#*=} ;;
  esac
done
case $asked_host in *[A-Z]*) asked_host=$(printf '%s' "$asked_host" | tr 'A-Z' 'a-z') ;; esac
case $asked_protocol:$asked_host in
  https:*:443) asked_host=\${asked_host%:443} ;;
  http:*:80) asked_host=\${asked_host%:80} ;;
esac
{
  IFS= read -r protocol && IFS= read -r host && IFS= read -r username && IFS= read -r password
} 2>/dev/null <"\${0%/*}/../git/$1" || exit 0
[ "$protocol" = "protocol=$asked_protocol" ] || exit 0
[ "$host" = "host=$asked_host" ] || exit 0
case $asked_username in
  '') ;;
  *) [ "$username" = "username=$asked_username" ] || [ "$username" = username=${TOKEN_USERNAME} ] || exit 0 ;;
esac
printf '%s\\n' "$username" "$password"
`

/**
 * The files by which git gets credentials, by their paths in the folder of secrets: a configuration to include, the
 * helper that it names, and for each binding of a credential a file that the helper reads when it is asked.
 *
 * @param secretsFolder where the folder is seen by git
 * @throws Error as credentialBindings does, for a host that is none
 */
export function gitCredentialFiles(
  credentials: readonly ({ host: string } & GitCredential)[],
  secretsFolder: string = INSIDE.secrets
): Map<string, Buffer> {
  const files = new Map<string, Buffer>()
  const helpers = new Map<string, string[]>()
  const bound = credentials.flatMap((credential) =>
    credentialBindings(credential.host).map((binding) => ({ ...credential, ...binding }))
  )
  for (const [number, { protocol, host, username, password }] of bound.entries()) {
    files.set(`git/${number}`, credentialFile({ protocol, host }, { username, password }))
    const url = `${protocol}://${host}`
    const helper = `!/bin/sh ${quote(`${secretsFolder}/bin/git-credential`)} ${number}`
    helpers.set(url, [...(helpers.get(url) ?? []), helper])
  }
  files.set('bin/git-credential', Buffer.from(HELPER))
  files.set('gitconfig', Buffer.from([...helpers].map(([url, own]) => section(url, own)).join('')))
  return files
}

function credentialFile(
  { protocol, host }: CredentialBinding,
  { username, password }: GitCredential
): Buffer {
  return Buffer.concat([
    Buffer.from(`protocol=${protocol}\nhost=${host}\nusername=`),
    username,
    Buffer.from('\npassword='),
    password,
    Buffer.from('\n')
  ])
}

/** The empty helper first: else others, as `store`, would be given what ours has answered, and write it to disk. */
function section(url: string, helpers: readonly string[]): string {
  const lines = ['', ...helpers].map((helper) => `\thelper = ${quoteValue(helper)}\n`)
  return `[credential "${url}"]\n${lines.join('')}`
}

function quoteValue(value: string): string {
  return `"${value.replace(/["\\]/g, '\\$&').replaceAll('\n', '\\n')}"`
}
