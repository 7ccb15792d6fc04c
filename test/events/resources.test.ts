import t from 'tap'
import { readEvent } from '../../src/events/resources.ts'

const [STREAM, SUBJECT, OWNER] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()]

function read(action: string, collection: string | null = null, subject: string | null = SUBJECT) {
  const event = readEvent(JSON.stringify({ stream: STREAM, action, collection, subject }))
  const prefixes = /^RESOURCE_(TYPE|OPERATION)_/
  return event && [event.operation.replace(prefixes, ''), event.type.replace(prefixes, ''), event.uid]
}

t.test('what records tell', async (t) => {
  t.strictSame(read('project.create'), ['CREATE', 'PROJECT', SUBJECT])
  t.strictSame(read('project.update'), ['UPDATE', 'PROJECT', SUBJECT])
  t.strictSame(read('project.remove'), ['DELETE', 'PROJECT', SUBJECT])
  t.strictSame(read('project.policy.set.admin'), ['UPDATE', 'PROJECT', SUBJECT])
  t.strictSame(
    read('project.policy.remove'),
    ['UPDATE', 'PROJECT', SUBJECT],
    'a policy goes, the project stays'
  )
  t.strictSame(read('runner.create'), ['CREATE', 'RUNNER', SUBJECT])
  t.strictSame(read('environment_class.update'), ['UPDATE', 'ENVIRONMENT_CLASS', SUBJECT])
  t.strictSame(read('service_account.remove'), ['DELETE', 'SERVICE_ACCOUNT', SUBJECT])
  t.strictSame(read('group.remove'), ['DELETE', 'GROUP', SUBJECT])
  t.strictSame(read('organization.update', null, STREAM), ['UPDATE', 'ORGANIZATION', STREAM])
  t.strictSame(read('membership.set.admin'), ['UPDATE', 'ORGANIZATION', STREAM])
  t.strictSame(read('membership.remove'), ['UPDATE', 'ORGANIZATION', STREAM], 'a member goes, it stays')
  t.strictSame(read('development_environment.status'), ['UPDATE_STATUS', 'ENVIRONMENT', SUBJECT])
  t.strictSame(read('development_environment.create'), ['CREATE', 'ENVIRONMENT', SUBJECT])
  t.strictSame(read('secret.create', `codespaces/project/${OWNER}`), ['CREATE', 'SECRET', SUBJECT])
  t.strictSame(read('secret.update', `codespaces/user/${OWNER}`), ['UPDATE', 'USER_SECRET', SUBJECT])
  t.strictSame(read('secret.remove', `codespaces/organization/${OWNER}`), [
    'DELETE',
    'ORGANIZATION_SECRET',
    SUBJECT
  ])
  t.strictSame(read('secret.create', `codespaces/service-account/${OWNER}`), [
    'CREATE',
    'SERVICE_ACCOUNT_SECRET',
    SUBJECT
  ])
})

t.test('what tells nothing', async (t) => {
  t.equal(read('secret.create', `codespaces/repository/${OWNER}`), undefined)
  t.equal(read('secret.create', `actions/organization/${OWNER}`), undefined)
  t.equal(read('secret.create'), undefined)
  t.equal(read('environment.create'), undefined, 'a deployment environment of a repository')
  t.equal(read('projects'), undefined)
  t.equal(read('project.create', null, null), undefined)
  for (const payload of [
    '',
    '{',
    'null',
    '[]',
    '{"stream":1,"action":"project.create"}',
    '"x"',
    '{"stream":"x"}'
  ]) {
    t.equal(readEvent(payload), undefined, payload)
  }
})
