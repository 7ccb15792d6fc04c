import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { reveal } from '../src/secrets/vault.ts'
import {
  type ChildServer,
  killPostgres,
  makeDataDir,
  postmasterPid,
  startChildServer,
  withStore
} from './child-server.ts'
import { isConsistent } from './consistency.ts'
import { sealFor } from './helper.ts'

t.setTimeout(180_000)

const USER = '/user/codespaces/secrets'
const REPO = '/repos/admin/web/codespaces/secrets'
/** Writes that are acknowledged before the fault, so that it meets some that are under way. */
const LOAD_WRITES = 100

/** What a writer knows of one name: the last state that was acknowledged, and those sent since. */
interface Known {
  acknowledged: string | undefined
  unsure: Set<string | undefined>
  acknowledgements: number
}

class Load {
  readonly known = new Map<string, Known>()
  /** answers that are neither success nor the 503 that GitHub's clients understand */
  readonly unexpected: string[] = []
  readonly #token: string
  #keys = new Map<string, { key: string; key_id: string }>()
  #stopped = false
  #round = 0

  constructor(token: string) {
    this.#token = token
  }

  async #send(url: string, method: string, body?: object): Promise<Response | undefined> {
    const headers = { authorization: `Bearer ${this.#token}` }
    try {
      const response = await fetch(url, { method, headers, ...(body && { body: JSON.stringify(body) }) })
      const text = await response.text()
      const away =
        response.status === 503 &&
        response.headers.get('retry-after') === '1' &&
        JSON.parse(text).status === '503'
      if (!response.ok && !away && !(method === 'DELETE' && response.status === 404)) {
        this.unexpected.push(`${method} ${response.status} ${text}`)
      }
      return response
    } catch {
      // The server is gone; whether it has stored what was sent, nobody knows.
      return undefined
    }
  }

  /** Puts a state (undefined: none) and notes what came of it. */
  async #write(base: string, path: string, name: string, state: string | undefined): Promise<boolean> {
    const id = `${path}/${name}`
    const known = this.known.get(id) ?? { acknowledged: undefined, unsure: new Set(), acknowledgements: 0 }
    this.known.set(id, known)
    known.unsure.add(state)
    const url = base + id
    const { key, key_id } = this.#keys.get(path)!
    const response =
      state === undefined
        ? await this.#send(url, 'DELETE')
        : await this.#send(url, 'PUT', { encrypted_value: sealFor(key, state), key_id })
    if (!response?.ok) return response !== undefined
    known.acknowledged = state
    known.acknowledgements += 1
    known.unsure.clear()
    return true
  }

  /** Writes from several sides at once until `stop()`, or until nobody answers. */
  async run(base: string): Promise<void> {
    this.#stopped = false
    const round = ++this.#round
    for (const path of [USER, REPO]) {
      const headers = { authorization: `Bearer ${this.#token}` }
      const response = await fetch(`${base}${path}/public-key`, { headers })
      this.#keys.set(path, (await response.json()) as { key: string; key_id: string })
    }
    const padding = 'x'.repeat(2000)
    const writers = [USER, REPO].flatMap((path) => [
      ...['A', 'B', 'C'].map(
        (name) => async (n: number) => await this.#write(base, path, name, `${name} ${round}.${n} ${padding}`)
      ),
      async (n: number) =>
        await this.#write(base, path, 'FLICKER', n % 2 ? undefined : `there ${round}.${n}`),
      // New names, as many as the limit lets in.
      async (n: number) => n > 12 || (await this.#write(base, path, `NEW_${round}_${n}`, `new ${round}.${n}`))
    ])
    await Promise.all(
      writers.map(async (write) => {
        for (let n = 0; !this.#stopped; n++) {
          if (!(await write(n))) return
          if (n > 12) await sleep(1)
        }
      })
    )
  }

  stop(): void {
    this.#stopped = true
  }

  get acknowledgements(): number {
    return [...this.known.values()].reduce((total, { acknowledgements }) => total + acknowledgements, 0)
  }
}

const token = `t-${randomBytes(30).toString('hex')}`
const environment = { COFFER_ADMIN_TOKEN: token, COFFER_SOCKET: 'off', COFFER_LOG_LEVEL: 'info' }

/** Whether each name has its last acknowledged state, or one that was sent after it. */
async function isAllThere(t: Test, dataDir: string, load: Load): Promise<void> {
  await withStore(dataDir, environment, async ({ db, keyring }) => {
    const uidOf = async (table: 'accounts' | 'repositories', column: 'login' | 'name', name: string) =>
      (await db.selectFrom(table).select('uid').where(column, '=', name).executeTakeFirstOrThrow()).uid
    const admin = await uidOf('accounts', 'login', 'admin')
    const web = await uidOf('repositories', 'name', 'web')
    const lost: string[] = []
    for (const [id, known] of load.known) {
      const collection = id.startsWith(USER)
        ? ({ app: 'codespaces', kind: 'user', ownerUid: admin } as const)
        : ({ app: 'codespaces', kind: 'repository', ownerUid: web } as const)
      const state = (await reveal({ db, keyring }, collection, id.split('/').at(-1)!))?.toString()
      if (state !== known.acknowledged && !known.unsure.has(state)) {
        lost.push(`${id} is ${state?.slice(0, 20)}, not ${known.acknowledged?.slice(0, 20)}`)
      }
      // From here on, this is what is there.
      known.acknowledged = state
      known.unsure.clear()
    }
    t.strictSame(lost, [], `${load.known.size} names, ${load.acknowledgements} acknowledged writes`)
    await isConsistent(t, db)
  })
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(`${url}/readyz`).catch(() => undefined)
  return response?.status === 200
}

t.test('every acknowledged write outlives the sudden death of what stored it', async (t) => {
  const dataDir = await makeDataDir(t)
  const load = new Load(token)
  const start = (): Promise<ChildServer> => startChildServer(t, dataDir, environment)
  let server = await start()
  const response = await fetch(`${server.url}/user/repos`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify({ name: 'web', private: true })
  })
  t.equal(response.status, 201)

  const underLoad = async (fault: () => Promise<void>): Promise<void> => {
    const before = load.acknowledgements
    const running = load.run(server.url)
    while (load.acknowledgements - before < LOAD_WRITES) await sleep(50)
    t.pass(`${load.acknowledgements - before} writes were acknowledged before`)
    await fault()
    load.stop()
    await running
    t.strictSame(load.unexpected, [], 'a write succeeds, or is told to come again')
  }

  await t.test('of the server', async (t) => {
    for (let round = 0; round < 2; round++) {
      await underLoad(() => server.kill('SIGKILL'))
      // Once beside PostgreSQL alone, once beside the next server.
      if (round === 0) await isAllThere(t, dataDir, load)
      server = await start()
      await isAllThere(t, dataDir, load)
    }
  })

  await t.test('of PostgreSQL, beside a server that lives on', async (t) => {
    for (let round = 0; round < 2; round++) {
      await underLoad(async () => {
        const killed = performance.now()
        await killPostgres(dataDir)
        while (!(await isReady(server.url))) await sleep(20)
        t.comment(`ready again after ${Math.round(performance.now() - killed)} ms`)
        t.ok(performance.now() - killed < 20_000, 'it comes back by itself')
        const before = load.acknowledgements
        while (load.acknowledgements < before + 20) await sleep(20)
      })
      await isAllThere(t, dataDir, load)
    }
  })

  await t.test('of both at once', async (t) => {
    await underLoad(async () => {
      await Promise.all([killPostgres(dataDir), server.kill('SIGKILL')])
    })
    await isAllThere(t, dataDir, load)
    server = await start()
    await isAllThere(t, dataDir, load)
  })

  await server.kill('SIGTERM')
  await t.rejects(postmasterPid(dataDir), { code: 'ENOENT' }, 'a server that ends stops its PostgreSQL')
})
