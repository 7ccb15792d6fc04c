/** So many are remembered of one viewer, and of all together: some 80 bytes each. */
export const MAX_SIGHTINGS = 2_000
const MAX_OF_ALL = 200_000

/** What viewers could see when it was last asked for: when it is gone, nobody can be asked any more. */
export class Sightings<V extends object> {
  readonly #seen = new Map<V, Set<string>>()
  readonly #most: number
  #total = 0

  constructor(most = MAX_OF_ALL) {
    this.#most = most
  }

  has(viewer: V, uid: string): boolean {
    return this.#seen.get(viewer)?.has(uid) ?? false
  }

  add(viewer: V, uid: string): void {
    const seen = this.#seen.get(viewer) ?? new Set<string>()
    this.#seen.set(viewer, seen)
    this.remove(viewer, uid)
    if (seen.size >= MAX_SIGHTINGS || this.#total >= this.#most) {
      const [oldest] = seen
      if (oldest === undefined) return
      this.remove(viewer, oldest)
    }
    seen.add(uid)
    this.#total += 1
  }

  remove(viewer: V, uid: string): void {
    if (this.#seen.get(viewer)?.delete(uid)) this.#total -= 1
  }

  forget(viewer: V): void {
    this.#total -= this.#seen.get(viewer)?.size ?? 0
    this.#seen.delete(viewer)
  }
}
