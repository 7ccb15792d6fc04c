import { InvalidArgumentError } from 'commander'

// Checked here so that nothing typed can turn into another path; the server decides about the rest.

export interface RepositoryName {
  owner: string
  name: string
}

export function fullName({ owner, name }: RepositoryName): string {
  return `${owner}/${name}`
}

export function parseLogin(text: string): string {
  if (/^[A-Za-z0-9_-]{1,255}$/.test(text)) return text
  throw new InvalidArgumentError('A login has letters, digits, hyphens and underscores only.')
}

export function parseRepository(text: string): RepositoryName {
  const [owner = '', name = '', ...rest] = text.split('/')
  const valid = rest.length === 0 && /^[A-Za-z0-9._-]{1,255}$/.test(name) && !/^\.\.?$/.test(name)
  if (valid && /^[A-Za-z0-9_-]{1,255}$/.test(owner)) return { owner, name }
  throw new InvalidArgumentError('A repository is named as OWNER/NAME.')
}
