import { execFileSync } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import t from 'tap'
import type { TestServer } from '../helper.ts'
import { testWith } from '../installed.ts'
import { gh, git, prepare } from './gh.ts'

// What gh asks GraphQL for: repositories by name, the login of a token, the repositories of a checkout.

/** A checkout with these remotes: name → repository. */
async function checkOut(folder: string, remotes: Record<string, string>): Promise<string> {
  const checkout = path.join(folder, 'checkout')
  await mkdir(checkout)
  const run = (...args: string[]) =>
    execFileSync(git.file, args, { cwd: checkout, env: { PATH: process.env.PATH ?? '', HOME: folder } })
  run('init', '--quiet', '.')
  for (const [name, repository] of Object.entries(remotes)) {
    run('remote', 'add', name, `https://localhost/${repository}.git`)
  }
  return checkout
}

async function selectedIn({ db }: TestServer, name: string): Promise<number[]> {
  const rows = await db
    .selectFrom('secret_repositories as s')
    .innerJoin('secrets', 'secrets.id', 's.secret_id')
    .select('s.repository_id')
    .where('secrets.name', '=', name)
    .orderBy('s.repository_id')
    .execute()
  return rows.map(({ repository_id }) => repository_id)
}

await testWith(t, gh, 'gh gives a user secret to repositories by their names', async (t) => {
  const { server, mona, repositoryId, ask, succeed, userValue } = await prepare(t)
  const acme = await server.createOrganization('acme', mona)
  const tools = await server.createRepository(acme, 'tools')
  const set = (repositories: string, value: string) =>
    ['secret', 'set', 'SHARED', '--user', '--body', value, '--repos', repositories] as const

  t.equal(await succeed(set('mona/web,acme/tools', 'first')), '')
  t.same(await selectedIn(server, 'SHARED'), [repositoryId, tools])
  t.equal(await userValue('SHARED'), 'first')
  t.equal(await succeed(set('ACME/Tools', 'second')), '', 'case does not matter')
  t.same(await selectedIn(server, 'SHARED'), [tools])

  const stranger = await server.createUser('stranger')
  await server.createRepository(stranger, 'own')
  for (const unknown of ['mona/none', 'stranger/own', 'o/r1']) {
    t.same(await ask(set(`acme/tools,${unknown}`, 'third')), {
      code: 1,
      stdout: '',
      stderr:
        `failed to look up IDs for repositories [acme/tools ${unknown}]: failed to look up repositories: ` +
        `GraphQL: Could not resolve to a Repository with the name '${unknown}'. (repo_001)\n`
    })
  }
  t.same(await selectedIn(server, 'SHARED'), [tools])
  t.equal(await userValue('SHARED'), 'second')
})

await testWith(t, gh, 'gh gives a secret to a hundred repositories at once', async (t) => {
  const { server, mona, succeed } = await prepare(t)
  const names = Array.from({ length: 100 }, (_, index) => `repo-${index}`)
  const ids: number[] = []
  for (const name of names) ids.push(await server.createRepository(mona, name))
  const repositories = names.map((name) => `mona/${name}`).join(',')
  await succeed(['secret', 'set', 'WIDE', '--user', '--body', 'x', '--repos', repositories])
  t.same(await selectedIn(server, 'WIDE'), ids)
})

await testWith(
  t,
  [gh, git],
  'gh chooses the repository of a checkout, and works there without -R',
  async (t) => {
    const { server, mona, folder, ask, succeed, repoValue } = await prepare(t)
    await server.createRepository(mona, 'fork')
    const cwd = await checkOut(folder, { origin: 'mona/web', fork: 'mona/fork', gone: 'mona/gone' })
    t.equal(await succeed(['repo', 'set-default', 'mona/web'], { cwd }), '')
    t.match(
      await readFile(path.join(cwd, '.git', 'config'), 'utf8'),
      /\[remote "origin"\][^[]*gh-resolved = base/
    )
    t.match(await ask(['repo', 'set-default', 'mona/gone'], { cwd }), {
      code: 1,
      stderr: /mona\/gone does not correspond to any git remotes/
    })
    t.equal(await succeed(['secret', 'set', 'HERE', '--app', 'codespaces', '--body', 'value'], { cwd }), '')
    t.equal(await repoValue('HERE'), 'value')
    t.match(await succeed(['secret', 'list', '--app', 'codespaces'], { cwd }), /^HERE\t/)
  }
)

await testWith(t, gh, 'gh shows and lists repositories', async (t) => {
  const { server, mona, repositoryId, ask, succeed } = await prepare(t)
  await server.createRepository(mona, 'open', { private: false })
  const acme = await server.createOrganization('acme', mona)
  await server.createRepository(acme, 'tools')

  t.match(await succeed(['repo', 'view', 'mona/web']), /^name:\tmona\/web\n/)
  const fields = 'name,owner,isPrivate,viewerPermission,defaultBranchRef,parent,createdAt'
  const shown = JSON.parse(await succeed(['repo', 'view', 'mona/web', '--json', fields]))
  t.match(shown, {
    name: 'web',
    owner: { login: 'mona' },
    isPrivate: true,
    viewerPermission: 'ADMIN',
    defaultBranchRef: { name: 'main' },
    parent: null,
    createdAt: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
  })
  t.same(await ask(['repo', 'view', 'mona/none']), {
    code: 1,
    stdout: '',
    stderr: "GraphQL: Could not resolve to a Repository with the name 'mona/none'. (repository)\n"
  })

  const names = async (...args: string[]) => {
    const lines = (await succeed(['repo', 'list', ...args])).trimEnd().split('\n')
    return lines.map((line) => line.split('\t')[0]).sort()
  }
  t.same(await names(), ['mona/open', 'mona/web'])
  t.same(await names('acme'), ['acme/tools'])
  t.same(await names('mona', '--visibility', 'public'), ['mona/open'])
  t.same(await names('mona', '--visibility', 'private'), ['mona/web'])
  t.equal((await names('mona', '--limit', '1')).length, 1)
  t.same(await names('nobody'), [''])
  t.match(await succeed(['repo', 'list', 'mona', '--json', 'id,isPrivate']), /"isPrivate":true/)

  t.equal(await succeed(['repo', 'rename', 'site', '-R', 'localhost/mona/web', '--yes']), '')
  await succeed(['secret', 'set', 'A', '--user', '--body', 'x', '--repos', 'mona/web'])
  t.same(await selectedIn(server, 'A'), [repositoryId], 'by the name that it had')
})

await testWith(t, gh, 'gh api graphql queries with variables, follows pages, and shows errors', async (t) => {
  const { server, mona, repositoryId, ask, succeed } = await prepare(t)
  for (const name of ['a', 'b', 'c']) await server.createRepository(mona, name)
  const query = 'query($owner:String!,$name:String!){repository(owner:$owner,name:$name){databaseId}}'
  const one = ['api', 'graphql', '-f', `query=${query}`, '-f', 'owner=mona']
  t.same(JSON.parse(await succeed([...one, '-f', 'name=web'])), {
    data: { repository: { databaseId: repositoryId } }
  })
  const pages =
    'query($endCursor:String){viewer{repositories(first:3,after:$endCursor,orderBy:{field:NAME,direction:ASC})' +
    '{nodes{name}pageInfo{hasNextPage endCursor}}}}'
  const names = ['--jq', '.data.viewer.repositories.nodes[].name']
  t.equal(await succeed(['api', 'graphql', '--paginate', '-f', `query=${pages}`, ...names]), 'a\nb\nc\nweb\n')

  const unknown = await ask([...one, '-f', 'name=none'])
  t.equal(unknown.code, 1)
  t.equal(unknown.stderr, "gh: Could not resolve to a Repository with the name 'mona/none'.\n")
  const wrong = await ask(['api', 'graphql', '-f', 'query={viewer{issues}}'])
  t.equal(wrong.stderr, "gh: Field 'issues' doesn't exist on type 'User'\n")
  t.match(await ask(['repo', 'create', 'mona/new', '--private']), {
    code: 1,
    stderr: /^GraphQL: Schema is not configured for mutations \(mutation RepositoryCreate\)/
  })
})
