import { chromium, type Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { startTestServer } from './helper.ts'
import { type Program, testWith } from './installed.ts'

// The documentation at /docs, as people use it: in a browser.

const browser: Program = { file: '/usr/bin/chromium', probe: ['--version'], package: 'chromium' }
const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--no-first-run'
]
const PATIENCE_MS = 30_000
t.setTimeout(7 * PATIENCE_MS)

/** A page, what its console complained of, and every origin that it asked anything of. */
async function openPage(t: Test): Promise<{ page: Page; complaints: string[]; origins: Set<string> }> {
  t.setTimeout(4 * PATIENCE_MS)
  const root = process.getuid?.() === 0
  const chrome = await chromium.launch({
    executablePath: browser.file,
    args: [...FLAGS, ...(root ? ['--no-sandbox'] : [])]
  })
  t.teardown(() => chrome.close())
  const page = await chrome.newPage()
  page.setDefaultTimeout(PATIENCE_MS)
  const complaints: string[] = []
  const origins = new Set<string>()
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  page.on('pageerror', (error) => void complaints.push(error.message))
  page.on('request', (request) => {
    const { protocol, origin } = new URL(request.url())
    if (protocol !== 'data:' && protocol !== 'blob:') origins.add(origin)
  })
  return { page, complaints, origins }
}

async function authorize(page: Page, token: string): Promise<void> {
  await page.locator('button.authorize').first().click()
  const dialog = page.locator('.dialog-ux')
  await dialog.locator('input').fill(token)
  await dialog.locator('button.authorize').click()
  await dialog.getByText('Authorized', { exact: true }).waitFor()
  await dialog.locator('button.btn-done').click()
}

await testWith(t, browser, 'a person authorizes and tries an operation at /docs', async (t) => {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  await server.createRepository(mona, 'web')
  const token = await server.createToken(mona, { scopes: ['repo'] })
  const secrets = '/repos/mona/web/codespaces/secrets'
  const body = await server.seal(secrets, token, 'value')
  await server.request('PUT', `${secrets}/SHOWN_IN_A_BROWSER`, { token, body })

  const base = await server.listen()
  const { page, complaints, origins } = await openPage(t)
  await page.goto(`${base}/docs`)
  await page.getByText('Coffer: GitHub API').waitFor()
  await authorize(page, token)

  const operation = page
    .locator('.opblock-get')
    .filter({ has: page.locator('[data-path="/repos/{owner}/{repo}/codespaces/secrets"]') })
  await operation.locator('.opblock-summary').click()
  await operation.locator('tr[data-param-name="owner"] input').fill('mona')
  await operation.locator('tr[data-param-name="repo"] input').fill('web')
  await operation.getByRole('button', { name: 'Execute' }).click()

  const answer = operation.locator('.live-responses-table')
  await answer.waitFor()
  t.match(await answer.locator('.response-col_status').last().textContent(), /^\s*200\b/)
  const text = await answer.locator('.response-col_description pre').first().textContent()
  const shown = JSON.parse(text ?? '')
  t.equal(shown.total_count, 1)
  t.equal(shown.secrets[0].name, 'SHOWN_IN_A_BROWSER')
  const requested = await operation.locator('.request-url pre').textContent()
  t.equal(requested?.trim(), `${base}${secrets}?per_page=30&page=1`)

  t.same(complaints, [], 'the console is quiet')
  t.same([...origins], [base], 'nothing comes from elsewhere')
  t.notMatch(server.log.join(''), token)
})

await testWith(t, browser, "a person chooses Ona's API and tries a method of it", async (t) => {
  const server = await startTestServer(t, { publicUrl: null })
  const mona = await server.createUser('mona')
  const token = await server.createToken(mona, { scopes: ['codespace'] })
  const secrets = '/user/codespaces/secrets'
  const body = await server.seal(secrets, token, 'value')
  await server.request('PUT', `${secrets}/SHOWN_IN_A_BROWSER`, { token, body })

  const base = await server.listen()
  const { page, complaints, origins } = await openPage(t)
  await page.goto(`${base}/docs`)
  await page.getByText('Coffer: GitHub API').waitFor()
  const choice = page.locator('.topbar select')
  t.same(await choice.locator('option').allTextContents(), ['GitHub', 'Ona'])
  await choice.selectOption({ label: 'Ona' })
  await page.getByText('Coffer: Ona API').waitFor()
  t.equal(await page.getByText('Coffer: GitHub API').count(), 0)
  await authorize(page, token)

  const call = async (method: string) => {
    const operation = page
      .locator('.opblock-post')
      .filter({ has: page.locator(`[data-path="/api/gitpod.v1.${method}"]`) })
    await operation.locator('.opblock-summary').click()
    await operation.getByRole('button', { name: 'Execute' }).click()
    const answer = operation.locator('.live-responses-table')
    await answer.waitFor()
    t.equal(
      (await operation.locator('.request-url pre').textContent())?.trim(),
      `${base}/api/gitpod.v1.${method}`
    )
    const status = await answer.locator('.response-col_status').last().textContent()
    const text = await answer.locator('.response-col_description pre').first().textContent()
    return { status: /\d{3}/.exec(status ?? '')?.[0], body: JSON.parse(text ?? '') }
  }
  const listed = await call('SecretService/ListSecrets')
  t.equal(listed.status, '200')
  t.match(listed.body, { secrets: [{ name: 'SHOWN_IN_A_BROWSER', environmentVariable: true }] })
  t.equal(listed.body.secrets.length, 1)
  t.same(complaints, [], 'the console is quiet')

  const refused = await call('SecretService/DeleteSecret')
  t.match(refused, { status: '404', body: { code: 'not_found' } }, 'the example is a message that is read')

  await page.goto(`${base}/docs?urls.primaryName=Ona`)
  await page.getByText('Coffer: Ona API').waitFor()
  t.equal(await choice.locator('option:checked').textContent(), 'Ona', 'a link leads to it')
  t.same([...origins], [base], 'nothing comes from elsewhere')
  t.notMatch(server.log.join(''), token)
})

await testWith(
  t,
  browser,
  'a token is gone when the page is loaded again, and the refusal is shown',
  async (t) => {
    const server = await startTestServer(t, { publicUrl: null })
    const mona = await server.createUser('mona')
    const token = await server.createToken(mona, { scopes: ['codespace'] })
    const base = await server.listen()
    const { page, origins } = await openPage(t)
    await page.goto(`${base}/docs`)
    const status = async () => {
      const operation = page
        .locator('.opblock-get')
        .filter({ has: page.locator('[data-path="/user/codespaces/secrets"]') })
      await operation.locator('.opblock-summary').click()
      await operation.getByRole('button', { name: 'Execute' }).click()
      const cell = operation.locator('.live-responses-table .response-col_status').last()
      return /\d{3}/.exec((await cell.textContent()) ?? '')?.[0]
    }
    await authorize(page, token)
    t.equal(await status(), '200')
    await page.reload()
    t.equal(await status(), '401', 'the token is gone')
    t.same([...origins], [base])
  }
)
