/** What an environment shall be, as Ona's API has it and as it is stored: what this server acts on is named here. */
export interface EnvironmentSpec {
  machine?: { class?: string; session?: string }
  content?: {
    initializer?: Initializer
    gitUsername?: string
    gitEmail?: string
    session?: string
  }
  devcontainer?: { devcontainerFilePath?: string; session?: string }
  automationsFile?: { automationsFilePath?: string; session?: string }
  timeout?: { disconnected?: string }
  sshPublicKeys?: readonly { id?: string; value?: string }[]
  ports?: readonly object[]
  kernelControlsConfig?: object
  [other: string]: unknown
}

export interface Initializer {
  specs?: readonly InitializerSpec[]
}

export interface InitializerSpec {
  git?: {
    remoteUri?: string
    upstreamRemoteUri?: string
    targetMode?: string
    cloneTarget?: string
    checkoutLocation?: string
  }
  contextUrl?: { url?: string }
}

/** What a project says about the environments that are made from it. */
export interface ProjectDefaults {
  initializer: Initializer
  devcontainerFilePath: string
  automationsFilePath: string
  /** the classes that it allows, the preferred one first */
  classUids: readonly string[]
}
