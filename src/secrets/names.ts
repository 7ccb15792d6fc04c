import { InvalidInput } from '../errors.ts'

export const MAX_NAME_LENGTH = 255

const CHARACTERS =
  'Secret names can only contain alphanumeric characters ([a-z], [A-Z], [0-9]) or underscores (_). ' +
  'Spaces are not allowed. Must start with a letter ([a-z], [A-Z]) or underscores (_).'

const GITHUB_NAME = /^[A-Z_][A-Z0-9_]*$/
const RESERVED_PREFIX = 'GITHUB_'

/** Names on GitHub's API have no case: they are stored and shown in upper case. ASCII only, so no locale. */
export function canonicalName(name: string): string {
  return name.replace(/[a-z]+/g, (letters) => letters.toUpperCase())
}

/**
 * The stored form of a name that is to be written through GitHub's API.
 *
 * @throws InvalidInput with GitHub's texts, which tell the rule and not the name
 */
export function requireGitHubName(name: string): string {
  const canonical = canonicalName(name)
  if (!GITHUB_NAME.test(canonical)) throw new InvalidInput(CHARACTERS)
  if (canonical.startsWith(RESERVED_PREFIX)) {
    throw new InvalidInput(`Secret names must not start with ${RESERVED_PREFIX}.`)
  }
  if (canonical.length > MAX_NAME_LENGTH) {
    throw new InvalidInput(`Secret names must not be longer than ${MAX_NAME_LENGTH} characters.`)
  }
  return canonical
}

/** The stored form of a name that is only looked up; undefined when no secret can have it on GitHub's API. */
export function lookupGitHubName(name: string): string | undefined {
  const canonical = canonicalName(name)
  const possible = GITHUB_NAME.test(canonical) && !canonical.startsWith(RESERVED_PREFIX)
  return possible && canonical.length <= MAX_NAME_LENGTH ? canonical : undefined
}
