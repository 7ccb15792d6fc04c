import { exchangeRunnerToken } from '../../directory/runner-tokens.ts'
import { Unauthenticated } from '../../errors.ts'
import { type Method, method } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { Message, Text } from './schema.ts'

// How a runner gets its token: for an exchange token, which whoever registers it brings to its machine.

const REFUSED = 'The exchange token is not valid: it is unknown, was used, or has ended. Ask for another one.'

export function exchangeMethods({ db, authenticator }: OnaDependencies): Method[] {
  return [
    method({
      name: 'ExchangeToken',
      summary: 'Get the token of a runner for an exchange token, once',
      access: 'open',
      request: Message('ExchangeTokenRequest', { exchangeToken: Text({ required: true, max: 255 }) }),
      response: Message('ExchangeTokenResponse', {
        accessToken: Text({ description: 'Shown once; lives for a day' })
      }),
      async handle({ exchangeToken }, { http }) {
        const from = { requestId: http.id, address: http.ip as string | undefined }
        const accessToken = await exchangeRunnerToken(db, exchangeToken!, from)
        if (accessToken !== undefined) return { accessToken }
        throw await authenticator.refusal(from.address, new Unauthenticated(true, REFUSED))
      }
    })
  ]
}
