import { access, readFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import { parse } from 'yaml'
import { loadConfig } from '../src/config.ts'
import { CHECKOUT } from './checkout.ts'

// The image and the compose file cannot be run without an engine; what can be checked of them is checked here.

const read = (file: string) => readFile(path.join(CHECKOUT, file), 'utf8')

interface Service {
  environment?: Record<string, string>
  volumes?: string[]
  ports?: string[]
  command?: string[]
  depends_on?: Record<string, { condition: string }>
  image?: string
}
interface Compose {
  services: Record<string, Service>
  volumes: Record<string, unknown>
}

/** As compose does it: `${NAME:-default}` and `${NAME:?message}`. */
function substitute(text: string, variables: Record<string, string>): string {
  return text.replace(
    /\$\{(\w+)(?::([-?])([^}]*))?\}/g,
    (_, name: string, operator: string, rest: string) => {
      const value = variables[name]
      if (value) return value
      if (operator === '-') return rest
      throw new Error(`${name} is required`)
    }
  )
}

function documented(example: string): Set<string> {
  return new Set([...example.matchAll(/^#?([A-Z][A-Z0-9_]+)=/gm)].map(([, name]) => name!))
}

t.test('.env.example has every variable that the configuration reads, and no other', async (t) => {
  const source = await readFile(path.join(CHECKOUT, 'src', 'config.ts'), 'utf8')
  const names = new Set([
    'COFFER_ADMIN_TOKEN_FILE',
    'COFFER_METRICS_TOKEN_FILE',
    'COFFER_RUNNER_TOKEN_FILE',
    'COFFER_TOKEN_FILE'
  ])
  for (const [, name] of source.matchAll(/reader\s*\.\w+\(\s*'([A-Z][A-Z0-9_]+)'/g)) names.add(name!)
  names.delete('XDG_RUNTIME_DIR')
  t.same([...documented(await read('.env.example'))].sort(), [...names].sort())
})

t.test('the defaults that .env.example shows are the defaults', async (t) => {
  const example = await read('.env.example')
  const shown = Object.fromEntries(
    [...example.matchAll(/^([A-Z][A-Z0-9_]+)=(.*)$/gm)].map(([, name, value]) => [name, value])
  ) as Record<string, string>
  t.same(loadConfig(shown).config, loadConfig({}).config)
})

t.test('the compose file starts a server that accepts its configuration', async (t) => {
  const compose = parse(await read('docker-compose.yml')) as Compose
  const { coffer, key, postgres } = compose.services
  const variables = { POSTGRES_PASSWORD: 'sesame' }
  const environment = Object.fromEntries(
    Object.entries(coffer!.environment!).map(([name, value]) => [name, substitute(value, variables)])
  )
  const known = documented(await read('.env.example'))
  for (const name of Object.keys(environment)) t.ok(known.has(name), `${name} is a variable of Coffer`)

  const { config, secrets } = loadConfig(environment)
  t.equal(config.embedded, false)
  t.same(coffer!.ports, [`127.0.0.1:3000:${config.port}`])
  t.same(config.masterKeyFiles, [key!.command![2]], 'the key is made where the server reads it')
  t.ok(config.masterKeyFiles[0]!.startsWith(`${config.dataDir}/`))

  const database = new URL(secrets.databaseUrl!)
  t.equal(database.hostname, 'postgres')
  t.equal(database.username, postgres!.environment!.POSTGRES_USER)
  t.equal(database.password, substitute(postgres!.environment!.POSTGRES_PASSWORD!, variables))
  t.equal(database.pathname, `/${postgres!.environment!.POSTGRES_DB}`)
  t.throws(() => substitute(coffer!.environment!.DATABASE_URL!, {}), 'a password is asked for')

  t.same(coffer!.depends_on, {
    key: { condition: 'service_completed_successfully' },
    postgres: { condition: 'service_healthy' }
  })
  for (const service of Object.values(compose.services)) {
    for (const volume of service.volumes ?? []) t.ok(volume.split(':')[0]! in compose.volumes, volume)
  }
  t.same(coffer!.volumes, key!.volumes, 'server and key share the volume')
  t.match(coffer!.volumes![0], new RegExp(`:${config.dataDir}$`))
})

t.test('the image copies what exists, runs as nobody in particular, on glibc', async (t) => {
  const lines = (await read('Dockerfile')).split('\n')
  const copied = lines
    .filter((line) => line.startsWith('COPY ') && !line.includes('--from='))
    .flatMap((line) => line.split(/\s+/).slice(1, -1))
  t.ok(copied.includes('src') && copied.includes('migrations') && copied.includes('bin'))
  for (const file of copied) await t.resolves(access(path.join(CHECKOUT, file)), file)
  for (const line of lines.filter((line) => line.startsWith('FROM '))) t.match(line, /node:\d+-bookworm-slim/)
  t.match(lines.join('\n'), /^USER coffer$/m)
  t.match(lines.join('\n'), /^ENTRYPOINT \["node", "bin\/coffer\.mjs"\]$/m)
  const { scripts } = JSON.parse(await read('package.json'))
  t.equal(scripts.build, 'node bin/build.mjs dist')
})
