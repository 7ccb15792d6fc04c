import { connect } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { fastify } from 'fastify'
import t, { type Test } from 'tap'
import { Lines } from '../../../src/routes/rpc/lines.ts'

const MESSAGE = { text: 'a'.repeat(100_000) }

/** A server whose only answer is a stream, and the stream that the next request gets. */
async function start(t: Test) {
  const app = fastify()
  const opened = new Promise<Lines<object>>((resolve) => {
    app.get('/', (_request, reply) => resolve(new Lines(reply)))
  })
  t.teardown(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return { url, opened }
}

t.test('a reader that does not read is cut off', async (t) => {
  const { url, opened } = await start(t)
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  socket.pause()
  socket.write('GET / HTTP/1.1\r\nhost: h\r\n\r\n')
  const lines = await opened
  let closed = false
  lines.onClose(() => {
    closed = true
  })
  // What the kernel takes is not counted; it is bounded itself.
  for (let sent = 0; !closed && sent < 10_000; sent++) {
    lines.send(MESSAGE)
    await turn()
  }
  t.ok(closed)
  lines.send(MESSAGE)
  lines.end()
})

t.test('a reader that does read is not, however much it is', async (t) => {
  const { url, opened } = await start(t)
  const response = await fetch(url)
  const lines = await opened
  const reader = response.body!.getReader()
  const expected = JSON.stringify(MESSAGE).length + 1
  for (let sent = 0; sent < 50; sent++) {
    lines.send(MESSAGE)
    for (let read = 0; read < expected; ) read += (await reader.read()).value!.length
  }
  lines.end()
  t.strictSame(await reader.read(), { done: true, value: undefined })
})
