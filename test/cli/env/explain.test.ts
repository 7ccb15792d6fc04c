import t from 'tap'
import { BUBBLEWRAP, GIT, needPrograms } from '../../installed.ts'
import { startWorld, VALUE } from './helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

t.test('who wins, who loses, and what is withheld', async (t) => {
  const world = await startWorld(t)
  const { coffer, ask, acme, owner, createProject, createSecret } = world
  const projectId = await createProject('web')
  await createSecret(projectId, 'BOTH')
  await createSecret(projectId, 'FILE', { filePath: '/etc/file' })
  for (const scope of [{ userId: owner.account.uid }, { organizationId: acme.uid }]) {
    const message = { name: 'BOTH', scope, value: VALUE, environmentVariable: true }
    await ask('SecretService/CreateSecret', message)
  }
  const selected = '/orgs/acme/codespaces/secrets'
  await world.request('PUT', `${selected}/KEPT`, {
    token: owner.token,
    body: { ...(await world.seal(selected, owner.token, VALUE)), visibility: 'selected' }
  })

  const ofProject = await coffer(['env', 'explain', '--project', 'web'])
  t.match(ofProject, { code: 0, stderr: '' })
  const [header, ...rows] = ofProject.stdout.trim().split('\n')
  t.equal(header, 'NAME  MOUNT           FROM          VERDICT')
  t.strictSame(rows.toSorted(), [
    "BOTH  variable        organization  loses: the user's comes first",
    "BOTH  variable        project       loses: the user's comes first",
    'BOTH  variable        user          wins',
    'FILE  file /etc/file  project       wins',
    rows.find((row) => /^KEPT {2}variable {8}organization {2}withheld: \w/.test(row))
  ])
  t.notOk(ofProject.stdout.includes(VALUE))
  await coffer(['env', 'create', '-p', 'web', '--name', 'box'])
  t.same(await coffer(['env', 'explain', 'box']), ofProject, 'as it was told before')
  const [first] = JSON.parse((await coffer(['env', 'explain', 'box', '--json'])).stdout)
  t.match(first, { id: String, name: String, result: String })

  for (const args of [[], ['box', '--project', 'web']]) {
    t.match(await coffer(['env', 'explain', ...args]), {
      code: 2,
      stderr: 'coffer: Give an environment, or --project.\n'
    })
  }
  await createProject('empty')
  const asStranger = { COFFER_TOKEN: world.stranger.token }
  t.match(await coffer(['env', 'explain', '-p', projectId], undefined, asStranger), { code: 2, stdout: '' })
})
