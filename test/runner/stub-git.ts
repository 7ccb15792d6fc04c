import { Conflict } from '../../src/errors.ts'
import type { GitCredentials } from '../../src/runner/delivery.ts'
import type { CloneSources } from '../../src/runner/environment.ts'

/** Makes a file for each source, by a process in the sandbox. */
export const cloneSources: CloneSources = async (sandbox, folders, sources, { signal }) => {
  const process = await sandbox.start(folders, {
    command: [
      '/bin/sh',
      '-c',
      'for uri; do case $uri in hang) sleep 1000;; fail) exit 1;; esac; echo whole > "$uri"; done',
      'sh',
      ...sources.map(({ remoteUri }) => remoteUri)
    ],
    variables: {},
    links: new Map()
  })
  signal.addEventListener('abort', () => process.kill())
  if (signal.aborted) process.kill()
  const { code } = await process.exit
  signal.throwIfAborted()
  if (code !== 0) throw new Conflict('The repository cannot be cloned.')
  return { git: { cloneUrl: sources[0]!.remoteUri, branch: 'main', latestCommit: '0'.repeat(40) } }
}

export const git: GitCredentials = {
  parse(value) {
    const [username = '', password = ''] = value.toString().split(':')
    if (/[\r\n\0]/.test(value.toString())) throw new Conflict('A git credential has one line.')
    return { username, password }
  },
  files(credentials) {
    return new Map(
      credentials.map(({ host, username, password }, index) => [
        `git/${index}`,
        Buffer.from(`${host}\n${username}\n${password}\n`)
      ])
    )
  }
}
