import { execFileSync } from 'node:child_process'
import path from 'node:path'

export interface Certificates {
  /** the certificate of the authority, which clients trust */
  authority: string
  /** of the server, for 127.0.0.1 and coffer.test */
  cert: string
  key: string
}

/** A certificate authority of the test's own, and a server's certificate that it signed: files in a folder. */
export function makeCertificates(folder: string): Certificates {
  const file = (name: string) => path.join(folder, name)
  const made = { authority: file('ca.pem'), cert: file('server.pem'), key: file('server.key') }
  const common = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  const request = (args: string[]) =>
    execFileSync('openssl', ['req', '-x509', ...common, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  request(['-subj', '/CN=Test authority', '-keyout', file('ca.key'), '-out', made.authority])
  request([
    ...['-subj', '/CN=Coffer', '-CA', made.authority, '-CAkey', file('ca.key')],
    ...['-addext', 'subjectAltName=IP:127.0.0.1,DNS:coffer.test', '-addext', 'basicConstraints=CA:FALSE'],
    ...['-keyout', made.key, '-out', made.cert]
  ])
  return made
}
