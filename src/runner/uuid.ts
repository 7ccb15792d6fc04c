const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Whether this is an id as the server makes them: what is one is safe as the name of a file. */
export function isUuid(text: unknown): text is string {
  return typeof text === 'string' && UUID.test(text)
}
