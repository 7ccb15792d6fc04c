import type { Test } from 'tap'
import { type GitServer, type GitServerOptions, startGitServer } from '../../scripts/git-server.ts'

export { makeRepository } from '../../scripts/git-server.ts'

/** A git server for a test, gone at its end. */
export async function serveGit(t: Test, options: GitServerOptions = {}): Promise<GitServer> {
  const server = await startGitServer(options)
  t.teardown(server.close)
  return server
}
