import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { findProcess, hasLiving, programStartedBy, sendSignal } from '../../src/runner/process-table.ts'

/** A shell whose first child stays what a fork leaves, the shell itself, until it is told to go on. */
const FORKED = '(read go; exec sleep 1000) <&3 & wait'

async function seen<T>(look: () => T | undefined): Promise<T> {
  for (;;) {
    const found = look()
    if (found !== undefined) return found
    await sleep(5)
  }
}

t.test('a child is a program of its own from its exec on', async (t) => {
  const shell = spawn('/bin/sh', ['-c', FORKED], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    detached: true
  })
  t.teardown(() => sendSignal(-shell.pid!, 'SIGKILL'))
  const forked = await seen(() => {
    const children = readFileSync(`/proc/${shell.pid}/task/${shell.pid}/children`, 'utf8')
    return children ? Number(children) : undefined
  })
  t.equal(findProcess(forked)?.parent, shell.pid)
  t.equal(programStartedBy(shell.pid!), undefined)
  ;(shell.stdio[3] as NodeJS.WritableStream).write('\n')
  t.equal(await seen(() => programStartedBy(shell.pid!)), forked)
  t.equal(readFileSync(`/proc/${forked}/cmdline`, 'utf8'), 'sleep\x001000\0')
})

t.test('what is gone has no state, no children and gets no signals', async (t) => {
  const child = spawn('true', { detached: true })
  await once(child, 'exit')
  t.equal(findProcess(child.pid!), undefined)
  t.equal(programStartedBy(child.pid!), undefined)
  t.notOk(sendSignal(child.pid!, 'SIGTERM'))
  t.notOk(hasLiving(child.pid!))
})
