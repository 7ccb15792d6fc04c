import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import t, { type Test } from 'tap'
import { testWith } from '../installed.ts'
import { type GhOptions, gh, overTls, startForGh, terminal, WAYS, type Way } from './gh.ts'

// An organization's secrets through gh, with what gh asks the server for each command.

const SECRETS = '/api/v3/orgs/acme/codespaces/secrets'
const ACME = ['--org', 'acme', '--app', 'codespaces']

async function prepare(t: Test, way: Way) {
  const client = await startForGh(t, way)
  const { server } = client
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const webId = await server.createRepository(acme, 'web')
  const apiId = await server.createRepository(acme, 'api')
  const token = await server.createToken(mona, { scopes: ['repo', 'admin:org', 'codespace'] })
  const as = { as: token }
  client.requests()
  return {
    ...client,
    mona,
    acme,
    token,
    ids: { web: webId, api: apiId },
    ask: (args: readonly string[], options: GhOptions = {}) => client.run(args, { ...as, ...options }),
    succeed: (args: readonly string[], options: GhOptions = {}) =>
      client.succeed(args, { ...as, ...options }),
    see: (args: readonly string[]) => client.show(args, as),
    stored: async (name: string) => (await server.reveal('organization', acme.uid, name))?.toString(),
    /** names and visibilities, as the API shows them */
    listed: async () => {
      const response = await server.request('GET', '/orgs/acme/codespaces/secrets', { token })
      const { secrets } = response.json() as { secrets: { name: string; visibility: string }[] }
      return secrets.map(({ name, visibility }) => `${name} ${visibility}`)
    },
    selected: async (name: string) => {
      const path = `/orgs/acme/codespaces/secrets/${name}/repositories`
      const { repositories } = (await server.request('GET', path, { token })).json()
      return (repositories as { name: string }[]).map(({ name }) => name)
    }
  }
}

for (const [way, programs] of WAYS) {
  await testWith(
    t,
    [...programs, terminal],
    `${way}: gh sets an organization secret for whom it says`,
    async (t) => {
      const { succeed, see, requests, stored, listed, selected } = await prepare(t, way)
      const set = (name: string, ...rest: string[]) => ['secret', 'set', name, ...ACME, '--body', ...rest]
      const asked = [`GET ${SECRETS}/public-key`, `PUT ${SECRETS}/TOKEN`]

      t.equal(await succeed(set('TOKEN', 'one', '--visibility', 'all')), '')
      t.same(requests(), asked)
      t.same(await listed(), ['TOKEN all'])
      t.equal(await succeed(set('TOKEN', 'two', '--visibility', 'private')), '')
      t.same(await listed(), ['TOKEN private'])
      requests()

      t.equal(await succeed(set('TOKEN', 'three', '--repos', 'web,acme/api')), '')
      t.same(requests(), [asked[0], 'POST /api/graphql', asked[1]])
      t.same(await listed(), ['TOKEN selected'])
      t.same(await selected('TOKEN'), ['web', 'api'])
      t.equal(await succeed(set('TOKEN', 'four', '--repos', 'api', '--visibility', 'selected')), '')
      t.same(await selected('TOKEN'), ['api'])
      t.equal(await stored('TOKEN'), 'four')

      t.equal(await see(set('TOKEN', 'five')), '✓ Set Codespaces secret TOKEN for acme\n')
      t.same(await listed(), ['TOKEN private'], 'which gh takes when nothing is said')
      t.equal(await stored('TOKEN'), 'five')
    }
  )

  await testWith(
    t,
    [...programs, terminal],
    `${way}: gh lists and deletes organization secrets`,
    async (t) => {
      const { ask, succeed, see, requests, listed, host } = await prepare(t, way)
      for (const [name, ...flags] of [
        ['everyone', '--visibility', 'all'],
        ['private', '--visibility', 'private'],
        ['some', '--repos', 'web,api']
      ] as const) {
        await succeed(['secret', 'set', name, ...ACME, '-b', 'x', ...flags])
      }
      requests()
      const lines = (await succeed(['secret', 'list', ...ACME])).trimEnd().split('\n')
      t.same(requests(), [`GET ${SECRETS}?per_page=100`])
      t.same(
        lines.map((line) => line.split('\t').toSpliced(1, 1)),
        [
          ['EVERYONE', 'ALL'],
          ['PRIVATE', 'PRIVATE'],
          ['SOME', 'SELECTED']
        ]
      )
      for (const line of lines) t.match(line, /^\w+\t\d{4}-\d\d-\d\d\t\w+$/)

      const shown = await see(['secret', 'list', ...ACME])
      t.same(requests(), [`GET ${SECRETS}?per_page=100`, `GET ${SECRETS}/SOME/repositories`])
      t.same(
        shown.split('\n').map((line) => line.replace(/Updated \S+/, 'Updated').replaceAll(/ +/g, ' ')),
        [
          'EVERYONE Updated Visible to all repositories',
          'PRIVATE Updated Visible to private repositories',
          'SOME Updated Visible to 2 selected repositories',
          ''
        ]
      )

      t.equal(await succeed(['secret', 'delete', 'some', ...ACME]), '')
      t.same(requests(), [`DELETE ${SECRETS}/some`])
      t.equal(
        await see(['secret', 'delete', 'private', ...ACME]),
        '✓ Deleted Codespaces secret private from acme\n'
      )
      t.same(await listed(), ['EVERYONE all'])
      t.same(await ask(['secret', 'delete', 'SOME', ...ACME]), {
        code: 1,
        stdout: '',
        stderr: `failed to delete secret SOME: HTTP 404: Not Found (https://${host}${SECRETS}/SOME)\n`
      })
    }
  )
}

await testWith(t, overTls, 'gh seals without storing, and sets a file of a hundred', async (t) => {
  const { succeed, requests, stored, listed, folder } = await prepare(t, 'tls')
  const box = (await succeed(['secret', 'set', 'TOKEN', ...ACME, '-b', 'kept here', '--no-store'])).trim()
  t.same(requests(), [`GET ${SECRETS}/public-key`])
  t.same(await listed(), [], 'nothing was stored')
  const keyId = (await succeed(['api', 'orgs/acme/codespaces/secrets/public-key', '--jq', '.key_id'])).trim()
  const put = ['api', '-X', 'PUT', 'orgs/acme/codespaces/secrets/TOKEN', '-f', `encrypted_value=${box}`]
  t.equal(await succeed([...put, '-f', `key_id=${keyId}`, '-f', 'visibility=all']), '{}')
  t.equal(await stored('TOKEN'), 'kept here', 'and what it printed is a value')
  await succeed(['secret', 'delete', 'TOKEN', ...ACME])
  requests()

  const file = path.join(folder, 'env')
  const names = Array.from({ length: 100 }, (_, index) => `VAR_${String(index).padStart(2, '0')}`)
  await writeFile(file, names.map((name) => `${name}='value of ${name}'\n`).join(''))
  t.equal(await succeed(['secret', 'set', '-f', file, ...ACME, '--visibility', 'all']), '')
  const [first, ...others] = requests()
  t.equal(first, `GET ${SECRETS}/public-key`)
  t.same(others.sort(), names.map((name) => `PUT ${SECRETS}/${name}`).sort())
  t.same(await listed(), names.map((name) => `${name} all`).slice(0, 30), 'the first page of a hundred')
  for (const name of names) t.equal(await stored(name), `value of ${name}`)
  const table = await succeed(['secret', 'list', ...ACME])
  t.equal(table.trimEnd().split('\n').length, 100)
})

await testWith(t, gh, 'gh shows who may not, and why', async (t) => {
  const { server, mona, ask, host, requests } = await prepare(t, 'socket')
  const url = `https://${host}${SECRETS}`
  const set = ['secret', 'set', 'TOKEN', ...ACME, '-b', 'MARKER', '--visibility', 'all']

  const narrow = await server.createToken(mona, { scopes: ['repo', 'read:org', 'codespace'] })
  t.same(await ask(['secret', 'list', ...ACME], { as: narrow }), {
    code: 1,
    stdout: '',
    stderr:
      `failed to get secrets: HTTP 403: Must have admin rights to Repository. (${url}?per_page=100)\n` +
      'This API operation needs the "admin:org" scope. To request it, run:  gh auth refresh -h localhost -s admin:org\n'
  })

  const hubot = await server.createUser('hubot')
  const stranger = await server.createToken(hubot, { scopes: ['admin:org'] })
  t.match(await ask(set, { as: stranger }), {
    code: 1,
    stdout: '',
    stderr: /^failed to fetch public key: HTTP 404: Not Found /
  })
  const owner = await server.createToken(mona, { scopes: ['admin:org'] })
  await server.request('PUT', '/orgs/acme/memberships/hubot', { token: owner, body: { role: 'member' } })
  t.match(await ask(set, { as: stranger }), {
    code: 1,
    stdout: '',
    stderr: `failed to fetch public key: HTTP 403: Must be an owner of the organization. (${url}/public-key)\n`
  })

  requests()
  const unknown = await ask([...set.slice(0, -2), '--repos', 'web,nothing'])
  t.equal(unknown.code, 1)
  t.match(
    unknown.stderr,
    /^failed to look up IDs for repositories \[web nothing\]: .*Could not resolve to a Repository with the name 'acme\/nothing'\./
  )
  t.same(
    requests().filter((line) => line.startsWith('PUT')),
    []
  )
  const unnamed = await ask([...set.slice(0, -1), 'selected'])
  t.equal(unnamed.code, 1)
  t.match(unnamed.stderr, /^`--repos` list required with `--visibility=selected`\n/)
  t.same(requests(), [], 'gh itself refuses')
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
  t.notMatch(server.log.join('\n'), /MARKER/)
})
