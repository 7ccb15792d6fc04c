import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import t from 'tap'
import { describeGitHubApi } from '../scripts/describe.ts'
import { CHECKOUT } from './checkout.ts'

interface Operation {
  operationId: string
  tags: string[]
  responses: Record<string, unknown>
}
type Description = { paths: Record<string, Record<string, Operation>> }

const description = (await describeGitHubApi()) as Description
const operations = Object.entries(description.paths).flatMap(([url, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ url, method, operation }))
)

t.test('openapi/github.json is what the routes say; npm run openapi writes it', async (t) => {
  const committed = JSON.parse(await readFile(path.join(CHECKOUT, 'openapi', 'github.json'), 'utf8'))
  t.same(committed, JSON.parse(JSON.stringify(description)))
})

t.test('it is valid OpenAPI 3.1', async (t) => {
  const validator = new Validator()
  const result = await validator.validate(JSON.parse(JSON.stringify(description)))
  t.same(result.errors ?? [], [])
  t.ok(result.valid)
  t.equal(validator.version, '3.1')
})

t.test("operationIds are GitHub's, each used once", async (t) => {
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, ids.length)
  const upstream = JSON.parse(
    await readFile(
      path.join(CHECKOUT, 'node_modules', '@octokit', 'openapi', 'generated', 'api.github.com.json'),
      'utf8'
    )
  ) as Description
  for (const { url, method, operation } of operations) {
    const known = upstream.paths[url]?.[method]
    if (known) t.equal(operation.operationId, known.operationId, `${method} ${url}`)
  }
  const served = new Set(ids)
  const expected = Object.entries(upstream.paths)
    .filter(([url]) => /^\/(user|repos\/\{owner\}\/\{repo\})\/codespaces\/secrets/.test(url))
    .flatMap(([, methods]) => Object.values(methods).map(({ operationId }) => operationId))
  t.equal(expected.length, 14)
  for (const id of expected) t.ok(served.has(id), id)
})

t.test('every operation describes its success and its errors', async (t) => {
  for (const { url, method, operation } of operations) {
    const statuses = Object.keys(operation.responses)
    t.ok(operation.tags.length > 0, `${method} ${url} has a tag`)
    t.ok(statuses.includes('404') || statuses.includes('401'), `${method} ${url} describes errors`)
    t.ok(
      statuses.some((status) => status.startsWith('2')),
      `${method} ${url}`
    )
  }
})
