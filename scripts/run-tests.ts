import { spawn } from 'node:child_process'
import { open, stat } from 'node:fs/promises'
import path from 'node:path'

// Each test file is a process of its own that speaks TAP. Two at a time is what two cores carry.

const JOBS = 2
const FILE_TIMEOUT_MS = 240_000
const SHOWN_LINES = 40

interface Outcome {
  file: string
  passed: boolean
  seconds: number
  output: string
}

function runFile(file: string, env: NodeJS.ProcessEnv): Promise<Outcome> {
  const start = performance.now()
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--enable-source-maps', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...env, TAP_TIMEOUT: String(FILE_TIMEOUT_MS / 1000) }
    })
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk))
    const timer = setTimeout(() => child.kill('SIGKILL'), FILE_TIMEOUT_MS + 10_000)
    child.once('close', (code) => {
      clearTimeout(timer)
      const output = Buffer.concat(chunks).toString('utf8')
      const seconds = (performance.now() - start) / 1000
      resolve({ file, passed: code === 0 && /^1\.\.[1-9]/m.test(output), seconds, output })
    })
  })
}

/** What went wrong, as far as it helps: each failed assertion with its difference. */
function failures(output: string): string {
  const lines = output.split('\n')
  const first = lines.findIndex((line) => /^\s*not ok/.test(line))
  return lines.slice(first < 0 ? -SHOWN_LINES : first, first < 0 ? undefined : first + SHOWN_LINES).join('\n')
}

/** The largest first: they tend to take longest, and the last ones decide when all is done. */
async function bySize(files: readonly string[]): Promise<string[]> {
  const sizes = await Promise.all(files.map(async (file) => ({ file, size: (await stat(file)).size })))
  return sizes.sort((a, b) => b.size - a.size).map(({ file }) => file)
}

/**
 * Runs compiled test files, prints a line for each, and writes all of their TAP to one file.
 *
 * @returns the number of files that failed
 */
export async function runTestFiles(
  files: readonly string[],
  report: string,
  env: NodeJS.ProcessEnv
): Promise<number> {
  const waiting = await bySize(files)
  const tap = await open(report, 'w')
  let done = 0
  let failed = 0
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      const outcome = await runFile(file, env)
      const name = path.relative('build', file).replace(/\.js$/, '.ts')
      const verdict = outcome.passed ? 'ok' : 'not ok'
      done += 1
      if (!outcome.passed) failed += 1
      console.log(
        `${verdict.padEnd(6)} ${name} (${outcome.seconds.toFixed(1)} s, ${done} of ${files.length})`
      )
      if (!outcome.passed) console.log(failures(outcome.output))
      const indented = outcome.output.replace(/^/gm, '    ')
      await tap.write(`# Subtest: ${name}\n${indented}\n${verdict} ${done} - ${name}\n`)
    }
  }
  await Promise.all(Array.from({ length: JOBS }, work))
  await tap.write(`1..${done}\n`)
  await tap.close()
  return failed
}
