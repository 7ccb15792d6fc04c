import type { TokenKind } from '../store/tables.ts'

/** Whom tokens act for. */
export type Bearer = 'user' | 'installation' | 'service-account' | 'environment' | 'runner'

/** How the kinds of tokens differ. Whatever decides about access asks here, never for a kind by its name. */
export interface TokenKindRules {
  /** how its text begins */
  prefix: string
  /** what limits it: scopes, or permissions and a list of repositories */
  limitedBy: 'scopes' | 'permissions'
  /** whom it acts for: a user, or what is no account but acts for itself */
  bearer: Bearer
  /** whether its permissions count on public repositories where its bearer has no role */
  reachesPublic: boolean
  /** what is answered when it does not allow something */
  refusal: string
}

export const TOKEN_KINDS: Readonly<Record<TokenKind, TokenKindRules>> = {
  classic: {
    prefix: 'coffer_pat_',
    limitedBy: 'scopes',
    bearer: 'user',
    reachesPublic: true,
    refusal: 'Must have admin rights to Repository.'
  },
  'fine-grained': {
    prefix: 'coffer_fgt_',
    limitedBy: 'permissions',
    bearer: 'user',
    reachesPublic: true,
    refusal: 'Resource not accessible by personal access token'
  },
  installation: {
    prefix: 'coffer_ins_',
    limitedBy: 'permissions',
    bearer: 'installation',
    reachesPublic: false,
    refusal: 'Resource not accessible by integration'
  },
  'service-account': {
    prefix: 'coffer_sva_',
    limitedBy: 'scopes',
    bearer: 'service-account',
    reachesPublic: true,
    refusal: 'Resource not accessible by service account'
  },
  environment: {
    prefix: 'coffer_env_',
    limitedBy: 'scopes',
    bearer: 'environment',
    reachesPublic: true,
    refusal: 'Resource not accessible by environment'
  },
  runner: {
    prefix: 'coffer_run_',
    limitedBy: 'scopes',
    bearer: 'runner',
    reachesPublic: true,
    refusal: 'Resource not accessible by runner'
  }
}
