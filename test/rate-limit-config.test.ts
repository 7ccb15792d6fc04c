import t from 'tap'
import { loadConfig } from '../src/config.ts'

const read = (environment: Record<string, string>) => loadConfig(environment).config.rateLimits

t.test('there are no rate limits unless they are set', async (t) => {
  t.equal(read({}), undefined)
  t.equal(read({ COFFER_RATE_LIMIT: '' }), undefined)
  t.equal(read({ COFFER_RATE_LIMIT: '0' }), undefined)
})

t.test('one number sets the limit of every resource, others each its own', async (t) => {
  t.strictSame(read({ COFFER_RATE_LIMIT: '5000' }), {
    core: 5000,
    codespaces: 5000,
    graphql: 5000,
    address: 60,
    store: 'database'
  })
  t.strictSame(
    read({
      COFFER_RATE_LIMIT: '5000',
      COFFER_RATE_LIMIT_CODESPACES: '1',
      COFFER_RATE_LIMIT_GRAPHQL: '2',
      COFFER_RATE_LIMIT_ADDRESS: '3',
      COFFER_RATE_LIMIT_STORE: 'memory'
    }),
    { core: 5000, codespaces: 1, graphql: 2, address: 3, store: 'memory' }
  )
})

t.test('what is wrong, or would have no effect, is refused by name', async (t) => {
  for (const [environment, message] of [
    [{ COFFER_RATE_LIMIT: '-1' }, /COFFER_RATE_LIMIT must be a whole number from 0 to 1000000000/],
    [{ COFFER_RATE_LIMIT: 'many' }, /COFFER_RATE_LIMIT must be a whole number/],
    [
      { COFFER_RATE_LIMIT: '1', COFFER_RATE_LIMIT_ADDRESS: '0' },
      /COFFER_RATE_LIMIT_ADDRESS must be a whole number from 1/
    ],
    [
      { COFFER_RATE_LIMIT: '1', COFFER_RATE_LIMIT_STORE: 'redis' },
      /COFFER_RATE_LIMIT_STORE must be one of database, memory/
    ],
    [
      { COFFER_RATE_LIMIT_CODESPACES: '9' },
      /COFFER_RATE_LIMIT_CODESPACES counts only with COFFER_RATE_LIMIT;/
    ],
    [
      { COFFER_RATE_LIMIT: '0', COFFER_RATE_LIMIT_STORE: 'memory' },
      /COFFER_RATE_LIMIT_STORE counts only with COFFER_RATE_LIMIT;/
    ]
  ] as const) {
    t.throws(() => read(environment), { message }, JSON.stringify(environment))
  }
})
