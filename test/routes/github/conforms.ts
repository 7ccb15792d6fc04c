import type { Response } from 'light-my-request'
import type { Test } from 'tap'
import { describedStatuses, schemaValidator, validator } from '../../github-description.ts'

/** Status and body as GitHub describes them: for this operation, else as its errors are everywhere. */
export function conforms(t: Test, id: string, response: Response, status: number): void {
  const name = `${id} ${status}`
  if (!t.equal(response.statusCode, status, `${name}: status`)) t.comment(response.body)
  // GitHub describes 409 in words alone, and sends the body that all its errors have.
  const described = status !== 409 && describedStatuses(id).includes(status)
  if (status === 204) {
    t.ok(described, `${name} is described`)
    t.equal(response.body, '', `${name}: empty`)
    t.equal(response.headers['content-type'], undefined, `${name}: no content-type`)
    t.equal(response.headers['content-length'], undefined, `${name}: no content-length`)
    t.equal(response.headers.etag, undefined, `${name}: no etag`)
    return
  }
  t.equal(response.headers['content-type'], 'application/json; charset=utf-8', `${name}: JSON`)
  const body = response.json()
  if (described) t.same(validator(id, status)(body), [], `${name}: body`)
  if (status < 400) {
    t.ok(described, `${name} is described`)
    return
  }
  if (!described) {
    t.same(schemaValidator(status === 422 ? 'validation-error' : 'basic-error')(body), [], `${name}: body`)
  }
  const members = body.errors
    ? ['message', 'errors', 'documentation_url', 'status']
    : ['message', 'documentation_url', 'status']
  t.same(Object.keys(body), members, `${name}: members`)
  t.equal(body.status, String(status), `${name}: status in the body`)
}
