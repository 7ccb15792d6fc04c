import t from 'tap'
import { readRemote } from '../../src/environments/repositories.ts'

const HOSTS = new Set(['coffer.example', 'git.example:8443', '[::1]:3000'])
const WEB = { owner: 'acme', repo: 'web' }

t.test('remotes that are on one of these hosts', async (t) => {
  const remotes: [string, object][] = [
    ['https://coffer.example/acme/web.git', WEB],
    ['https://coffer.example/acme/web', WEB],
    ['https://coffer.example/acme/web/', WEB],
    ['https://coffer.example//acme/web.git', WEB],
    ['http://coffer.example/acme/web.git', WEB],
    ['HTTPS://COFFER.example/acme/web.git', WEB],
    ['https://coffer.example:443/acme/web.git', WEB],
    ['http://coffer.example:80/acme/web.git', WEB],
    ['https://mia@coffer.example/acme/web.git', WEB],
    ['https://mia:hush@coffer.example/acme/web.git', WEB],
    ['https://git.example:8443/acme/web.git', WEB],
    ['https://GIT.EXAMPLE:8443/acme/web.git', WEB],
    ['https://[::1]:3000/acme/web.git', WEB],
    ['ssh://git@coffer.example/acme/web.git', WEB],
    ['ssh://git@COFFER.example/acme/web.git', WEB],
    ['ssh://git@git.example:8443/acme/web.git', WEB],
    ['git@coffer.example:acme/web.git', WEB],
    ['git@Coffer.Example:acme/web', WEB],
    ['https://coffer.example/other/../acme/web.git', WEB],
    ['https://coffer.example/acme/we%62.git', WEB],
    ['https://coffer.example/Acme/Web.git', { owner: 'Acme', repo: 'Web' }],
    ['https://coffer.example/acme/web.git.git', { owner: 'acme', repo: 'web.git' }],
    ['https://coffer.example/acme/.github', { owner: 'acme', repo: '.github' }]
  ]
  for (const [remote, expected] of remotes) t.strictSame(readRemote(remote, HOSTS), expected, remote)
})

t.test('all others', async (t) => {
  const remotes = [
    '',
    'acme/web',
    '/srv/git/acme/web.git',
    './acme/web.git',
    'file:///acme/web.git',
    'file://coffer.example/acme/web.git',
    'git://coffer.example/acme/web.git',
    'ext::sh -c id',
    'javascript://coffer.example/acme/web',
    // other hosts, however alike
    'https://example/acme/web.git',
    'https://coffer.example.evil.example/acme/web.git',
    'https://evil-coffer.example/acme/web.git',
    'https://coffer.example@evil.example/acme/web.git',
    'https://coffer.example:x@evil.example/acme/web.git',
    'https://evil.example/coffer.example/acme/web.git',
    'https://evil.example#coffer.example/acme/web.git',
    'https://evil.example?coffer.example/acme/web.git',
    'https://coffer.example./acme/web.git',
    'https://cоffer.example/acme/web.git',
    'git@evil.example:coffer.example/acme/web.git',
    'git@coffer.example@evil.example:acme/web.git',
    // other ports
    'https://coffer.example:8443/acme/web.git',
    'https://git.example/acme/web.git',
    'ssh://git@coffer.example:2222/acme/web.git',
    // what git and a browser read in different ways
    'https://coffer.example\\acme/web.git',
    'https://coffer.example\\@evil.example/web.git',
    'https:\\\\coffer.example\\acme\\web.git',
    'https:coffer.example/acme/web.git',
    'https:///coffer.example/acme/web.git',
    // not two segments
    'https://coffer.example/',
    'https://coffer.example/acme',
    'https://coffer.example/acme/web/tree/main',
    'https://coffer.example/acme/web.git?ref=main',
    'https://coffer.example/acme/web.git#main',
    'https://coffer.example/acme/../web.git',
    'https://coffer.example/acme/%2e%2e/web.git',
    'git@coffer.example:/acme/web.git',
    // what no repository is called
    'https://coffer.example/ac%2Fme/web.git',
    'https://coffer.example/acme/we%2Fb.git',
    'https://coffer.example/acme/web%00.git',
    'https://coffer.example/acme/web%0a.git',
    'https://coffer.example/acme/web%zz.git',
    'https://coffer.example/acme/web%ff.git',
    'https://coffer.example/ac me/web.git',
    'https://coffer.example/acme/.git',
    'https://coffer.example/acme/ẅeb.git'
  ]
  for (const remote of remotes) t.equal(readRemote(remote, HOSTS), undefined, JSON.stringify(remote))
})

t.test('none where no host is known', async (t) => {
  t.equal(readRemote('https://coffer.example/acme/web.git', new Set()), undefined)
})
