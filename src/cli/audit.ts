import { Command } from 'commander'
import { addAuditExport } from './audit/export.ts'
import { addAuditList } from './audit/list.ts'
import { addAuditPublicKey } from './audit/public-key.ts'
import { addAuditVerify } from './audit/verify.ts'
import { refuseMisuse } from './terminal.ts'

const HELP = `
Every change and every refused request is recorded. Records are chained within a second, and every minute a signed
checkpoint of all chains is written to COFFER_AUDIT_CHECKPOINTS (the folder audit in the data folder). Keep copies of
checkpoint.jsonl and of the public key where nobody can change them who can write to the database.

Example, what happened, and whether somebody changed it since:
  $ npx coffer audit list --phrase 'action:secret.remove created:>=2026-11-01'
  $ npx coffer audit public-key > audit-key.pub
  $ npx coffer audit export audit.jsonl
  $ npx coffer audit verify audit.jsonl --checkpoint kept/checkpoint.jsonl --public-key audit-key.pub`

export function auditCommand(): Command {
  const audit = refuseMisuse(new Command('audit'))
    .description('Read the audit log, export it, and verify that nobody changed it.')
    .addHelpText('after', HELP)
  addAuditList(audit)
  addAuditExport(audit)
  addAuditVerify(audit)
  addAuditPublicKey(audit)
  return audit
}
