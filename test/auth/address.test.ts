import t from 'tap'
import { addressKey } from '../../src/auth/address.ts'

const KEYS: Record<string, string> = {
  '192.0.2.1': '192.0.2.1',
  '::ffff:192.0.2.1': '192.0.2.1',
  '::FFFF:192.0.2.1': '192.0.2.1',
  '2001:db8:1:2:3:4:5:6': '2001:db8:1:2::/64',
  '2001:0DB8:0001:0002::1': '2001:db8:1:2::/64',
  '2001:db8:1:2::': '2001:db8:1:2::/64',
  '2001:db8::1': '2001:db8:0:0::/64',
  '2001:db8::3:4:5:6:7': '2001:db8:0:3::/64',
  '::2:3:4:5:6:7:8': '0:2:3:4::/64',
  '64:ff9b::192.0.2.1': '64:ff9b:0:0::/64',
  '1:2:3:4:5:6:192.0.2.1': '1:2:3:4::/64',
  '::1:2:3:4:192.0.2.1': '0:0:1:2::/64',
  'fe80::1%eth0': 'fe80:0:0:0::/64',
  '::1': '0:0:0:0::/64',
  '::': '0:0:0:0::/64',
  '192.0.2.1:1234': 'unknown',
  '::ffff:192.0.2': 'unknown',
  'no address': 'unknown',
  '': 'local'
}

t.test('whom an address stands for', async (t) => {
  for (const [ip, key] of Object.entries(KEYS)) t.equal(addressKey(ip), key, ip)
  t.equal(addressKey(undefined), 'local', 'the unix socket has none')
})
