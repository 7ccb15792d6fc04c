import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import t, { type Test } from 'tap'
import { startTestServer } from '../helper.ts'
import { type Program, testWith } from '../installed.ts'
import { runScript } from './script.ts'

// PyGithub, with PyNaCl for the sealing. It has methods for Actions; for the other apps people use its requester.

const python: Program = {
  file: '/usr/bin/python3',
  probe: ['-c', 'import github, nacl.public'],
  package: 'python3-github'
}

const PRELUDE = `
import json, os
import github
from github.PublicKey import encrypt
given = json.loads(os.environ["INPUT"])
g = github.Github(os.environ["TOKEN"], base_url=os.environ["API"])
requester = g.get_repo("acme/web", lazy=True)._requester

def ask(method, path, **body):
    headers, data = requester.requestJsonAndCheck(method, path, input=body or None)
    return {"status": headers.get("status"), "data": data}

def seal(path, value):
    key = ask("GET", path + "/public-key")["data"]
    return {"encrypted_value": encrypt(key["key"], value), "key_id": key["key_id"]}
`

async function prepare(t: Test) {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  const acme = await server.createOrganization('acme', mona)
  const webId = await server.createRepository(acme, 'web')
  const apiId = await server.createRepository(acme, 'api')
  const token = await server.createToken(mona, { scopes: ['repo', 'codespace', 'admin:org'] })
  const api = `${await server.listen()}/api/v3`
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
    api,
    webUid: uid,
    requests: () => requests.splice(0),
    run: <T>(script: string, input: unknown = {}, as = token) =>
      runScript<T>(python, ['-c', PRELUDE + script], { api, token: as, input })
  }
}

await testWith(
  t,
  python,
  "PyGithub's methods for Actions secrets, and what they need around them",
  async (t) => {
    const { server, mona, acme, webId, api, webUid, run, requests } = await prepare(t)
    const result = await run(
      `
me = g.get_user()
organization = g.get_organization("acme")
repo = g.get_repo("ACME/web")
by_id = g.get_repo(given["webId"])
result = {
    "login": me.login, "id": me.id, "type": me.type,
    "named": g.get_user("mona").id,
    "organization": [organization.login, organization.id],
    "repositories": [r.name for r in organization.get_repos()],
    "mine": sorted(r.full_name for r in me.get_repos()),
    "repo": [repo.full_name, repo.id, repo.private, repo.url, repo.owner.login, repo.permissions.admin],
    "by_id": by_id.full_name,
    "key": repo.get_public_key().key_id,
    "scopes": g.oauth_scopes,
    "created": repo.create_secret("TOKEN", "one ✓"),
    "updated": repo.create_secret("TOKEN", "two\\nlines ✓"),
}
repo.create_secret("GONE", "x")
result["deleted"] = repo.delete_secret("GONE")
result["missing"] = repo.delete_secret("GONE")
print(json.dumps(result))
`,
      { webId }
    )
    const { key_id } = (
      await server.request('GET', '/user/codespaces/secrets/public-key', server.admin)
    ).json()
    t.same(result, {
      login: 'mona',
      id: mona.id,
      type: 'User',
      named: mona.id,
      organization: ['acme', acme.id],
      repositories: ['web', 'api'],
      mine: ['acme/api', 'acme/web'],
      repo: ['acme/web', webId, true, `${api}/repos/acme/web`, 'acme', true],
      by_id: 'acme/web',
      key: key_id,
      scopes: ['admin:org', 'codespace', 'repo'],
      created: true,
      updated: false,
      deleted: true,
      missing: false
    })
    t.equal((await server.reveal('repository', webUid, 'TOKEN', 'actions'))?.toString(), 'two\nlines ✓')
    t.equal(await server.reveal('repository', webUid, 'GONE', 'actions'), undefined)
    for (const { headers } of requests()) {
      t.match(headers, { 'user-agent': 'PyGithub/Python', authorization: /^token coffer_pat_/ })
    }
  }
)

await testWith(t, python, "every operation of Codespaces through PyGithub's requester", async (t) => {
  const { server, mona, acme, webId, apiId, webUid, run, requests } = await prepare(t)
  const result = await run<Record<string, { status: string; data: unknown }[]>>(
    `
one, two = given["webId"], given["apiId"]
result = {}
for kind, path in [("repository", "/repos/acme/web/codespaces/secrets"),
                   ("user", "/user/codespaces/secrets"),
                   ("organization", "/orgs/acme/codespaces/secrets")]:
    rest = {"repository": {}, "user": {"selected_repository_ids": [one]},
            "organization": {"visibility": "selected", "selected_repository_ids": [one]}}[kind]
    secret = path + "/TOKEN"
    steps = [ask("PUT", secret, **seal(path, "first"), **rest),
             ask("PUT", secret, **seal(path, "of the " + kind), **rest),
             ask("GET", path), ask("GET", secret)]
    if rest:
        steps += [ask("GET", secret + "/repositories"),
                  ask("PUT", secret + "/repositories", selected_repository_ids=[two]),
                  ask("PUT", "%s/repositories/%d" % (secret, one)),
                  ask("DELETE", "%s/repositories/%d" % (secret, two)),
                  ask("GET", secret + "/repositories")]
    result[kind] = steps
print(json.dumps(result))
`,
    { webId, apiId }
  )
  for (const [kind, ownerUid] of [
    ['repository', webUid],
    ['user', mona.uid],
    ['organization', acme.uid]
  ] as const) {
    const [created, updated, listed, shown, ...selection] = result[kind]!
    t.same(created?.data, {}, `${kind}: created`)
    t.equal(updated?.data, null, `${kind}: updated`)
    t.match(listed?.data, { total_count: 1, secrets: [{ name: 'TOKEN' }] })
    t.match(shown?.data, { name: 'TOKEN', ...(kind !== 'repository' && { visibility: 'selected' }) })
    t.equal((await server.reveal(kind, ownerUid, 'TOKEN'))?.toString(), `of the ${kind}`)
    if (kind === 'repository') continue
    const [before, set, added, removed, after] = selection
    t.match(before?.data, { total_count: 1, repositories: [{ id: webId }] })
    for (const step of [set, added, removed]) t.equal(step?.data, null)
    t.match(after?.data, { total_count: 1, repositories: [{ id: webId }] })
  }

  requests()
  await run(`
for path in ["/repos/acme/web/codespaces/secrets", "/user/codespaces/secrets", "/orgs/acme/codespaces/secrets"]:
    ask("DELETE", path + "/TOKEN")
print("null")
`)
  t.equal(requests().length, 3)
  t.same(await server.db.selectFrom('secrets').select('name').execute(), [])
})

await testWith(t, python, "the other apps through PyGithub's requester", async (t) => {
  const { server, acme, webId, webUid, run } = await prepare(t)
  await run(
    `
for app in ["actions", "dependabot", "agents"]:
    path = "/repos/acme/web/%s/secrets" % app
    ask("PUT", path + "/token", **seal(path, app))
    path = "/orgs/acme/%s/secrets" % app
    ask("PUT", path + "/token", visibility="selected", selected_repository_ids=[given["webId"]], **seal(path, app))
ask("PUT", "/repos/acme/web/environments/review%2Fone", wait_timer=0)
path = "/repositories/%d/environments/review%%2Fone/secrets" % given["webId"]
ask("PUT", path + "/token", **seal(path, "environment"))
print("null")
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

await testWith(t, python, "PyGithub's paginated lists follow the links", async (t) => {
  const { server, acme, run, token, requests } = await prepare(t)
  const ids: number[] = []
  for (let index = 0; index < 35; index++) ids.push(await server.createRepository(acme, `repo-${index}`))
  const path = '/orgs/acme/codespaces/secrets'
  const body = {
    ...(await server.seal(path, token, 'x')),
    visibility: 'selected',
    selected_repository_ids: ids
  }
  await server.request('PUT', `${path}/TOKEN`, { token, body })
  requests()
  const found = await run<{ total: number; ids: number[]; last: number[] }>(`
def repositories():
    return github.PaginatedList.PaginatedList(
        github.Repository.Repository, requester, "/orgs/acme/codespaces/secrets/TOKEN/repositories", {},
        list_item="repositories")
found = [r.id for r in repositories()]
print(json.dumps({"ids": found, "last": [r.id for r in repositories().reversed][:3], "total": repositories().totalCount}))
`)
  t.same(found, { ids, last: ids.slice(-3).reverse(), total: 35 })
  t.match(
    requests()[1]?.line,
    /^GET \/api\/v3\/organizations\/\d+\/codespaces\/secrets\/TOKEN\/repositories\?page=2$/
  )
})

await testWith(t, python, 'PyGithub raises the exception that belongs to each refusal', async (t) => {
  const { server, mona, webId, run, token } = await prepare(t)
  const script = `
def refused(path, method="GET", **body):
    try:
        ask(method, path, **body)
    except github.GithubException as error:
        return [type(error).__name__, error.status, error.data["message"]]
`
  const bad = await run(`${script}\nprint(json.dumps(refused("/user/codespaces/secrets")))`, {}, 'wrong')
  t.same(bad, ['BadCredentialsException', 401, 'Bad credentials'])
  const narrow = await server.createToken(mona, { scopes: ['repo'] })
  const denied = await run(`${script}\nprint(json.dumps(refused("/user/codespaces/secrets")))`, {}, narrow)
  t.same(denied, ['GithubException', 403, 'Must have admin rights to Repository.'])

  const path = '/orgs/acme/codespaces/secrets'
  const body = { ...(await server.seal(path, token, 'x')), visibility: 'all' }
  await server.request('PUT', `${path}/TOKEN`, { token, body })
  const failures = await run<[string, number, string][]>(
    `${script}
print(json.dumps([
    refused("/repos/acme/nothing/codespaces/secrets"),
    refused("/user/codespaces/secrets/NOTHING"),
    refused("/orgs/acme/codespaces/secrets/TOKEN/repositories/%d" % given["webId"], "PUT"),
    refused("/user/codespaces/secrets/A", "PUT", encrypted_value="c2VjcmV0", key_id="1"),
    refused("/user/codespaces/secrets/1A", "PUT", encrypted_value="c2VjcmV0", key_id="1"),
    refused("/user/codespaces/secrets/A", "PUT", key_id=1),
]))`,
    { webId }
  )
  t.same(
    failures.map(([name, status]) => `${name} ${status}`),
    [
      'UnknownObjectException 404',
      'UnknownObjectException 404',
      'GithubException 409',
      'GithubException 422',
      'GithubException 422',
      'GithubException 422'
    ]
  )
  t.match(failures[3]![2], /improperly encrypted secret/)
  t.notMatch(JSON.stringify(failures), /c2VjcmV0/, 'no answer repeats the value')
})
