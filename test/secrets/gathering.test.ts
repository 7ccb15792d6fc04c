import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Gathering } from '../../src/secrets/gathering.ts'

function doubling(atMost: number) {
  const works: number[][] = []
  const gathering = new Gathering<string, number, number>(async (items) => {
    works.push([...items])
    await sleep(5)
    if (items.includes(13)) throw new Error('unlucky')
    return items.map((item) => 2 * item)
  }, atMost)
  return { works, gathering }
}

t.test('what comes together is done together, and what comes meanwhile after it', async (t) => {
  const { works, gathering } = doubling(3)
  const first = [1, 2].map((item) => gathering.add('key', item))
  await sleep(2)
  const later = [3, 4, 5, 6].map((item) => gathering.add('key', item))
  t.same(await Promise.all([...first, ...later]), [2, 4, 6, 8, 10, 12])
  t.same(works, [[1, 2], [3, 4, 5], [6]])
})

t.test('keys do not wait for each other', async (t) => {
  const { works, gathering } = doubling(3)
  await Promise.all([gathering.add('a', 1), gathering.add('b', 2)])
  t.same(works, [[1], [2]])
})

t.test('a failure is that of all who were together, and of nobody after them', async (t) => {
  const { gathering } = doubling(2)
  const together = [13, 1].map((item) => gathering.add('key', item))
  const after = gathering.add('key', 2)
  for (const one of together) await t.rejects(one, /unlucky/)
  t.equal(await after, 4)
  t.equal(await gathering.add('key', 3), 6)
})
