import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { listOnaServices } from '../scripts/describe.ts'
import { CHECKOUT } from './checkout.ts'
import { type OnaServer, startOnaServer } from './routes/rpc/helper.ts'

// What docs/ona.md says to paste is pasted.

const run = promisify(execFile)
const guide = await readFile(path.join(CHECKOUT, 'docs', 'ona.md'), 'utf8')

function blocks(language: string): string[] {
  return [...guide.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, name]) => name === language)
    .map(([, , text]) => text!)
}

/** Where the guide finds a server and the first token. */
async function makeFolder(t: Test, server: OnaServer): Promise<{ folder: string; url: string }> {
  const folder = t.testdir()
  await mkdir(path.join(folder, 'data'))
  await writeFile(path.join(folder, 'data', 'admin-token'), server.owner.token)
  return { folder, url: await server.listen() }
}

const served = listOnaServices().flatMap(({ name, methods }) =>
  methods.map((method) => `${name}/${method.name}`)
)
const named = [...new Set(guide.match(/\b[A-Z]\w+Service\/[A-Z]\w+/g))]

t.test('the commands for curl', async (t) => {
  const server = await startOnaServer(t)
  const { folder, url } = await makeFolder(t, server)
  const once = blocks('sh').filter((text) => !/npm install|WatchEvents/.test(text))
  const script = ['set -eu', ...once].join('\n').replaceAll('http://127.0.0.1:3000', url)
  const { stdout, stderr } = await run('bash', ['-c', script], { cwd: folder })
  t.equal(stderr, '')
  const answers = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
  t.ok(answers.length > 15)
  for (const answer of answers) t.notOk('code' in answer, JSON.stringify(answer))
  const { body } = await server.call('SecretService/ListSecrets', server.owner.token)
  t.same(
    body.secrets.map(({ name }: { name: string }) => name),
    ['NPM_TOKEN', 'DB_URL', 'DEPLOY_KEY', 'REGISTRY', 'SSH_KEY', 'EDITOR_KEY']
  )
})

t.test("the program for Ona's SDK", async (t) => {
  const server = await startOnaServer(t)
  const { url } = await makeFolder(t, server)
  const [program] = blocks('js')
  const { stdout } = await run(
    process.execPath,
    ['--input-type=module', '--eval', program!.replaceAll('http://127.0.0.1:3000', url)],
    { cwd: CHECKOUT, env: { ...process.env, COFFER_TOKEN: server.owner.token } }
  )
  t.equal(stdout, 'DB_URL\n')
})

t.test('every method that the guide names is served', async (t) => {
  t.ok(named.length > 15)
  for (const name of named) t.ok(served.includes(name), name)
})
