import { existsSync, readFileSync } from 'node:fs'

/** Beside the folder of this file, or one higher where tests are built. */
const PACKAGE = ['../package.json', '../../package.json']
  .map((file) => new URL(file, import.meta.url))
  .find((file) => existsSync(file))!

export const VERSION = (JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string }).version
