import path from 'node:path'
import { text } from 'node:stream/consumers'
import { Bubblewrap } from '../../src/runner/bubblewrap.ts'

// A runner as a process of its own: child-runner.js WORKSPACE HOME SECRETS COMMAND…; prints what the command prints.

const [workspace = '', home = '', secrets = '', ...command] = process.argv.slice(2)
const sandbox = await Bubblewrap.open({ hiddenPaths: [path.dirname(workspace)] })
const child = await sandbox.start({ workspace, home, secrets }, { command, variables: {}, links: new Map() })
child.stdout.pipe(process.stdout)
process.stderr.write(await text(child.stderr))
await child.exit
