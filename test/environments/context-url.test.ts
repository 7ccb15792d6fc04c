import t from 'tap'
import { sourceOf } from '../../src/environments/context-url.ts'

const HEAD = 'CLONE_TARGET_MODE_REMOTE_HEAD'
const BRANCH = 'CLONE_TARGET_MODE_REMOTE_BRANCH'
const COMMIT = 'CLONE_TARGET_MODE_REMOTE_COMMIT'

t.test('what a context URL leads to', async (t) => {
  const urls: [url: string, remoteUri: string, targetMode: string, cloneTarget: string][] = [
    ['https://git.example/acme/web', 'https://git.example/acme/web', HEAD, ''],
    ['https://git.example/acme/web.git', 'https://git.example/acme/web.git', HEAD, ''],
    ['https://git.example/acme/web/', 'https://git.example/acme/web/', HEAD, ''],
    ['https://git.example/acme/web/tree/main', 'https://git.example/acme/web.git', BRANCH, 'main'],
    ['https://git.example/acme/web/tree/main/', 'https://git.example/acme/web.git', BRANCH, 'main'],
    ['https://git.example/acme/web/-/tree/main', 'https://git.example/acme/web.git', BRANCH, 'main'],
    [
      'https://git.example/acme/web/tree/feature/one',
      'https://git.example/acme/web.git',
      BRANCH,
      'feature/one'
    ],
    ['https://git.example/acme/web/tree/a%23b', 'https://git.example/acme/web.git', BRANCH, 'a#b'],
    ['https://git.example/acme/web/tree/100%25', 'https://git.example/acme/web.git', BRANCH, '100%'],
    ['https://git.example/acme/web/tree/100%', 'https://git.example/acme/web.git', BRANCH, '100%'],
    ['https://git.example/acme/web/commit/0a1b2c', 'https://git.example/acme/web.git', COMMIT, '0a1b2c'],
    ['https://git.example/acme/web/commits/0a1b2c', 'https://git.example/acme/web.git', COMMIT, '0a1b2c'],
    ['http://git.example:3000/acme/web/tree/main', 'http://git.example:3000/acme/web.git', BRANCH, 'main'],
    ['https://git.example/acme/web/tree/', 'https://git.example/acme/web/tree/', HEAD, ''],
    ['https://git.example/acme/web/issues/1', 'https://git.example/acme/web/issues/1', HEAD, ''],
    ['https://git.example/tree/main', 'https://git.example/tree/main', HEAD, ''],
    ['ssh://git@git.example/acme/web/tree/main', 'ssh://git@git.example/acme/web/tree/main', HEAD, '']
  ]
  for (const [url, remoteUri, targetMode, cloneTarget] of urls) {
    t.strictSame(
      sourceOf({ contextUrl: { url } }),
      { remoteUri, targetMode, cloneTarget, upstreamRemoteUri: '', checkoutLocation: '' },
      url
    )
  }
})

t.test('what a git initializer leads to', async (t) => {
  const remoteUri = 'https://git.example/acme/web.git'
  t.strictSame(sourceOf({ git: { remoteUri } }), {
    remoteUri,
    upstreamRemoteUri: '',
    targetMode: HEAD,
    cloneTarget: '',
    checkoutLocation: ''
  })
  t.match(sourceOf({ git: { remoteUri, cloneTarget: 'main' } }), { targetMode: BRANCH, cloneTarget: 'main' })
  t.strictSame(
    sourceOf({
      git: {
        remoteUri,
        upstreamRemoteUri: 'https://git.example/up/web.git',
        targetMode: 'CLONE_TARGET_MODE_REMOTE_TAG',
        cloneTarget: 'v1',
        checkoutLocation: 'src'
      }
    }),
    {
      remoteUri,
      upstreamRemoteUri: 'https://git.example/up/web.git',
      targetMode: 'CLONE_TARGET_MODE_REMOTE_TAG',
      cloneTarget: 'v1',
      checkoutLocation: 'src'
    }
  )
})

t.test('what names nothing is nothing to clone', async (t) => {
  for (const spec of [
    {},
    { git: {} },
    { git: { remoteUri: '' } },
    { contextUrl: {} },
    { contextUrl: { url: '' } }
  ]) {
    t.equal(sourceOf(spec), undefined, JSON.stringify(spec))
  }
})
