import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { PassThrough, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { Conflict } from '../../src/errors.ts'
import { type StartProcess, serveExec } from '../../src/runner/exec.ts'
import { ExecClient } from '../../src/runner/exec-client.ts'
import { type ExecRequest, STDIN_WINDOW_BYTES } from '../../src/runner/exec-request.ts'
import { FRAME, type Frame, MAX_PAYLOAD_BYTES, readFrames, writeFrame } from '../../src/runner/frames.ts'
import type { SandboxedProcess } from '../../src/runner/sandbox.ts'
import { BUBBLEWRAP, GIT, needPrograms } from '../installed.ts'
import { makeRunner } from './sandbox-helper.ts'

needPrograms(t, BUBBLEWRAP, GIT)

const MEGABYTE = 1024 * 1024

const { sandbox, makeFolders } = await makeRunner(t)
const folders = await makeFolders()

const start: StartProcess = (request) =>
  sandbox.start(folders, { ...request, variables: {}, links: new Map() })

interface Connection {
  /** the client's end */
  stream: Socket
  /** what came of it on the runner's side */
  served: Promise<void>
}

/** A stream between a client and a runner, over a real socket. */
async function open(t: Test, startProcess: StartProcess = start): Promise<Connection> {
  const server = createServer()
  const served = new Promise<void>((resolve, reject) => {
    server.once('connection', (socket) => serveExec(socket, startProcess).then(resolve, reject))
  })
  served.catch(() => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stream = connect((server.address() as AddressInfo).port, '127.0.0.1')
  stream.on('error', () => {})
  await once(stream, 'connect')
  t.teardown(() => {
    stream.destroy()
    server.close()
  })
  return { stream, served }
}

/** Keeps what comes of each start, so that a test can look at the process itself. */
function watched(): { startProcess: StartProcess; started: Promise<SandboxedProcess> } {
  let begin: (process: SandboxedProcess) => void
  const started = new Promise<SandboxedProcess>((resolve) => {
    begin = resolve
  })
  const startProcess: StartProcess = async (request) => {
    const process = await start(request)
    begin(process)
    return process
  }
  return { startProcess, started }
}

async function exec(t: Test, request: ExecRequest, stdin?: Readable) {
  const { stream, served } = await open(t)
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const client = new ExecClient(stream, request, { stdout, stderr, ...(stdin && { stdin }) })
  const [out, errors] = [text(stdout), text(stderr)]
  const status = await client.exit
  stdout.end()
  stderr.end()
  await served
  return { ...status, stdout: await out, stderr: await errors }
}

function sh(line: string): ExecRequest {
  return { command: ['sh', '-c', line] }
}

t.test('a command runs with both outputs, its folder and its status', async (t) => {
  t.same(await exec(t, sh('echo out; echo errors >&2; exit 3')), {
    code: 3,
    signal: null,
    stdout: 'out\n',
    stderr: 'errors\n'
  })
  const { stdout } = await exec(t, { command: ['pwd'], workingDirectory: '/home/coffer' })
  t.equal(stdout, '/home/coffer\n')
  t.match(await exec(t, { command: ['no-such-program'] }), { code: 127, stderr: /no-such-program/ })
  t.match(await exec(t, sh('kill -SEGV $$')), { code: null, signal: 'SIGSEGV' })
  t.match(await exec(t, { command: ['cat'] }), { code: 0, stdout: '' }, 'without stdin it is empty')
})

t.test('50 MB go in and come out the same', async (t) => {
  const input = randomBytes(MEGABYTE)
  const [sent, received] = [createHash('sha256'), createHash('sha256')]
  let bytes = 0
  const stdin = Readable.from(
    (function* () {
      for (let index = 0; index < 50; index++) {
        sent.update(input)
        yield input
      }
    })()
  )
  const stdout = new Writable({
    write(chunk: Buffer, _encoding, done) {
      bytes += chunk.length
      received.update(chunk)
      done()
    }
  })
  const { stream } = await open(t)
  const client = new ExecClient(stream, { command: ['cat'] }, { stdin, stdout, stderr: new PassThrough() })
  t.same(await client.exit, { code: 0, signal: null })
  t.equal(bytes, 50 * MEGABYTE)
  t.equal(received.digest('hex'), sent.digest('hex'))
})

t.test('all output is there before the end, also what a command wrote last', async (t) => {
  const { stdout, code } = await exec(t, sh('head -c 3000000 /dev/zero; exit 9'))
  t.equal(stdout.length, 3_000_000)
  t.equal(code, 9)
})

t.test('signals reach the command itself', async (t) => {
  const { stream } = await open(t)
  const stdout = new PassThrough()
  const line = 'trap "echo caught; exit 5" USR1; echo ready; sleep 1000 & wait'
  const client = new ExecClient(stream, sh(line), { stdout, stderr: new PassThrough() })
  const [ready] = await once(stdout, 'data')
  t.equal(String(ready), 'ready\n')
  const rest = text(stdout)
  client.signal('SIGUSR1')
  t.same(await client.exit, { code: 5, signal: null })
  stdout.end()
  t.equal(await rest, 'caught\n')
})

t.test('a signal is not behind a stdin that nobody reads', async (t) => {
  const { stream } = await open(t)
  let given = 0
  const stdin = new Readable({
    read() {
      given += 65536
      this.push(Buffer.alloc(65536))
    }
  })
  const stdout = new PassThrough()
  const client = new ExecClient(stream, sh('echo ready; exec sleep 1000'), {
    stdin,
    stdout,
    stderr: new PassThrough()
  })
  await once(stdout, 'data')
  while (given < STDIN_WINDOW_BYTES) await once(stdin, 'pause')
  client.signal('SIGINT')
  t.same(await client.exit, { code: null, signal: 'SIGINT' })
  t.ok(given < 2 * MEGABYTE, 'and no more of it was read than there is room for')
})

t.test('output waits for its reader', async (t) => {
  const { startProcess, started } = watched()
  const { stream, served } = await open(t, startProcess)
  await writeFrame(stream, FRAME.start, JSON.stringify({ command: ['yes'] }))
  const child = await started
  let before = -1
  // Nobody reads the stream: what the runner takes from the command comes to an end.
  for (let bytes = 0; bytes !== before; bytes = (child.stdout as Socket).bytesRead) {
    before = bytes
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  t.ok(before < 32 * MEGABYTE)
  stream.destroy()
  t.same(await child.exit, { code: null, signal: 'SIGKILL' })
  await served
})

t.test('a terminal has its size and type, and one output', async (t) => {
  const terminal = { rows: 33, columns: 101, type: 'xterm-256color' }
  const stdin = new PassThrough()
  const { stream } = await open(t)
  const stdout = new PassThrough()
  const client = new ExecClient(
    stream,
    { ...sh('stty size; echo $TERM; test -t 0 && test -t 2 && echo tty >&2; read line; exit 6'), terminal },
    { stdin, stdout, stderr: new PassThrough() }
  )
  const output = text(stdout)
  stdin.write('answer\r')
  t.same(await client.exit, { code: 6, signal: null })
  stdout.end()
  t.match(await output, /33 101\r\nxterm-256color\r\ntty\r\n/)
})

t.test('a terminal that becomes larger or smaller, and the last of many sizes', async (t) => {
  const terminal = { rows: 24, columns: 80, type: 'xterm' }
  const { stream } = await open(t)
  const [stdin, stdout] = [new PassThrough(), new PassThrough()]
  const line =
    'trap "stty size" WINCH; echo ready; until read a; do :; done; wait; ls -l /proc/self/fd; exit 3'
  const client = new ExecClient(
    stream,
    { ...sh(line), terminal },
    { stdin, stdout, stderr: new PassThrough() }
  )
  let shown = ''
  stdout.on('data', (bytes) => {
    shown += bytes
  })
  const until = async (text: string) => {
    while (!shown.includes(text)) await once(stdout, 'data')
  }
  await until('ready')
  for (const [rows, columns] of [
    [50, 132],
    [10, 20]
  ] as const) {
    client.resize({ rows, columns })
    await until(`${rows} ${columns}\r\n`)
  }
  for (let rows = 1; rows <= 2000; rows++) client.resize({ rows, columns: 77 })
  await until('2000 77\r\n')
  stdin.write('\r')
  t.same(await client.exit, { code: 3, signal: null })
  t.match(shown, /-> \/dev\/pts\/0/)
  t.notMatch(shown, /socket:|pipe/, 'it has nothing but its terminal')
})

t.test('a runner that knows nothing of sizes is told of none', async (t) => {
  const got: number[] = []
  const server = createServer(async (socket) => {
    for await (const { type } of readFrames(socket)) {
      got.push(type)
      if (type === FRAME.start) await writeFrame(socket, FRAME.started)
      if (type === FRAME.signal) await writeFrame(socket, FRAME.exit, '{"code":0,"signal":null}')
    }
  }).listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const stream = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const streams = { stdout: new PassThrough(), stderr: new PassThrough() }
  const client = new ExecClient(stream, { command: ['true'] }, streams)
  client.resize({ rows: 1, columns: 1 })
  while (!got.includes(FRAME.stdinEnd)) await new Promise(setImmediate)
  client.resize({ rows: 2, columns: 2 })
  client.signal('SIGTERM')
  t.same(await client.exit, { code: 0, signal: null })
  t.same(got, [FRAME.start, FRAME.stdinEnd, FRAME.signal])
})

t.test('Ctrl-C in a terminal, and a signal from outside, are for the command', async (t) => {
  const terminal = { rows: 24, columns: 80, type: 'xterm' }
  for (const stop of [
    (_client: ExecClient, stdin: PassThrough) => stdin.write('\x03'),
    (client: ExecClient) => client.signal('SIGINT')
  ]) {
    const { stream } = await open(t)
    const [stdin, stdout] = [new PassThrough(), new PassThrough()]
    const request = { ...sh('trap "exit 4" INT; echo ready; sleep 1000 & wait'), terminal }
    const client = new ExecClient(stream, request, { stdin, stdout, stderr: new PassThrough() })
    await once(stdout, 'data')
    stop(client, stdin)
    t.same(await client.exit, { code: 4, signal: null })
  }
})

t.test('when the client goes, all that it started ends', async (t) => {
  const { startProcess, started } = watched()
  const { stream, served } = await open(t, startProcess)
  const stdout = new PassThrough()
  const client = new ExecClient(stream, sh('setsid sleep 1000 & echo ready; exec sleep 1000'), {
    stdout,
    stderr: new PassThrough()
  })
  await once(stdout, 'data')
  const lost = t.rejects(client.exit, { name: 'ExecFailed', message: /connection was lost/ })
  stream.destroy()
  await lost
  t.same(await (await started).exit, { code: null, signal: 'SIGKILL' })
  await served
})

t.test('when the runner goes, the client does not wait', async (t) => {
  const server = createServer((socket) => {
    socket.once('data', () => socket.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stream = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const stdout = new PassThrough()
  const client = new ExecClient(stream, { command: ['true'] }, { stdout, stderr: stdout })
  await t.rejects(client.exit, { name: 'ExecFailed' })
  server.close()
})

t.test('who has read enough ends the command, as with a pipe', async (t) => {
  const { stream, served } = await open(t)
  const stdout = new PassThrough()
  const client = new ExecClient(stream, { command: ['yes'] }, { stdout, stderr: new PassThrough() })
  await once(stdout, 'data')
  stdout.destroy()
  t.same(await client.exit, { code: null, signal: 'SIGPIPE' })
  await served
})

t.test('why a command cannot be started is told, as far as it is fit to be', async (t) => {
  const refused = await open(t, async () => {
    throw new Conflict('The environment is not running.')
  })
  const stdout = new PassThrough()
  const first = new ExecClient(refused.stream, { command: ['true'] }, { stdout, stderr: stdout })
  await t.rejects(first.exit, { name: 'ExecFailed', message: 'The environment is not running.' })
  await refused.served

  const broken = await open(t, async () => {
    throw new Error('/var/lib/coffer/environments: no such file')
  })
  const second = new ExecClient(broken.stream, { command: ['true'] }, { stdout, stderr: stdout })
  await t.rejects(second.exit, { name: 'ExecFailed', message: 'The command could not be started.' })
  await t.rejects(broken.served, { message: /no such file/ }, 'and the runner learns of a defect')
})

async function answers(stream: Socket): Promise<Frame[]> {
  const frames: Frame[] = []
  for await (const frame of readFrames(stream)) frames.push(frame)
  return frames
}

function header(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(5)
  bytes[0] = type
  bytes.writeUInt32BE(length, 1)
  return bytes
}

const startBytes = (request: unknown) => {
  const payload = Buffer.from(JSON.stringify(request))
  return Buffer.concat([header(FRAME.start, payload.length), payload])
}

t.test('nonsense ends the session with an error, and the process with it', async (t) => {
  const cat = startBytes({ command: ['cat'] })
  const nonsense: [string, Buffer, RegExp][] = [
    ['bytes of chance', Buffer.alloc(100, 0xee), /payload of more than/],
    ['a payload that is too long', header(FRAME.start, MAX_PAYLOAD_BYTES + 1), /payload of more than/],
    ['no start', header(FRAME.stdinEnd, 0), /first frame/],
    ['no JSON', Buffer.concat([header(FRAME.start, 1), Buffer.from('{')]), /has to be JSON/],
    ['null', startBytes(null), /has to be JSON/],
    ['no command', startBytes({}), /command has to be/],
    ['an empty command', startBytes({ command: [] }), /command has to be/],
    ['a command with NUL', startBytes({ command: ['a\0b'] }), /command has to be/],
    ['a command that is no text', startBytes({ command: [1] }), /command has to be/],
    ['a folder that is none', startBytes({ command: ['a'], workingDirectory: 7 }), /workingDirectory/],
    ['a terminal of no size', startBytes({ command: ['a'], terminal: { rows: 0 } }), /terminal/],
    ['a size that is none', Buffer.concat([cat, header(FRAME.resize, 2), Buffer.from('{}')]), /size of a/],
    ['a frame of the runner', Buffer.concat([cat, header(FRAME.exit, 0)]), /does not send/],
    ['a second start', Buffer.concat([cat, cat]), /does not send/],
    [
      'a signal that may not be sent',
      Buffer.concat([cat, header(FRAME.signal, 4), Buffer.from('SIGX')]),
      /signal/
    ],
    [
      'more stdin than there is room for',
      Buffer.concat([
        startBytes({ command: ['sleep', '1000'] }),
        header(FRAME.stdin, MAX_PAYLOAD_BYTES),
        Buffer.alloc(MAX_PAYLOAD_BYTES)
      ]),
      /bytes of stdin/
    ]
  ]
  for (const [name, bytes, message] of nonsense) {
    const { stream, served } = await open(t)
    stream.write(bytes)
    const last = (await answers(stream)).at(-1)!
    t.equal(last.type, FRAME.error, name)
    t.match(JSON.parse(String(last.payload)).message, message, name)
    stream.destroy()
    await served
  }
})

t.test('a stream that closes before, or in the middle of, the start ends quietly', async (t) => {
  for (const bytes of [Buffer.alloc(0), Buffer.from([FRAME.start, 0, 0])]) {
    const { stream, served } = await open(t)
    stream.end(bytes)
    stream.resume()
    await served
  }
  t.pass('nothing is left')
})

t.test('frames are found wherever the stream is cut', async (t) => {
  const bytes = Buffer.concat([
    header(7, 3),
    Buffer.from('abc'),
    header(8, 0),
    header(9, 1),
    Buffer.from('d')
  ])
  for (let size = 1; size <= bytes.length; size++) {
    const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
      bytes.subarray(index * size, (index + 1) * size)
    )
    const frames: string[] = []
    for await (const { type, payload } of readFrames(Readable.from(pieces))) frames.push(`${type}${payload}`)
    t.same(frames, ['7abc', '8', '9d'], `in pieces of ${size}`)
  }
  const cut = Readable.from([bytes.subarray(0, 6)])
  await t.rejects(readFrames(cut).next(), { name: 'ProtocolError' })
})
