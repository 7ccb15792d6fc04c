// Turns the TypeScript sources into JavaScript beside a package.json, file by file. Used by the image, and by
// `bin/coffer.mjs` in a checkout. A process of its own: the server stays free of the compiler and its memory.
import { cp, readdir } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const FOLDERS = ['src', 'migrations']

/** Each source is an output of its own, so an import of another keeps its place and changes its ending. */
const keepImports = {
  name: 'keep imports',
  setup({ onResolve }) {
    onResolve({ filter: /^\.{1,2}\/.*\.ts$/ }, ({ kind, path: file }) =>
      kind === 'entry-point' ? undefined : { path: file.replace(/\.ts$/, '.js'), external: true }
    )
  }
}

async function sources() {
  const lists = FOLDERS.map(async (folder) => {
    const files = await readdir(path.join(ROOT, folder), { recursive: true })
    return files.filter((file) => /(?<!\.d)\.ts$/.test(file)).map((file) => path.join(ROOT, folder, file))
  })
  return (await Promise.all(lists)).flat()
}

const target = process.argv[2]
await build({
  entryPoints: await sources(),
  outbase: ROOT,
  outdir: target,
  bundle: true,
  packages: 'external',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: 'inline',
  sourcesContent: false,
  logLevel: 'error',
  plugins: [keepImports]
})
await cp(path.join(ROOT, 'package.json'), path.join(target, 'package.json'))
