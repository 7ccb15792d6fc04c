interface Waiting<T, R> {
  item: T
  resolve: (result: R) => void
  reject: (error: unknown) => void
}

/**
 * Does together what is asked for at the same time: what comes while earlier work of the same key is under way waits
 * for it, and is the next work, all at once.
 */
export class Gathering<K, T, R> {
  readonly #work: (items: readonly T[]) => Promise<readonly R[]>
  readonly #atMost: number
  readonly #waiting = new Map<K, Waiting<T, R>[]>()

  /**
   * @param work gives a result for each item, in the same order; what it throws is thrown to all of them
   * @param atMost so many items are worked on together
   */
  constructor(work: (items: readonly T[]) => Promise<readonly R[]>, atMost: number) {
    this.#work = work
    this.#atMost = atMost
  }

  add(key: K, item: T): Promise<R> {
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(key)
      if (waiting) waiting.push({ item, resolve, reject })
      else {
        this.#waiting.set(key, [{ item, resolve, reject }])
        // After all that has arrived by now.
        setImmediate(() => void this.#drain(key))
      }
    })
  }

  async #drain(key: K): Promise<void> {
    const waiting = this.#waiting.get(key)!
    while (waiting.length > 0) {
      const taken = waiting.splice(0, this.#atMost)
      try {
        const results = await this.#work(taken.map(({ item }) => item))
        for (const [index, { resolve }] of taken.entries()) resolve(results[index]!)
      } catch (error) {
        for (const { reject } of taken) reject(error)
      }
    }
    this.#waiting.delete(key)
  }
}
