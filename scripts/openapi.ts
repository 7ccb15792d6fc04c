import { writeFile } from 'node:fs/promises'
import { describeGitHubApi, describeOnaApi } from './describe.ts'

// npm run openapi: writes openapi/github.json from the routes, and openapi/ona.json from the services.

const write = (file: string, description: object) =>
  writeFile(`openapi/${file}`, `${JSON.stringify(description, null, 2)}\n`)

await write('github.json', await describeGitHubApi())
await write('ona.json', describeOnaApi())
