import { sql } from 'kysely'
import t from 'tap'
import { ErrorResponse } from './go-github.ts'
import * as terraform from './terraform.ts'
import { PATHS, startForTerraform } from './terraform-provider.ts'

// Terraform's resources that stand beside those of Codespaces: selections, Actions, Dependabot, environments.

t.test(
  'an organization secret that becomes visible to others is replaced, or updated in place',
  async (t) => {
    const { client, sent, stored, age, ids } = await startForTerraform(t)
    const path = PATHS.organization
    const resource: terraform.Resource = { path, kind: 'organization', onDrift: 'recreate' }
    const config: terraform.Config = { secretName: 'A', value: 'x', visibility: 'private' }
    const state = await terraform.create(client, resource, config)
    t.equal(state.visibility, 'private')
    t.same(sent().slice(1), [`PUT /${path}/A {"key_id":…,"visibility":"private"}`, `GET /${path}/A`])
    await terraform.destroy(client, resource, state)
    const replaced = await terraform.create(client, resource, { ...config, visibility: 'all' })
    t.equal(replaced.visibility, 'all')

    for (const app of ['actions', 'dependabot'] as const) {
      const other: terraform.Resource = {
        path: `orgs/acme/${app}/secrets`,
        kind: 'organization',
        onDrift: 'update'
      }
      const first = await age(other, await terraform.create(client, other, config))
      const second = await terraform.update(
        client,
        other,
        { ...config, visibility: 'selected', repositoryIds: [ids.web] },
        { ...first, repositoryIds: [ids.web] }
      )
      t.match(second, { visibility: 'selected', repositoryIds: [ids.web], createdAt: first.createdAt })
      t.not(second.updatedAt, first.updatedAt)
      t.equal(terraform.isDrifted(second), false)
      t.equal(await stored('organization', 'A', app), 'x')
    }
  }
)

for (const [app, kind] of [
  ['actions', 'repository'],
  ['actions', 'organization'],
  ['dependabot', 'repository'],
  ['dependabot', 'organization']
] as const) {
  t.test(`github_${app} secret of a ${kind}: drift is updated in place`, async (t) => {
    const { client, sent, set, stored, age } = await startForTerraform(t)
    const path = kind === 'repository' ? `repos/acme/web/${app}/secrets` : `orgs/acme/${app}/secrets`
    const visibility = kind === 'organization' ? ({ visibility: 'all' } as const) : {}
    const resource: terraform.Resource = { path, kind, onDrift: 'update' }
    const config: terraform.Config = { secretName: 'token', value: 'mine', ...visibility }
    const state = await age(resource, await terraform.create(client, resource, config))
    t.equal(terraform.isDrifted(state), false)
    t.same(await terraform.read(client, resource, state), state)
    t.same(sent(), [`GET /${path}/token`])

    await set(path, 'TOKEN', 'of somebody else', visibility)
    const seen = await terraform.read(client, resource, state)
    t.equal(terraform.isDrifted(seen!), true)
    const healed = await terraform.update(client, resource, config, seen!)
    t.equal(terraform.isDrifted(healed), false)
    t.equal(healed.createdAt, state.createdAt)
    t.equal(await stored(kind, 'TOKEN', app), 'mine')

    await client.do('DELETE', `${path}/token`)
    t.equal(await terraform.read(client, resource, healed), undefined)
  })
}

for (const app of ['codespaces', 'actions', 'dependabot'] as const) {
  t.test(`github_${app}_organization_secret_repositories, beside the secret`, async (t) => {
    const { client, sent, stored, age, ids } = await startForTerraform(t)
    const path = `orgs/acme/${app}/secrets`
    const resource: terraform.Resource = {
      path,
      kind: 'organization',
      onDrift: app === 'codespaces' ? 'recreate' : 'update'
    }
    const config: terraform.Config = { secretName: 'TOKEN', value: 'one', visibility: 'selected' }
    const secret = `${path}/TOKEN`
    const state = await age(resource, await terraform.create(client, resource, config))

    const { apply, read, destroy } = terraform.secretRepositories
    t.same(await apply(client, secret, [ids.web, ids.api]), [ids.web, ids.api])
    t.same(sent(), [
      `PUT /${secret}/repositories {"selected_repository_ids":[${ids.web},${ids.api}]}`,
      `GET /${secret}/repositories?per_page=100`
    ])
    const refreshed = await terraform.read(client, resource, state)
    t.equal(refreshed?.updatedAt, state.updatedAt, 'the secret has not drifted by it')
    t.equal(terraform.isDrifted(refreshed!), false)

    await terraform.update(client, resource, { ...config, value: 'two' }, state)
    t.equal(await stored('organization', 'TOKEN', app), 'two')
    t.same(await read(client, secret), [ids.web, ids.api], 'a new value leaves the other resource alone')

    await destroy(client, secret)
    t.same(await read(client, secret), [])

    await client.do('DELETE', secret)
    await terraform.create(client, resource, { ...config, visibility: 'all' })
    const conflict = await apply(client, secret, [ids.web]).catch((error) => error)
    t.ok(conflict instanceof ErrorResponse)
    t.equal(conflict.status, 409)
    t.match(conflict.message, /visibility.*all.*selected/, 'with a cause, and with what to do')
  })
}

t.test('github_repository_environment and github_actions_environment_secret', async (t) => {
  const { server, client, sent, set, ids } = await startForTerraform(t)
  const name = encodeURIComponent('review/one two')
  const environment = `repos/acme/web/environments/${name}`
  const settings = { wait_timer: 0, reviewers: null, can_admins_bypass: true, deployment_branch_policy: null }
  type Environment = { name: string; can_admins_bypass: boolean; protection_rules: unknown[] }
  await client.do('PUT', environment, settings)
  const { value: repository } = await client.do<{ id: number }>('GET', 'repos/acme/web')
  const { value } = await client.do<Environment>('GET', environment)
  t.match(value, { name: 'review/one two', can_admins_bypass: true, protection_rules: [] })
  sent()

  const path = `repositories/${repository.id}/environments/${name}/secrets`
  t.equal(repository.id, ids.web)
  const resource: terraform.Resource = { path, kind: 'repository', onDrift: 'update' }
  const config: terraform.Config = { secretName: 'token', value: 'one' }
  const created = await terraform.create(client, resource, config)
  t.same(sent(), [`GET /${path}/public-key`, `PUT /${path}/token {"key_id":…}`, `GET /${path}/token`])
  await sql`update secrets set updated_at = updated_at - interval '1 hour'`.execute(server.db)
  const state = await terraform.read(client, resource, { ...created, updatedAt: '' })
  await set(path, 'TOKEN', 'two')
  const seen = await terraform.read(client, resource, state!)
  t.equal(terraform.isDrifted(seen!), true)
  t.equal(terraform.isDrifted(await terraform.update(client, resource, config, seen!)), false)
  t.match(await terraform.importSecret(client, resource, 'TOKEN'), { id: 'TOKEN' })

  await client.do('DELETE', environment)
  t.equal(await terraform.read(client, resource, state!), undefined, 'its secrets went with it')
})
