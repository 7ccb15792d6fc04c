import t from 'tap'
import { sdk, startOnaServer } from './helper.ts'

t.test('a secret of a project, by the official client', async (t) => {
  const server = await startOnaServer(t)
  const client = sdk(await server.listen(), server.owner.token)
  const { project } = await client.projects.create({
    name: 'web',
    initializer: { specs: [{ git: { remoteUri: 'https://git.example/web.git' } }] },
    environmentClass: { localRunner: true }
  })
  t.equal(project?.metadata?.name, 'web')
  const { secret } = await client.secrets.create({
    name: 'DB_URL',
    value: 'postgres://x',
    environmentVariable: true,
    scope: { projectId: project!.id! }
  })
  t.match(secret, { name: 'DB_URL', environmentVariable: true, projectId: project!.id })
  const listed = await client.secrets.list({ filter: { scope: { projectId: project!.id! } } })
  t.strictSame(listed.secrets, [secret])
  await client.secrets.updateValue({ secretId: secret!.id!, value: 'postgres://y' })
  t.equal(String(await server.reveal('project', project!.id!, 'DB_URL')), 'postgres://y')
  await client.secrets.delete({ secretId: secret!.id! })
  t.strictSame((await client.secrets.list({ filter: { scope: { projectId: project!.id! } } })).secrets, [])
  await client.projects.delete({ projectId: project!.id! })
})
