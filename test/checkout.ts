import { existsSync } from 'node:fs'
import path from 'node:path'

/** The checkout, from the tests as they are written and as they are built. */
export const CHECKOUT = findCheckout(import.meta.dirname)

function findCheckout(folder: string): string {
  return existsSync(path.join(folder, 'package.json')) ? folder : findCheckout(path.dirname(folder))
}
