import t from 'tap'
import { loadClientConfig, loadSecretsClientConfig } from '../../src/config.ts'

t.test('any server of the API may be named; GitHub by its website too', async (t) => {
  const urls: [string | undefined, string][] = [
    [undefined, 'http://127.0.0.1:3000'],
    ['http://127.0.0.1:3000/', 'http://127.0.0.1:3000'],
    ['https://coffer.example.com', 'https://coffer.example.com'],
    ['https://coffer.example.com/api/v3//', 'https://coffer.example.com/api/v3'],
    ['https://ghes.example.com:8443/api/v3', 'https://ghes.example.com:8443/api/v3'],
    ['https://api.github.com', 'https://api.github.com'],
    ['https://api.github.com/', 'https://api.github.com'],
    ['https://github.com', 'https://api.github.com'],
    ['https://www.github.com/mona/web', 'https://api.github.com'],
    ['https://octo.ghe.com', 'https://api.octo.ghe.com'],
    ['https://api.octo.ghe.com', 'https://api.octo.ghe.com'],
    ['https://github.com.example.com', 'https://github.com.example.com'],
    ['https://notgithub.com', 'https://notgithub.com']
  ]
  for (const [COFFER_URL, url] of urls) {
    t.equal(loadSecretsClientConfig({ COFFER_URL, COFFER_TOKEN: 'x' }).url, url, String(COFFER_URL))
  }
})

t.test(
  "GitHub's names for a token count for GitHub alone, and Coffer's tokens do not go there",
  async (t) => {
    const github = { COFFER_URL: 'https://api.github.com' }
    const named = { GH_TOKEN: 'gh', GITHUB_TOKEN: 'github' }
    t.equal(loadSecretsClientConfig({ ...github, ...named }).token, 'gh')
    t.equal(loadSecretsClientConfig({ ...github, GITHUB_TOKEN: 'github' }).token, 'github')
    t.equal(loadSecretsClientConfig({ ...github, ...named, COFFER_TOKEN: 'ours' }).token, 'ours')
    t.equal(loadSecretsClientConfig({ ...github, ...named, COFFER_TOKEN: 'coffer_pat_1' }).token, 'gh')
    t.throws(
      () => loadSecretsClientConfig({ ...github, COFFER_TOKEN: 'coffer_pat_1' }),
      /^GH_TOKEN, GITHUB_TOKEN or COFFER_TOKEN .* must hold a token of GitHub/
    )
    t.throws(
      () => loadSecretsClientConfig(named),
      /^COFFER_TOKEN \(or COFFER_TOKEN_FILE\) must hold a token for/
    )
    t.throws(
      () => loadSecretsClientConfig({ ...named, COFFER_URL: 'https://github.com.example.com' }),
      /COFFER_TOKEN/
    )
    t.throws(() => loadClientConfig({ ...github, ...named }), /a token of an administrator/)
  }
)

t.test('what cannot be right is refused before it is used, without being shown', async (t) => {
  const refused: [Record<string, string>, RegExp][] = [
    [{ COFFER_URL: 'http://api.github.com' }, /must begin with https:\/\/ for GitHub/],
    [{ COFFER_URL: 'https://mona:MARKER@coffer.test' }, /no user, query or fragment/],
    [{ COFFER_URL: 'https://coffer.test/?token=MARKER' }, /no user, query or fragment/],
    [{ COFFER_URL: 'MARKER' }, /must be a URL/],
    [{ COFFER_TOKEN: 'MARKER\nMARKER' }, /something else than one token/],
    [{ COFFER_TOKEN: 'Bearer MARKER' }, /something else than one token/],
    [{ COFFER_TOKEN: 'MÄRKER' }, /something else than one token/]
  ]
  for (const [environment, message] of refused) {
    for (const load of [loadSecretsClientConfig, loadClientConfig]) {
      if (load === loadClientConfig && environment.COFFER_URL === 'http://api.github.com') continue
      let told = ''
      try {
        load({ COFFER_TOKEN: 'x', ...environment })
      } catch (error) {
        told = (error as Error).message
      }
      t.match(told, message)
      t.notMatch(told, /M[AÄ]RKER/)
    }
  }
})
