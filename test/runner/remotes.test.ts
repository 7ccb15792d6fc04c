import t from 'tap'
import { curlResolve, isRefusedAddress, parseRemote, resolveRemote } from '../../src/runner/remotes.ts'

t.test('what a remote can be', async (t) => {
  const remotes: [uri: string, expected: Record<string, unknown>][] = [
    [
      'https://github.com/ona/demo.git',
      { protocol: 'https', host: 'github.com', port: 443, repository: 'demo' }
    ],
    ['https://Git.Example.com:8443/a/b', { host: 'git.example.com', port: 8443, repository: 'b' }],
    ['HTTPS://github.com/a/b/', { protocol: 'https', repository: 'b' }],
    ['http://127.0.0.1:3000/team/tools.git', { protocol: 'http', host: '127.0.0.1', port: 3000 }],
    ['http://git.internal/x', { protocol: 'http', port: 80 }],
    ['http://10.1.2.3/x', { host: '10.1.2.3' }],
    ['http://[::1]:8080/x', { host: '[::1]', port: 8080 }],
    ['https://dev@dev.azure.com/dev/p/_git/r', { uri: 'https://dev@dev.azure.com/dev/p/_git/r' }],
    ['ssh://git@git.example.com:2222/a/b.git', { protocol: 'ssh', port: 2222, repository: 'b' }],
    ['git@github.com:ona/demo.git', { protocol: 'ssh', host: 'github.com', port: 22, repository: 'demo' }],
    ['git.example.com:demo', { protocol: 'ssh', repository: 'demo' }],
    ['git@[::1]:a/b', { protocol: 'ssh', host: '[::1]' }],
    ['https://git.example.com/a/b%20c', { repository: 'b%20c' }],
    ['https://git.example.com/ä/ö.git', { repository: 'ö' }]
  ]
  for (const [uri, expected] of remotes) t.match(parseRemote(uri), expected, uri)
})

t.test('git gets the host in the form that was checked', async (t) => {
  t.equal(parseRemote('http://0x7f.1:80/a').uri, 'http://127.0.0.1:80/a')
  t.equal(parseRemote('http://2130706433/a').uri, 'http://127.0.0.1/a')
  t.equal(parseRemote('HTTPS://GIT.Example.COM/A').uri, 'https://git.example.com/A')
  t.equal(parseRemote('ssh://git@0177.0.0.1/a').uri, 'ssh://git@127.0.0.1/a')
})

t.test('what a remote cannot be, and which rule says so', async (t) => {
  const refused: [uri: string, message: RegExp][] = [
    ['', /cannot be empty/],
    ['file:///etc/passwd', /cannot use file/],
    ['/srv/git/a.git', /path of the machine/],
    ['./a', /path of the machine/],
    ['git://github.com/a/b', /cannot use git/],
    ['ftp://host/a', /cannot use ftp/],
    ['git+ssh://host/a', /cannot use git\+ssh/],
    ['ext::sh -c id', /spaces/],
    ['ext::id', /helper of git/],
    ['fd::17', /helper of git/],
    ['http::http://host/a', /helper of git/],
    ['-uid', /begin with "-"/],
    ['--upload-pack=id', /begin with "-"/],
    ['ssh://-oProxyCommand=id/a', /no valid host/],
    ['-oProxyCommand=id:a', /begin with "-"/],
    ['x@-oProxyCommand=id:a', /no valid host/],
    ['ssh://-x@host/a', /user name/],
    ['-x@host:a', /begin with "-"/],
    ['https://user:password@host/a', /password in it/],
    ['https://:password@host/a', /password in it/],
    ['ssh://user:password@host/a', /password in it/],
    ['https://a@b@host/a', /user name/],
    ['https://host\\@169.254.169.254/a', /backslashes/],
    ['https://host/a b', /spaces/],
    ['https://host/a\nb', /control/],
    ['https://host/a\0b', /control/],
    ['https://host/', /name of a repository/],
    ['https://host', /name of a repository/],
    ['https://host/..', /name of a repository/],
    ['https://host/.git', /name of a repository/],
    ['https:///a', /no valid host/],
    ['https://host:0/a', /no valid host/],
    ['https://host:65536/a', /no valid host/],
    ['https://host:1:2/a', /no valid host/],
    ['https://host%00/a', /no valid host/],
    ['https://bücher.example/a', /xn--/],
    ['https://[fe80::1%25eth0]/a', /no valid host/],
    ['https://1.2.3.256/a', /no valid host/],
    [`https://host/${'a'.repeat(2048)}`, /at most 2048/]
  ]
  for (const [uri, message] of refused)
    t.throws(() => parseRemote(uri), { name: 'RemoteRefused', message }, uri)
})

t.test('a message does not quote a password', async (t) => {
  try {
    parseRemote('https://user:hunter2@host/a')
    t.fail('it is refused')
  } catch (error) {
    t.notMatch(String(error), /hunter2/)
  }
})

t.test('link-local addresses and the metadata of clouds are refused in any form', async (t) => {
  const hosts = [
    '169.254.169.254',
    '169.254.0.1',
    '2852039166',
    '0xa9fea9fe',
    '0xa9.0xfe.0xa9.0xfe',
    '0251.0376.0251.0376',
    '169.254.43518',
    '169.254.169.254.',
    '100.100.100.200',
    '192.0.0.192',
    '168.63.129.16',
    '[fe80::1]',
    '[febf::1]',
    '[fd00:ec2::254]',
    '[fd20:ce::254]',
    '[::ffff:169.254.169.254]',
    '[::ffff:a9fe:a9fe]',
    '[0:0:0:0:0:ffff:a9fe:a9fe]',
    '[::ffff:100.100.100.200]',
    '[::169.254.169.254]',
    '[64:ff9b::169.254.169.254]',
    '[64:ff9b::100.100.100.200]',
    '[2002:a9fe:a9fe::]'
  ]
  for (const host of hosts) {
    t.throws(() => parseRemote(`https://${host}/a`), { message: /link-local/ }, host)
    t.throws(() => parseRemote(`ssh://git@${host}/a`), { message: /link-local/ }, `${host} by ssh`)
    if (!host.startsWith('[')) t.throws(() => parseRemote(`git@${host}:a`), { message: /link-local/ })
  }
  for (const address of [
    '127.0.0.1',
    '10.0.0.1',
    '192.168.1.1',
    '172.16.0.1',
    '100.64.0.1',
    '::1',
    'fd00::1'
  ]) {
    t.notOk(isRefusedAddress(address), address)
  }
})

t.test('a name is resolved once, and git is given what it led to', async (t) => {
  const remote = await resolveRemote(parseRemote('http://localhost:3000/a'))
  t.ok(remote.addresses!.every((address) => ['127.0.0.1', '::1'].includes(address)))
  t.match(curlResolve(remote), /^localhost:3000:(127\.0\.0\.1|\[::1\])/)
  t.equal(curlResolve({ ...remote, addresses: ['10.0.0.1', 'fd00::1'] }), 'localhost:3000:10.0.0.1,[fd00::1]')
  t.equal(curlResolve(await resolveRemote(parseRemote('http://127.0.0.1/a'))), undefined)
  t.equal(curlResolve({ ...remote, protocol: 'ssh' }), undefined)
  await t.rejects(resolveRemote(parseRemote('https://no-such-host.invalid/a')), {
    name: 'RemoteRefused',
    message: /no-such-host\.invalid was not found/
  })
})
