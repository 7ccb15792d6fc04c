import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import Gitpod from '@gitpod/sdk'
import { EnvironmentState } from '@gitpod/sdk/lib/environment'
import sealedBox from 'tweetnacl-sealedbox-js'
import { makeRepository, startGitServer } from './git-server.ts'

// npm run demo: a server in a folder of its own, secrets by both APIs, an environment that receives them, and what a
// process in it sees: names, mounts and lengths, never values. Everything is gone at the end.

const COFFER = path.resolve(import.meta.dirname, '..', 'bin', 'coffer.mjs')
const TOKEN = `demo_${randomBytes(24).toString('hex')}`

const say = (line: string) => console.log(line)

/** What is to be undone, the last first. */
const undo: (() => Promise<unknown>)[] = []

/** The real server, as `npm start` has it. */
async function startServer(folder: string, gitHost: string): Promise<string> {
  const child = spawn(process.execPath, [COFFER, 'serve'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      COFFER_DATA_DIR: path.join(folder, 'data'),
      COFFER_PORT: '0',
      COFFER_ADMIN_TOKEN: TOKEN,
      COFFER_GIT_HOSTS: gitHost,
      ...(process.env.COFFER_RUNNER_UNISOLATED && {
        COFFER_RUNNER_UNISOLATED: process.env.COFFER_RUNNER_UNISOLATED
      })
    }
  })
  undo.push(async () => {
    if (child.exitCode !== null) return
    child.kill('SIGTERM')
    await once(child, 'exit')
  })
  const lines = createInterface({ input: child.stdout })
  const url = await new Promise<string>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code} before it was ready`)))
    lines.on('line', (line) => {
      const found = /"url":"(http[^"]+)".*"msg":"serving"/.exec(line)?.[1]
      if (found) resolve(found)
    })
  })
  child.removeAllListeners('exit')
  lines.close()
  child.stdout.resume()
  return url
}

/** GitHub's API, as `gh` uses it. */
async function github<T>(url: string, method: string, target: string, body?: object): Promise<T> {
  const response = await fetch(`${url}/api/v3${target}`, {
    method,
    headers: { authorization: `Bearer ${TOKEN}` },
    ...(body && { body: JSON.stringify(body) })
  })
  if (!response.ok) throw new Error(`${method} ${target} answered ${response.status}`)
  return (response.status === 200 || response.status === 201 ? await response.json() : undefined) as T
}

/** Seals a value here and stores it, as `gh secret set` does. */
async function setSecret(url: string, target: string, name: string, value: string, more: object = {}) {
  const { key, key_id } = await github<{ key: string; key_id: string }>(url, 'GET', `${target}/public-key`)
  const box = sealedBox.seal(Buffer.from(value), Buffer.from(key, 'base64'))
  const encrypted_value = Buffer.from(box).toString('base64')
  await github(url, 'PUT', `${target}/${name}`, { encrypted_value, key_id, ...more })
}

/** Runs a script in an environment, by the command line. */
async function runInside(url: string, environmentId: string, script: string): Promise<string> {
  const command = [COFFER, 'env', 'exec', environmentId, '--', 'sh', '-c', script]
  const child = spawn(process.execPath, command, {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH, HOME: process.env.HOME, COFFER_URL: url, COFFER_TOKEN: TOKEN }
  })
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  if (code !== 0) throw new Error(`the command in the environment ended with ${code}`)
  return output
}

/** Shows what is there by its length alone. */
const LOOK = `
for name in FROM_REPOSITORY FROM_USER DB_URL; do
  eval "value=\\$$name"; echo "  variable   $name: \${#value} characters"
done
echo "  file       /etc/demo/key: $(wc -c < /etc/demo/key) bytes, mode $(stat -Lc %a /etc/demo/key)"
echo "  registry   $(grep -o '"[a-z.]*example.com"' "$DOCKER_CONFIG/config.json") in \\$DOCKER_CONFIG/config.json"
password=$(printf 'protocol=http\\nhost=%s\\n\\n' "$1" | git credential fill | grep -c ^password)
echo "  git        $password password for $1, from a helper that asks at use"
echo "  api-only   LATER: $(env | grep -c ^LATER=) variables of that name"
echo "  workspace  $(pwd): $(git log --oneline | wc -l) commits, on branch $(git branch --show-current)"
`

async function demo(): Promise<void> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'coffer-demo-'))
  await chmod(folder, 0o711)
  undo.push(() => rm(folder, { recursive: true, force: true }))
  const git = await startGitServer({ credentials: 'robot:correct horse' })
  undo.push(git.close)
  await makeRepository(git, 'admin/web')

  const url = await startServer(folder, git.host)
  say(`Coffer serves ${url}, in an empty folder`)

  const { id: repositoryId } = await github<{ id: number }>(url, 'POST', '/user/repos', { name: 'web' })
  await setSecret(url, '/repos/admin/web/codespaces/secrets', 'FROM_REPOSITORY', 'sealed for the repository')
  await setSecret(url, '/user/codespaces/secrets', 'FROM_USER', 'sealed for the user', {
    selected_repository_ids: [repositoryId]
  })
  say('Sealed as gh does: FROM_REPOSITORY for the repository admin/web, FROM_USER for the user')

  const client = new Gitpod({ baseURL: `${url}/api`, bearerToken: TOKEN })
  const { project } = await client.projects.create({
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: `${git.url}/admin/web` } }] },
    environmentClass: {}
  })
  const scope = { projectId: project!.id! }
  const secrets: Record<string, object> = {
    DB_URL: { value: 'postgres://db/one', environmentVariable: true },
    KEY: { value: 'line one\nline two\n', filePath: '/etc/demo/key' },
    REGISTRY: { value: 'user:password', containerRegistryBasicAuthHost: 'registry.example.com' },
    GIT: { value: 'robot:correct horse', gitCredentialHost: `http://${git.host}` },
    LATER: { value: 'asked for by a program', apiOnly: true }
  }
  const ids = new Map<string, string>()
  for (const [name, secret] of Object.entries(secrets)) {
    const made = await client.secrets.create({ name, value: '', scope, ...secret })
    ids.set(name, made.secret!.id!)
  }
  say('By the SDK: a project with a secret of each mount (variable, file, registry, git, api-only)')

  const { environment } = await client.environments.createFromProject({ projectId: project!.id!, spec: {} })
  const state = new EnvironmentState(client, environment.id)
  await state.waitUntilRunning()
  const { status } = await state.getEnvironment()
  say(`client.environments.createFromProject made ${environment.metadata!.name}; it runs, with`)
  for (const { secretName, phase } of status!.secrets ?? []) {
    say(`  ${secretName!.padEnd(16)} ${phase!.replace('CONTENT_PHASE_', '').toLowerCase()}`)
  }
  const script = `set -- '${git.host}'\n${LOOK}`
  say('A process inside sees:')
  process.stdout.write(await runInside(url, environment.id, script))

  await client.secrets.updateValue({ secretId: ids.get('DB_URL')!, value: 'postgres://db/another' })
  await client.secrets.updateValue({ secretId: ids.get('KEY')!, value: 'a new line\n' })
  await state.waitUntil(({ status }) =>
    (status?.secrets ?? []).filter(({ session }) => session === '2').length === 2 ? true : undefined
  )
  say('DB_URL and KEY have new values, and the environment has them; the next process sees:')
  const after = await runInside(url, environment.id, script)
  process.stdout.write(
    after
      .split('\n')
      .filter((line) => /DB_URL|demo\/key/.test(line))
      .map((line) => `${line}\n`)
      .join('')
  )

  // It would go on asking for what is gone.
  await state.close()
  await client.environments.delete({ environmentId: environment.id })
  const gone = () =>
    client.environments.retrieve({ environmentId: environment.id }).then(
      () => false,
      ({ status }) => status === 404
    )
  while (!(await gone())) await new Promise((resolve) => setTimeout(resolve, 50))
  say('The environment is deleted, and its secrets are gone from this machine')
}

try {
  await demo()
} catch (error) {
  console.error(`The demo failed: ${(error as Error).message}`)
  process.exitCode = 1
} finally {
  for (const step of undo.reverse()) await step()
}
