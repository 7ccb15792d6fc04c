import t from 'tap'
import { compose, update } from '../../src/environments/compose.ts'
import type { EnvironmentSpec, ProjectDefaults } from '../../src/environments/spec.ts'

const INITIALIZER = { specs: [{ git: { remoteUri: 'https://git.example/project.git' } }] }
const OTHER = { specs: [{ contextUrl: { url: 'https://git.example/request' } }] }

const PROJECT: ProjectDefaults = {
  initializer: INITIALIZER,
  devcontainerFilePath: 'project/devcontainer.json',
  automationsFilePath: 'project/automations.yaml',
  classUids: ['class-1', 'class-2']
}

/** The parts that a project says something about, with sessions that tell in which order they were made. */
function composed(request: EnvironmentSpec, project?: ProjectDefaults): EnvironmentSpec {
  let made = 0
  return compose(request, project, () => `session-${++made}`)
}

t.test('what the request leaves open the project says', async (t) => {
  t.strictSame(composed({}, PROJECT), {
    machine: { class: 'class-1', session: 'session-1' },
    content: { initializer: INITIALIZER, session: 'session-2' },
    devcontainer: { devcontainerFilePath: 'project/devcontainer.json', session: 'session-3' },
    automationsFile: { automationsFilePath: 'project/automations.yaml', session: 'session-4' },
    timeout: { disconnected: '1800s' }
  })
})

t.test('without a project there are only defaults', async (t) => {
  t.strictSame(composed({}), {
    machine: { session: 'session-1' },
    content: { session: 'session-2' },
    devcontainer: { session: 'session-3' },
    timeout: { disconnected: '1800s' }
  })
})

t.test('the request wins, field by field', async (t) => {
  const fields: [request: EnvironmentSpec, path: string[], expected: unknown][] = [
    [{ machine: { class: 'class-2' } }, ['machine', 'class'], 'class-2'],
    [{ machine: { class: '' } }, ['machine', 'class'], 'class-1'],
    [{ machine: {} }, ['machine', 'class'], 'class-1'],
    [{ content: { initializer: OTHER } }, ['content', 'initializer'], OTHER],
    [{ content: { initializer: {} } }, ['content', 'initializer'], INITIALIZER],
    [{ content: { initializer: { specs: [] } } }, ['content', 'initializer'], INITIALIZER],
    [{ content: { gitUsername: 'mia', gitEmail: 'm@x' } }, ['content', 'gitUsername'], 'mia'],
    [{ content: { gitUsername: 'mia', gitEmail: 'm@x' } }, ['content', 'gitEmail'], 'm@x'],
    [{ content: { gitUsername: 'mia' } }, ['content', 'initializer'], INITIALIZER],
    [
      { devcontainer: { devcontainerFilePath: 'own.json' } },
      ['devcontainer', 'devcontainerFilePath'],
      'own.json'
    ],
    [
      { devcontainer: { devcontainerFilePath: '' } },
      ['devcontainer', 'devcontainerFilePath'],
      PROJECT.devcontainerFilePath
    ],
    [
      { automationsFile: { automationsFilePath: 'own.yaml' } },
      ['automationsFile', 'automationsFilePath'],
      'own.yaml'
    ],
    [{ automationsFile: {} }, ['automationsFile', 'automationsFilePath'], PROJECT.automationsFilePath],
    [{ timeout: { disconnected: '14400s' } }, ['timeout', 'disconnected'], '14400s'],
    [{ timeout: { disconnected: '0s' } }, ['timeout', 'disconnected'], '0s'],
    [{ timeout: {} }, ['timeout', 'disconnected'], '1800s']
  ]
  for (const [request, path, expected] of fields) {
    const value = path.reduce<unknown>(
      (object, name) => (object as Record<string, unknown>)[name],
      composed(request, PROJECT)
    )
    t.strictSame(value, expected, JSON.stringify(request))
  }
})

t.test('sessions of the request stay, others are made, each another', async (t) => {
  const given = composed(
    {
      machine: { session: 'm' },
      content: { session: 'c' },
      devcontainer: { session: 'd' },
      automationsFile: { session: 'a' }
    },
    PROJECT
  )
  t.match(given, {
    machine: { session: 'm' },
    content: { session: 'c' },
    devcontainer: { session: 'd' },
    automationsFile: { session: 'a' }
  })
  const { machine, content, devcontainer, automationsFile } = composed({}, PROJECT)
  const sessions = [machine, content, devcontainer, automationsFile].map((part) => part?.session)
  t.equal(new Set(sessions).size, 4)
  t.match(composed({ machine: { session: '' } }), { machine: { session: 'session-1' } })
})

t.test('what this server does not act on is kept', async (t) => {
  const rest = {
    ports: [{ port: 3000 }],
    sshPublicKeys: [{ id: 'k', value: 'ssh-ed25519 A' }],
    kernelControlsConfig: { veto: {} },
    admission: 'ADMISSION_LEVEL_OWNER_ONLY',
    workflowActionId: 'w'
  }
  t.match(composed({ ...rest, machine: { preferDualDisk: true } as object }, PROJECT), {
    ...rest,
    machine: { preferDualDisk: true, class: 'class-1' }
  })
})

t.test('composing changes neither request nor project', async (t) => {
  const request = { machine: { class: 'class-2' }, content: { gitEmail: 'm@x' } }
  const before = structuredClone([request, PROJECT])
  composed(request, PROJECT)
  t.strictSame([request, PROJECT], before)
})

t.test('an update changes what it gives', async (t) => {
  const spec: EnvironmentSpec = {
    machine: { class: 'c', session: 'm' },
    content: { initializer: INITIALIZER, gitEmail: 'm@x', session: 'c' },
    devcontainer: { devcontainerFilePath: 'a.json', session: 'd' },
    timeout: { disconnected: '1800s' },
    ports: [{ port: 3000 }],
    sshPublicKeys: [
      { id: 'one', value: '1' },
      { id: 'two', value: '2' }
    ]
  }
  const changes: [Parameters<typeof update>[1], Partial<EnvironmentSpec>][] = [
    [{}, {}],
    [{ content: { session: 'n' } }, { content: { ...spec.content, session: 'n' } }],
    [{ content: { initializer: OTHER } }, { content: { ...spec.content, initializer: OTHER } }],
    [
      { devcontainer: { devcontainerFilePath: 'b.json' } },
      { devcontainer: { devcontainerFilePath: 'b.json', session: 'd' } }
    ],
    [
      { automationsFile: { automationsFilePath: 'a.yaml' } },
      { automationsFile: { automationsFilePath: 'a.yaml' } }
    ],
    [{ timeout: { disconnected: '0s' } }, { timeout: { disconnected: '0s' } }],
    [{ timeout: {} }, {}],
    [{ ports: [{ port: 4000 }] }, { ports: [{ port: 4000 }] }],
    [{ ports: [] }, {}],
    [{ kernelControlsConfig: { veto: {} } }, { kernelControlsConfig: { veto: {} } }],
    [{ sshPublicKeys: [] }, {}],
    [
      { sshPublicKeys: [{ id: 'two', value: '3' }] },
      {
        sshPublicKeys: [
          { id: 'one', value: '1' },
          { id: 'two', value: '3' }
        ]
      }
    ],
    [{ sshPublicKeys: [{ id: 'one' }] }, { sshPublicKeys: [{ id: 'two', value: '2' }] }],
    [{ sshPublicKeys: [{ id: 'three' }] }, {}]
  ]
  for (const [change, expected] of changes) {
    t.strictSame(update(spec, change), { ...spec, ...expected }, JSON.stringify(change))
  }
})
