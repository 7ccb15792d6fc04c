import type { EnvironmentSpec, Initializer, ProjectDefaults } from './spec.ts'

/** As Ona has it where nobody says anything: half an hour without anybody at work. */
const DEFAULT_TIMEOUT = '1800s'

/**
 * The spec of an environment: what its request says, and below that what its project says. Parts that have a session
 * get one, so that changing it asks for doing them again.
 *
 * @param makeSession gives another text each time
 */
export function compose(
  request: EnvironmentSpec,
  project: ProjectDefaults | undefined,
  makeSession: () => string
): EnvironmentSpec {
  const { machine, content, devcontainer, automationsFile, timeout, ...rest } = request
  const classUid = machine?.class || project?.classUids[0]
  const initializer = given(content?.initializer) ?? project?.initializer
  const devcontainerFilePath = devcontainer?.devcontainerFilePath || project?.devcontainerFilePath
  const automationsFilePath = automationsFile?.automationsFilePath || project?.automationsFilePath
  return {
    ...rest,
    machine: { ...machine, ...(classUid && { class: classUid }), session: machine?.session || makeSession() },
    content: { ...content, ...(initializer && { initializer }), session: content?.session || makeSession() },
    devcontainer: {
      ...devcontainer,
      ...(devcontainerFilePath && { devcontainerFilePath }),
      session: devcontainer?.session || makeSession()
    },
    ...((automationsFile || automationsFilePath) && {
      automationsFile: {
        ...automationsFile,
        ...(automationsFilePath && { automationsFilePath }),
        session: automationsFile?.session || makeSession()
      }
    }),
    timeout: { ...timeout, disconnected: timeout?.disconnected ?? DEFAULT_TIMEOUT }
  }
}

/** An initializer without any spec says nothing. */
function given(initializer: Initializer | undefined): Initializer | undefined {
  return initializer?.specs?.length ? initializer : undefined
}

/** What of a spec an update may change; `null` at the place of a public key's value removes that key. */
export interface SpecUpdate {
  content?: EnvironmentSpec['content']
  devcontainer?: EnvironmentSpec['devcontainer']
  automationsFile?: EnvironmentSpec['automationsFile']
  timeout?: EnvironmentSpec['timeout']
  sshPublicKeys?: readonly { id?: string; value?: string }[]
  ports?: readonly object[]
  kernelControlsConfig?: object
}

/** A spec with what is given changed; lists replace, but for public keys, which are told apart by their ids. */
export function update(spec: EnvironmentSpec, change: SpecUpdate): EnvironmentSpec {
  const { content, devcontainer, automationsFile, timeout, sshPublicKeys, ports, kernelControlsConfig } =
    change
  return {
    ...spec,
    ...(content && { content: { ...spec.content, ...content } }),
    ...(devcontainer && { devcontainer: { ...spec.devcontainer, ...devcontainer } }),
    ...(automationsFile && { automationsFile: { ...spec.automationsFile, ...automationsFile } }),
    ...(timeout && { timeout: { ...spec.timeout, ...timeout } }),
    ...(ports && ports.length > 0 && { ports }),
    ...(kernelControlsConfig && { kernelControlsConfig }),
    ...(sshPublicKeys && { sshPublicKeys: withKeys(spec.sshPublicKeys ?? [], sshPublicKeys) })
  }
}

type PublicKeys = NonNullable<EnvironmentSpec['sshPublicKeys']>

/** A key without a value is removed. */
function withKeys(keys: PublicKeys, changes: PublicKeys): PublicKeys {
  const changed = new Set(changes.map(({ id }) => id))
  return [...keys.filter(({ id }) => !changed.has(id)), ...changes.filter(({ value }) => value)]
}
