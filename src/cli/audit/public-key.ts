import type { Command } from 'commander'
import { auditKeyFileOf } from '../../audit/jobs.ts'
import { readAuditKey } from '../../audit/key.ts'
import { loadConfig, readEnvironment } from '../../config.ts'
import { RefusedToStart } from '../../errors.ts'
import { printJson } from '../terminal.ts'

const HELP = `
It reads the key file that the server's configuration names, and prints the public half. Keep it, with checkpoints,
where nobody can change it who can write to the database; keep old ones too when the key was replaced.

Example:
  $ npx coffer audit public-key > audit-key.pub`

export function addAuditPublicKey(audit: Command): void {
  audit
    .command('public-key')
    .description('Print the public key that checkpoints are verified with.')
    .option('--json', 'print JSON')
    .addHelpText('after', HELP)
    .action(run)
}

async function run({ json }: { json?: true }): Promise<void> {
  const { config } = loadConfig(readEnvironment())
  const file = auditKeyFileOf(config)
  const key = await readAuditKey(file)
  if (!key) {
    throw new RefusedToStart(
      `There is no audit key in ${file}: the server makes it at its first start. Set COFFER_DATA_DIR or ` +
        "COFFER_AUDIT_KEY_FILE as the server's are."
    )
  }
  if (json) {
    printJson({ fingerprint: key.fingerprint, public_key: key.publicKey })
    return
  }
  process.stdout.write(key.publicKey)
  process.stderr.write(`Fingerprint: ${key.fingerprint}\n`)
}
