import type { Static, TObject } from '@sinclair/typebox'
import type { FastifyRequest } from 'fastify'
import type { AccessName } from '../../auth/access.ts'
import type { Actor } from '../../auth/actor.ts'
import type { TokenPrincipal } from '../../secrets/vault.ts'
import type { Acting } from '../../store/acting.ts'
import type { OrganizationFacts } from '../../store/organizations.ts'
import type { ProjectFacts, ProjectHead } from '../../store/projects.ts'
import type { Lines } from './lines.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** the answer goes on for as long as its reader stays */
    stream?: boolean
  }
}

/** What a handler knows of the request besides its message; where no token is asked for, it is `http` alone. */
export interface Call {
  actor: Actor
  acting: Acting
  principal: TokenPrincipal
  /** where the method's access is about it: the organization that the token acts in */
  organization: OrganizationFacts
  /** where the method's access is about it: the project that the message names */
  project: ProjectFacts
  /** where it is about the secrets of a project: that one */
  secretsOf: ProjectHead
  http: FastifyRequest
}

interface Described<Q extends TObject, R extends TObject> {
  name: string
  summary: string
  /** the permission that it needs, decided before the message is read as far as it does not depend on it */
  access: AccessName
  /** whether it leaves everything as it was; a token that only reads may call it */
  reads?: true
  request: Q
  response: R
}

/** A method is this, and nothing else. */
export interface Method<Q extends TObject = TObject, R extends TObject = TObject> extends Described<Q, R> {
  stream?: never
  handle(input: Static<Q>, call: Call): Promise<Static<R>>
}

/** One that answers many times, each with a message of the type of its response. */
export interface StreamMethod<Q extends TObject = TObject, R extends TObject = TObject>
  extends Described<Q, R> {
  stream: true
  /** decides whether there is a stream; what it gives begins it, and cannot refuse any more */
  open(input: Static<Q>, call: Call): Promise<(lines: Lines<Static<R>>) => void>
}

/** The same, so that the handler's types come from its schemas. */
export function method<Q extends TObject, R extends TObject>(definition: Method<Q, R>): Method {
  return definition as unknown as Method
}

export function streamMethod<Q extends TObject, R extends TObject>(
  definition: StreamMethod<Q, R>
): StreamMethod {
  return definition as unknown as StreamMethod
}

export interface Service {
  /** undefined: Ona's */
  package?: 'coffer.v1'
  /** without its package */
  name: string
  description: string
  methods: readonly (Method | StreamMethod)[]
}

/** Where a method is served, below the base of the API. */
export function pathOf(service: Service, { name }: Pick<Method, 'name'>): string {
  return `/${service.package ?? 'gitpod.v1'}.${service.name}/${name}`
}
