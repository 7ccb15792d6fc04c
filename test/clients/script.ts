import { spawn } from 'node:child_process'
import type { Program } from '../installed.ts'

/**
 * Runs a script that prints one JSON text, which is what this gives. The script finds the API and a token in the
 * environment, as `API` and `TOKEN`, and further input as JSON in `INPUT`.
 */
export async function runScript<T>(
  { file }: Program,
  args: readonly string[],
  { api, token, input = {} }: { api: string; token: string; input?: unknown }
): Promise<T> {
  const env = { PATH: process.env.PATH ?? '', LANG: 'C.UTF-8', API: api, TOKEN: token }
  const child = spawn(file, args, {
    env: { ...env, INPUT: JSON.stringify(input) },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const [stdout, stderr, code] = await new Promise<[string, string, number | null]>((resolve, reject) => {
    let [output, errors] = ['', '']
    child.stdout.on('data', (piece) => {
      output += piece
    })
    child.stderr.on('data', (piece) => {
      errors += piece
    })
    child.once('error', reject)
    child.once('close', (status) => resolve([output, errors, status]))
  })
  if (code !== 0) throw new Error(`${file} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout) as T
}
