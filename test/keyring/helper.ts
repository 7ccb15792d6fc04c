import { Keyring, type MasterKey, type StoredGeneration } from '../../src/keyring/index.ts'

export const COLLECTION = 'codespaces/repository/2f1a6a0e-3c1b-4f57-8a4d-93b6f5f0c001'
export const OTHER_COLLECTION = 'codespaces/user/7c9e6679-7425-40de-944b-e07fc1f90ae7'

export interface TestGeneration {
  id: bigint
  material: Uint8Array
  state?: StoredGeneration['state']
  acceptsBoxesForMs?: number | null
}

/** Wraps nothing, so that a test chooses the material of a generation and keeps the very buffer. */
export class BareMasterKey implements MasterKey {
  readonly fingerprint = 'bare'
  /** what the keyring was handed, by generation */
  readonly handedOut: Buffer[] = []

  async wrap(_id: bigint, material: Uint8Array) {
    return { wrapped: Buffer.from(material), fingerprint: this.fingerprint }
  }

  async unwrap(_id: bigint, wrapped: Uint8Array): Promise<Buffer> {
    const material = Buffer.from(wrapped)
    this.handedOut.push(material)
    return material
  }
}

function store({
  id,
  material,
  state = 'active',
  acceptsBoxesForMs = null
}: TestGeneration): StoredGeneration {
  return { id, state, acceptsBoxesForMs, wrapped: Buffer.from(material), fingerprint: 'bare' }
}

/** A keyring that holds these generations. */
export async function makeKeyring(...generations: TestGeneration[]): Promise<{
  keyring: Keyring
  masterKey: BareMasterKey
  install(...generations: TestGeneration[]): Promise<void>
}> {
  const masterKey = new BareMasterKey()
  const keyring = new Keyring([masterKey])
  const install = (...generations: TestGeneration[]) => keyring.install(generations.map(store))
  await install(...generations)
  return { keyring, masterKey, install }
}
