#!/usr/bin/env node
// The image and a published package bring built code. A checkout builds what has changed since it was last run,
// into a cache that is found by the sources' times and sizes.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync
} from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const MODULES = path.join(ROOT, 'node_modules')
const KEPT_MS = 7 * 24 * 3600 * 1000

function fingerprint() {
  const hash = createHash('sha256')
  for (const folder of ['src', 'migrations', 'package.json']) {
    const top = path.join(ROOT, folder)
    const files = statSync(top).isDirectory() ? readdirSync(top, { recursive: true }).sort() : ['']
    for (const file of files) {
      const { mtimeMs, size } = statSync(path.join(top, file))
      hash.update(`${folder}/${file} ${mtimeMs} ${size}\n`)
    }
  }
  return hash.digest('hex').slice(0, 16)
}

/** A folder for what is built that belongs to us: beside the packages, or else in our home. */
function cacheFolder() {
  for (const folder of [
    path.join(MODULES, '.cache', 'coffer'),
    path.join(os.homedir(), '.cache', 'coffer')
  ]) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      rmSync(mkdtempSync(path.join(folder, '.try-')), { recursive: true })
      const { uid } = lstatSync(folder)
      if (uid === process.getuid?.() || uid === 0) return folder
    } catch {}
  }
  return mkdtempSync(path.join(os.tmpdir(), 'coffer-'))
}

/** Built under another name and then renamed, so that two starts at once do not disturb each other. */
function buildInto(cache, target) {
  const half = mkdtempSync(path.join(cache, '.new-'))
  const { status } = spawnSync(process.execPath, [path.join(ROOT, 'bin', 'build.mjs'), half], {
    stdio: 'inherit'
  })
  if (status !== 0) {
    rmSync(half, { recursive: true, force: true })
    console.error('coffer: the sources could not be built; run npm install')
    process.exit(1)
  }
  if (path.dirname(path.dirname(cache)) !== MODULES) symlinkSync(MODULES, path.join(half, 'node_modules'))
  try {
    renameSync(half, target)
  } catch {
    rmSync(half, { recursive: true, force: true })
  }
  removeOld(cache)
}

/** What nobody has built for a week; a server that still runs from it has read all of it long ago. */
function removeOld(cache) {
  for (const name of readdirSync(cache)) {
    const folder = path.join(cache, name)
    const { mtimeMs } = statSync(folder, { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() }
    if (Date.now() - mtimeMs > KEPT_MS) rmSync(folder, { recursive: true, force: true })
  }
}

function built() {
  if (!existsSync(path.join(ROOT, 'src'))) return path.join(ROOT, 'dist')
  const cache = cacheFolder()
  const target = path.join(cache, fingerprint())
  if (!existsSync(target)) buildInto(cache, target)
  return target
}

process.setSourceMapsEnabled(true)
await import(pathToFileURL(path.join(built(), 'src', 'cli.js')).href)
