#!/usr/bin/env node
// In the checkout the sources run as they are; the image and a published package bring built code.
import { existsSync } from 'node:fs'

const built = new URL('../dist/src/cli.js', import.meta.url)
const sources = new URL('../src/cli.ts', import.meta.url)

if (existsSync(sources)) {
  const { register } = await import('tsx/esm/api')
  register()
  await import(sources.href)
} else {
  await import(built.href)
}
