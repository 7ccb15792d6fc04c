import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import type { App, CollectionKind } from '../../src/apps.ts'
import { testWith } from '../installed.ts'
import { type GhOptions, gh, startForGh, terminal, WAYS, type Way } from './gh.ts'

// gh keeps secrets apart by app: Actions, Codespaces and Dependabot, and Actions' deployment environments.

async function prepare(t: Test, way: Way) {
  const client = await startForGh(t, way)
  const { server } = client
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const repositoryId = await server.createRepository(acme, 'web')
  const token = await server.createToken(mona, { scopes: ['repo', 'admin:org', 'codespace'] })
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', repositoryId)
    .executeTakeFirstOrThrow()
  client.requests()
  return {
    ...client,
    mona,
    acme,
    repositoryUid: uid,
    repo: ['-R', `${client.host}/acme/web`],
    ask: (args: readonly string[], options: GhOptions = {}) => client.run(args, { as: token, ...options }),
    succeed: (args: readonly string[]) => client.succeed(args, { as: token }),
    see: (args: readonly string[]) => client.show(args, { as: token }),
    stored: async (app: App, kind: CollectionKind, ownerUid: string, name: string) =>
      (await server.reveal(kind, ownerUid, name, app))?.toString()
  }
}

const APPS = ['actions', 'codespaces', 'dependabot'] as const
const TITLES = { actions: 'Actions', codespaces: 'Codespaces', dependabot: 'Dependabot' }

for (const [way, programs] of WAYS) {
  await testWith(
    t,
    [...programs, terminal],
    `${way}: gh keeps a repository's secrets apart by app`,
    async (t) => {
      const { ask, succeed, see, requests, stored, repo, repositoryUid, host } = await prepare(t, way)
      for (const app of APPS) {
        const secrets = `/api/v3/repos/acme/web/${app}/secrets`
        requests()
        t.equal(await succeed(['secret', 'set', 'token', '--app', app, ...repo, '-b', `for ${app}`]), '')
        t.same(requests(), [`GET ${secrets}/public-key`, `PUT ${secrets}/token`])
        t.equal(
          await see(['secret', 'set', 'ONLY_HERE', '-a', app, ...repo, '-b', app]),
          `✓ Set ${TITLES[app]} secret ONLY_HERE for acme/web\n`
        )
      }
      for (const app of APPS) {
        t.equal(await stored(app, 'repository', repositoryUid, 'TOKEN'), `for ${app}`)
        t.match(
          await succeed(['secret', 'list', '-a', app, ...repo]),
          /^ONLY_HERE\t\d{4}-\d\d-\d\d\nTOKEN\t\d{4}-\d\d-\d\d\n$/
        )
      }
      requests()
      await succeed(['secret', 'set', 'token', ...repo, '-b', 'again'])
      await succeed(['secret', 'list', ...repo])
      const actions = '/api/v3/repos/acme/web/actions/secrets'
      t.same(
        requests(),
        [`GET ${actions}/public-key`, `PUT ${actions}/token`, `GET ${actions}?per_page=100`],
        'Actions, when nothing is said'
      )
      t.equal(await stored('actions', 'repository', repositoryUid, 'TOKEN'), 'again')

      t.equal(await succeed(['secret', 'delete', 'token', '-a', 'dependabot', ...repo]), '')
      t.equal(await stored('dependabot', 'repository', repositoryUid, 'TOKEN'), undefined)
      t.equal(await stored('codespaces', 'repository', repositoryUid, 'TOKEN'), 'for codespaces')
      t.match(await ask(['secret', 'delete', 'token', '-a', 'dependabot', ...repo]), {
        code: 1,
        stderr:
          'failed to delete secret token: HTTP 404: Not Found ' +
          `(https://${host}/api/v3/repos/acme/web/dependabot/secrets/token)\n`
      })
    }
  )

  await testWith(
    t,
    [...programs, terminal],
    `${way}: gh keeps an organization's secrets apart by app`,
    async (t) => {
      const { acme, succeed, see, requests, stored } = await prepare(t, way)
      for (const app of APPS) {
        const secrets = `/api/v3/orgs/acme/${app}/secrets`
        const set = ['secret', 'set', 'token', '--org', 'acme', '--app', app, '-b']
        t.equal(await succeed([...set, 'one', '--visibility', 'all']), '')
        t.same(requests(), [`GET ${secrets}/public-key`, `PUT ${secrets}/token`])
        t.equal(await succeed([...set, `for ${app}`]), '')
        t.equal(await stored(app, 'organization', acme.uid, 'TOKEN'), `for ${app}`)
        t.match(
          await see(['secret', 'list', '--org', 'acme', '--app', app]),
          /^TOKEN {2}Updated \d{4}-\d\d-\d\d {2}Visible to private repositories\n$/
        )
        requests()
        t.equal(await succeed([...set, 'for web', '--repos', 'web']), '')
        t.same(requests(), [`GET ${secrets}/public-key`, 'POST /api/graphql', `PUT ${secrets}/token`])
        t.match(
          await see(['secret', 'list', '--org', 'acme', '-a', app]),
          /Visible to 1 selected repository\n$/
        )
        t.same(requests(), [`GET ${secrets}?per_page=100`, `GET ${secrets}/TOKEN/repositories`])
      }
      t.match(await succeed(['secret', 'list', '--org', 'acme']), /^TOKEN\t/)
      t.same(
        requests(),
        ['GET /api/v3/orgs/acme/actions/secrets?per_page=100'],
        'Actions, when nothing is said'
      )
      t.equal(await succeed(['secret', 'delete', 'token', '--org', 'acme', '-a', 'actions']), '')
      t.equal(await stored('actions', 'organization', acme.uid, 'TOKEN'), undefined)
      t.equal(await stored('dependabot', 'organization', acme.uid, 'TOKEN'), 'for web')
    }
  )

  await testWith(
    t,
    [...programs, terminal],
    `${way}: gh sets secrets of a deployment environment`,
    async (t) => {
      const { server, ask, succeed, see, requests, stored, repo, folder, host } = await prepare(t, way)
      const environment = ['-e', 'production', ...repo]
      const secrets = '/api/v3/repos/acme/web/environments/production/secrets'
      t.match(await ask(['secret', 'set', 'TOKEN', ...environment, '-b', 'x']), {
        code: 1,
        stderr: `failed to fetch public key: HTTP 404: Not Found (https://${host}${secrets}/public-key)\n`
      })
      const made = await succeed([
        'api',
        '-X',
        'PUT',
        'repos/acme/web/environments/production',
        '--jq',
        '.name'
      ])
      t.equal(made, 'production\n')
      requests()

      t.equal(
        await see(['secret', 'set', 'token', ...environment, '-b', 'one']),
        '✓ Set Actions secret token for acme/web\n'
      )
      t.same(requests(), [`GET ${secrets}/public-key`, `PUT ${secrets}/token`])
      const { uid } = await server.db
        .selectFrom('deployment_environments')
        .select('uid')
        .executeTakeFirstOrThrow()
      t.equal(await stored('actions', 'deployment-environment', uid, 'TOKEN'), 'one')

      const file = path.join(folder, 'env')
      const names = Array.from({ length: 20 }, (_, index) => `VAR_${index}`)
      await writeFile(file, names.map((name) => `${name}=${name.toLowerCase()}\n`).join(''))
      t.equal(await succeed(['secret', 'set', '-f', file, ...environment]), '')
      for (const name of names) {
        t.equal(await stored('actions', 'deployment-environment', uid, name), name.toLowerCase())
      }
      requests()
      const listed = (await succeed(['secret', 'list', ...environment])).trimEnd().split('\n')
      t.same(requests(), [`GET ${secrets}?per_page=100`])
      t.same(listed.map((line) => line.split('\t')[0]).sort(), [...names, 'TOKEN'].sort())
      t.equal(await succeed(['secret', 'list', ...repo]), '', 'the repository has none')

      requests()
      t.equal(await succeed(['secret', 'delete', 'token', ...environment]), '')
      t.same(requests(), [`DELETE ${secrets}/token`])
      t.equal(await stored('actions', 'deployment-environment', uid, 'TOKEN'), undefined)
    }
  )
}

await testWith(t, gh, 'gh shows what is wrong with a name, a limit or a role, for each app', async (t) => {
  const { server, acme, ask, repo } = await prepare(t, 'socket')
  const hubot = await server.createUser('hubot')
  const reader = await server.createToken(hubot, { scopes: ['repo'] })
  await server.setRole(acme, 'web', hubot, 'read')
  for (const app of APPS) {
    const set = (name: string) => ['secret', 'set', name, '-a', app, ...repo, '-b', 'MARKER']
    t.match((await ask(set('GITHUB_X'))).stderr, /HTTP 422: Secret names must not start with GITHUB_\./)
    t.match((await ask(set('1A'))).stderr, /HTTP 422: Secret names can only contain/)
    const refused = await ask(set('A'), { as: reader })
    t.equal(refused.code, 1)
    t.match(refused.stderr, /failed to set secret "A": HTTP 403: Must have admin rights to Repository\./)
    t.notMatch(refused.stderr, /MARKER/)
  }
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
})
