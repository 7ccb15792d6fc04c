import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import t, { type Test } from 'tap'
import { startTestServer } from '../helper.ts'
import { type Program, testWith } from '../installed.ts'
import { runScript } from './script.ts'

// octokit.rb, with RbNaCl for the sealing. This release has methods for Actions; paths do for the other apps.

const ruby: Program = {
  file: '/usr/bin/ruby',
  probe: ['-e', 'require "octokit"; require "rbnacl"'],
  package: 'ruby-octokit, ruby-rbnacl'
}

const PRELUDE = `
require "base64"
require "json"
require "octokit"
require "rbnacl"
given = JSON.parse(ENV["INPUT"])
client = Octokit::Client.new(api_endpoint: ENV["API"], access_token: ENV["TOKEN"])
def seal(key, value)
  box = RbNaCl::Boxes::Sealed.from_public_key(RbNaCl::PublicKey.new(Base64.decode64(key.key)))
  { encrypted_value: Base64.strict_encode64(box.encrypt(value)), key_id: key.key_id }
end
`

async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const webId = await server.createRepository(acme, 'web')
  const apiId = await server.createRepository(acme, 'api')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const base = await server.listen()
  const requests: { line: string; headers: IncomingHttpHeaders }[] = []
  server.app.server.prependListener('request', ({ method, url, headers }: IncomingMessage) => {
    requests.push({ line: `${method} ${url}`, headers: { ...headers } })
  })
  const { uid } = await server.db
    .selectFrom('repositories')
    .select('uid')
    .where('id', '=', webId)
    .executeTakeFirstOrThrow()
  return {
    server,
    mona,
    acme,
    webId,
    apiId,
    token,
    webUid: uid,
    requests: () => requests.splice(0),
    run: <T>(script: string, input: unknown = {}, as = token, api = `${base}/api/v3`) =>
      runScript<T>(ruby, ['-e', PRELUDE + script], { api, token: as, input })
  }
}

await testWith(t, ruby, "octokit.rb's methods for Actions secrets, by name and by number", async (t) => {
  const { server, webId, webUid, run, requests } = await prepare(t)
  const result = await run(
    `
result = { login: client.user.login, scopes: client.scopes, organization: client.organization("acme").login,
           repository: client.repository("acme/web").id, repositories: client.org_repos("acme").map(&:name),
           there: client.repository?("acme/nothing") }
["acme/web", given["webId"]].each_with_index do |repo, index|
  key = client.get_public_key(repo)
  client.create_or_update_secret(repo, "TOKEN", seal(key, "value #{index}"))
  result["status#{index}"] = client.last_response.status
  client.create_or_update_secret(repo, "name_#{index}", seal(key, "x"))
  result["listed#{index}"] = client.list_secrets(repo).secrets.map(&:name)
  result["name#{index}"] = client.get_secret(repo, "token").name
  result["updated#{index}"] = client.get_secret(repo, "token").updated_at.class.to_s
end
result[:deleted] = client.delete_secret("acme/web", "NAME_0")
result[:missing] = client.delete_secret(given["webId"], "NAME_0")
puts JSON.generate(result)
`,
    { webId }
  )
  t.same(result, {
    login: 'mona',
    scopes: ['admin:org', 'codespace', 'repo'],
    organization: 'acme',
    repository: webId,
    repositories: ['web', 'api'],
    there: false,
    status0: 201,
    listed0: ['NAME_0', 'TOKEN'],
    name0: 'TOKEN',
    updated0: 'Time',
    status1: 204,
    listed1: ['NAME_0', 'NAME_1', 'TOKEN'],
    name1: 'TOKEN',
    updated1: 'Time',
    deleted: true,
    missing: false
  })
  t.equal((await server.reveal('repository', webUid, 'TOKEN', 'actions'))?.toString(), 'value 1')
  const sent = requests()
  t.ok(sent.some(({ line }) => line === `DELETE /api/v3/repositories/${webId}/actions/secrets/NAME_0`))
  for (const { line, headers } of sent) {
    t.match(headers, {
      accept: 'application/vnd.github.v3+json',
      'content-type': 'application/json',
      'user-agent': /^Octokit Ruby Gem/
    })
    if (line.startsWith('DELETE')) t.equal(headers['content-length'], '2', 'a body, {}')
  }
})

await testWith(
  t,
  ruby,
  'every operation of Codespaces by its path, with and without a leading slash',
  async (t) => {
    const { server, mona, acme, webId, apiId, webUid, run, requests } = await prepare(t)
    const owners = [
      ['repository', webUid, 'repos/acme/web/codespaces/secrets'],
      ['user', mona.uid, 'user/codespaces/secrets'],
      ['organization', acme.uid, 'orgs/acme/codespaces/secrets']
    ] as const
    const selection = { selected_repository_ids: [webId] }
    const rest = { repository: {}, user: selection, organization: { ...selection, visibility: 'selected' } }
    for (const slash of ['', '/']) {
      requests()
      const result = await run<Record<string, unknown[]>>(
        `
result = {}
given["owners"].each do |kind, _, path|
  secrets = given["slash"] + path
  rest = given["rest"][kind]
  key = client.get("#{secrets}/public-key")
  put = lambda do |value|
    client.put("#{secrets}/TOKEN", seal(key, value).merge(rest))
    client.last_response.status
  end
  steps = [put.call("one"), put.call("of the #{kind}#{given["slash"]}")]
  steps << client.get(secrets).secrets.map(&:name) << client.get("#{secrets}/token").name
  unless rest.empty?
    list = lambda { client.get("#{secrets}/TOKEN/repositories").repositories.map(&:full_name) }
    steps << list.call
    client.put("#{secrets}/TOKEN/repositories", selected_repository_ids: [given["apiId"]])
    client.put("#{secrets}/TOKEN/repositories/#{given["webId"]}")
    steps << list.call
    client.delete("#{secrets}/TOKEN/repositories/#{given["apiId"]}")
    steps << client.last_response.status << list.call
  end
  result[kind] = steps
end
puts JSON.generate(result)
`,
        { owners, rest, slash, webId, apiId }
      )
      const [created, ...others] = result.repository!
      t.equal(created, 201)
      t.same(others, [204, ['TOKEN'], 'TOKEN'])
      for (const kind of ['user', 'organization']) {
        t.same(
          result[kind],
          [201, 204, ['TOKEN'], 'TOKEN', ['acme/web'], ['acme/web', 'acme/api'], 204, ['acme/web']],
          kind
        )
      }
      for (const [kind, ownerUid] of owners) {
        t.equal((await server.reveal(kind, ownerUid, 'TOKEN'))?.toString(), `of the ${kind}${slash}`)
      }
      await run(
        `
given["owners"].each { |_, _, path| client.delete(given["slash"] + path + "/TOKEN") }
puts "null"
`,
        { owners, slash }
      )
      t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
      const sent = requests().map(({ line }) => line.split(' ')[1]!)
      t.ok(sent.length > 20)
      const prefixed = sent.filter((url) => url.startsWith('/api/v3/'))
      t.equal(prefixed.length, slash === '' ? sent.length : 0, 'a leading slash drops the prefix')
    }
  }
)

await testWith(t, ruby, 'the other apps and a deployment environment by their paths', async (t) => {
  const { server, acme, webId, webUid, run } = await prepare(t)
  await run(
    `
%w[actions dependabot agents].each do |app|
  ["repositories/#{given["webId"]}/#{app}/secrets", "orgs/acme/#{app}/secrets"].each do |path|
    body = seal(client.get("#{path}/public-key"), app)
    client.put("#{path}/TOKEN", path.start_with?("orgs") ? body.merge(visibility: "all") : body)
  end
end
client.put("repos/acme/web/environments/production")
path = "repos/acme/web/environments/production/secrets"
client.put("#{path}/TOKEN", seal(client.get("#{path}/public-key"), "environment"))
puts "null"
`,
    { webId }
  )
  for (const app of ['actions', 'dependabot', 'agents'] as const) {
    t.equal((await server.reveal('repository', webUid, 'TOKEN', app))?.toString(), app)
    t.equal((await server.reveal('organization', acme.uid, 'TOKEN', app))?.toString(), app)
  }
  const { uid } = await server.db
    .selectFrom('deployment_environments')
    .select('uid')
    .executeTakeFirstOrThrow()
  t.equal((await server.reveal('deployment-environment', uid, 'TOKEN', 'actions'))?.toString(), 'environment')
})

await testWith(t, ruby, 'auto-pagination follows the links', async (t) => {
  const { server, acme, token, run, requests } = await prepare(t)
  const path = '/orgs/acme/codespaces/secrets'
  const body = { ...(await server.seal(path, token, 'x')), visibility: 'all' }
  for (const name of ['A', 'B', 'C', 'D', 'E'])
    await server.request('PUT', `${path}/${name}`, { token, body })
  requests()
  const names = await run(`
client.auto_paginate = true
client.per_page = 2
data = client.paginate("orgs/acme/codespaces/secrets") { |all, response| all.secrets.concat(response.data.secrets) }
puts JSON.generate(data.secrets.map(&:name))
`)
  t.same(names, ['A', 'B', 'C', 'D', 'E'])
  t.same(
    requests().map(({ line }) => line),
    [
      'GET /api/v3/orgs/acme/codespaces/secrets?per_page=2',
      `GET /api/v3/organizations/${acme.id}/codespaces/secrets?page=2&per_page=2`,
      `GET /api/v3/organizations/${acme.id}/codespaces/secrets?page=3&per_page=2`
    ]
  )
})

await testWith(t, ruby, 'octokit.rb raises the error that belongs to each refusal', async (t) => {
  const { server, mona, webId, token, run } = await prepare(t)
  const path = '/orgs/acme/codespaces/secrets'
  const body = { ...(await server.seal(path, token, 'x')), visibility: 'all' }
  await server.request('PUT', `${path}/TOKEN`, { token, body })
  const script = `
def refused
  yield
rescue Octokit::Error => error
  [error.class.name, error.message]
end
`
  const failures = await run<[string, string][]>(
    `${script}
puts JSON.generate([
  refused { client.get("repos/acme/nothing/codespaces/secrets") },
  refused { client.put("orgs/acme/codespaces/secrets/TOKEN/repositories/#{given["webId"]}") },
  refused { client.put("user/codespaces/secrets/A", encrypted_value: "c2VjcmV0", key_id: "1") },
  refused { client.put("user/codespaces/secrets/A") }
])
`,
    { webId }
  )
  t.same(
    failures.map(([name]) => name),
    ['Octokit::NotFound', 'Octokit::Conflict', 'Octokit::UnprocessableEntity', 'Octokit::UnprocessableEntity']
  )
  t.match(failures[1]![1], /visibility/)
  t.match(failures[2]![1], /improperly encrypted secret[\s\S]*field: encrypted_value/)
  t.notMatch(JSON.stringify(failures), /c2VjcmV0/, 'no message repeats the value')

  const attempt = `${script}\nputs JSON.generate(refused { client.get("user/codespaces/secrets") })`
  t.match(await run<[string, string]>(attempt, {}, 'wrong'), [
    'Octokit::Unauthorized',
    /401 - Bad credentials/
  ])
  const narrow = await server.createToken(mona, { scopes: ['repo'] })
  t.match(await run<[string, string]>(attempt, {}, narrow), [
    'Octokit::Forbidden',
    /403 - Must have admin rights to Repository\./
  ])
})
