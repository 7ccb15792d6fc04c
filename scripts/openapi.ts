import { writeFile } from 'node:fs/promises'
import { describeGitHubApi } from './describe.ts'

// npm run openapi: writes openapi/github.json from the routes.

await writeFile('openapi/github.json', `${JSON.stringify(await describeGitHubApi(), null, 2)}\n`)
