import type { Static } from '@sinclair/typebox'
import {
  addGroupMember,
  changeGroup,
  createGroup,
  removeGroup,
  removeGroupMember
} from '../../directory/groups.ts'
import { NotFound } from '../../errors.ts'
import {
  findGroup,
  findGroupDescription,
  type GroupDescription,
  type Group as GroupRow,
  type GroupSubject,
  listGroupMemberships,
  listGroups,
  type GroupMembership as MembershipRow
} from '../../store/groups.ts'
import { invalid } from './decode.ts'
import { Ids, Search, some } from './filters.ts'
import { type Call, method, type Service } from './method.ts'
import type { OnaDependencies } from './ona.ts'
import { PaginationRequest, PaginationResponse } from './pagination.ts'
import { compact, Subject, subject, timestamp } from './present.ts'
import { Bool, Empty, Int32, List, Message, required, Text, Timestamp, Uuid } from './schema.ts'

// Groups of users and service accounts, which get roles on projects. https://ona.com/docs/ona/organizations/groups

const Name = { min: 3, max: 80 }
const Description = Text({ max: 255 })

const Group = Message('Group', {
  id: Uuid(),
  organizationId: Uuid(),
  name: Text(),
  systemManaged: Bool({ description: 'It is everyone in the organization, and is not changed' }),
  createdAt: Timestamp(),
  updatedAt: Timestamp(),
  description: Text(),
  memberCount: Int32()
})

const GroupMembership = Message('GroupMembership', {
  id: Uuid(),
  subject: Subject,
  groupId: Uuid(),
  name: Text({ description: 'Of who is in the group' })
})

const GroupRequest = { groupId: Uuid({ required: true }) }
const MemberRequest = {
  ...GroupRequest,
  subject: required({ ...Subject, description: 'A user, or a service account' })
}

function presentGroup({ organization }: Call, row: GroupDescription): Static<typeof Group> {
  return compact({
    id: row.uid,
    organizationId: organization.organization_uid,
    name: row.name,
    systemManaged: row.everyone,
    createdAt: timestamp(row.created_at),
    updatedAt: timestamp(row.updated_at),
    description: row.description,
    memberCount: row.member_count
  })
}

function presentMembership(
  groupId: string,
  { uid, kind, name, membership_uid }: MembershipRow
): Static<typeof GroupMembership> {
  return compact({ id: membership_uid, subject: subject(kind, uid), groupId, name })
}

const KINDS: Readonly<Record<string, GroupSubject['kind']>> = {
  PRINCIPAL_USER: 'user',
  PRINCIPAL_SERVICE_ACCOUNT: 'service-account'
}

function subjectOf({ id, principal }: Static<typeof Subject>): Pick<GroupSubject, 'uid' | 'kind'> {
  if (id === undefined) throw invalid('subject.id', 'is required')
  const kind = principal && KINDS[principal]
  if (kind) return { uid: id, kind }
  throw invalid('subject.principal', `must be ${Object.keys(KINDS).join(' or ')}`)
}

export function groupService({ db, pages }: OnaDependencies): Service {
  const NO_GROUP = 'There is no such group in the organization.'
  const describe = async (call: Call, group: { uid: string } | { name: string }) => {
    const found = await findGroupDescription(db, call.organization.organization_id, group)
    if (!found) throw new NotFound(NO_GROUP)
    return presentGroup(call, found)
  }
  const getGroup = async ({ organization }: Call, uid: string): Promise<GroupRow> => {
    const group = await findGroup(db, organization.organization_id, uid)
    if (!group) throw new NotFound(NO_GROUP)
    return group
  }
  const findMembership = async (
    call: Call,
    group: GroupRow,
    subject: Pick<GroupSubject, 'uid' | 'kind'>
  ): Promise<Static<typeof GroupMembership> | undefined> => {
    const { organization_id } = call.organization
    const page = { after: 0, limit: 1 }
    const [found] = await listGroupMemberships(db, organization_id, group.id, { subject }, page)
    return found && presentMembership(group.uid, found)
  }

  return {
    name: 'GroupService',
    description: 'Groups of users and service accounts',
    methods: [
      method({
        name: 'CreateGroup',
        summary: 'Create a group',
        access: 'organization:administer',
        request: Message('CreateGroupRequest', {
          organizationId: Uuid({ description: 'The one that the token acts in; unset: the same' }),
          name: Text({ required: true, ...Name }),
          description: Description
        }),
        response: Message('CreateGroupResponse', { group: Group }),
        async handle({ name, description = '' }, call) {
          const wish = { name: name!, description }
          const uid = await createGroup(db, call.principal, call.organization, wish)
          return { group: await describe(call, { uid }) }
        }
      }),
      method({
        name: 'GetGroup',
        summary: 'Get a group, by its id or its name',
        access: 'organization:read',
        reads: true,
        request: Message(
          'GetGroupRequest',
          { groupId: Uuid({ description: 'Deprecated: `id`' }), id: Uuid(), name: Text(Name) },
          { oneofs: { group: { members: ['id', 'name'] } } }
        ),
        response: Message('GetGroupResponse', { group: Group }),
        async handle({ groupId, id = groupId, name }, call) {
          if (name !== undefined) return { group: await describe(call, { name }) }
          if (id !== undefined) return { group: await describe(call, { uid: id }) }
          throw invalid('group', 'set id or name')
        }
      }),
      method({
        name: 'ListGroups',
        summary: 'List groups, oldest first',
        access: 'organization:read',
        reads: true,
        request: Message('ListGroupsRequest', {
          pagination: PaginationRequest,
          filter: Message('ListGroupsRequest.Filter', {
            search: Search('the name, the description or the id'),
            groupIds: Ids,
            systemManaged: Bool(),
            directShare: Bool({ description: 'No group is made for one share alone' })
          })
        }),
        response: Message('ListGroupsResponse', { pagination: PaginationResponse, groups: List(Group) }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const { search, groupIds, systemManaged, directShare } = input.filter ?? {}
          if (directShare) return { pagination: {} }
          const found = await listGroups(
            db,
            call.organization.organization_id,
            { search: search || undefined, groupUids: some(groupIds), everyone: systemManaged },
            { after: page.after?.[0] ?? 0, limit: page.limit }
          )
          const { rows, pagination } = page.close(found, ({ id }) => [id])
          return compact({ pagination, groups: rows.map((row) => presentGroup(call, row)) })
        }
      }),
      method({
        name: 'UpdateGroup',
        summary: 'Change name or description of a group; what is unset stays',
        access: 'organization:administer',
        request: Message('UpdateGroupRequest', {
          ...GroupRequest,
          name: Text(Name),
          description: Description
        }),
        response: Message('UpdateGroupResponse', { group: Group }),
        async handle({ groupId, name, description }, call) {
          await changeGroup(db, call.principal, call.organization, groupId!, { name, description })
          return { group: await describe(call, { uid: groupId! }) }
        }
      }),
      method({
        name: 'DeleteGroup',
        summary: 'Delete a group, with the roles that it has on projects',
        access: 'organization:administer',
        request: Message('DeleteGroupRequest', GroupRequest),
        response: Empty,
        async handle({ groupId }, { principal, organization }) {
          await removeGroup(db, principal, organization, groupId!)
          return {}
        }
      }),
      method({
        name: 'CreateMembership',
        summary: 'Add a member of the organization, or a service account, to a group',
        access: 'organization:administer',
        request: Message('CreateMembershipRequest', MemberRequest),
        response: Message('CreateMembershipResponse', { member: GroupMembership }),
        async handle(input, call) {
          const subject = subjectOf(input.subject!)
          const { principal, organization } = call
          await addGroupMember(db, principal, organization, input.groupId!, subject)
          const group = await getGroup(call, input.groupId!)
          return compact({ member: await findMembership(call, group, subject) })
        }
      }),
      method({
        name: 'GetMembership',
        summary: 'Get the membership of a user or a service account in a group, if there is one',
        access: 'organization:read',
        reads: true,
        request: Message('GetMembershipRequest', MemberRequest),
        response: Message('GetMembershipResponse', { member: GroupMembership }),
        async handle(input, call) {
          const group = await getGroup(call, input.groupId!)
          return compact({ member: await findMembership(call, group, subjectOf(input.subject!)) })
        }
      }),
      method({
        name: 'ListMemberships',
        summary: 'List who is in a group',
        access: 'organization:read',
        reads: true,
        request: Message('ListMembershipsRequest', {
          pagination: PaginationRequest,
          ...GroupRequest,
          filter: Message('ListMembershipsRequest.Filter', {
            search: Search('the name, the email address, the description or the id')
          })
        }),
        response: Message('ListMembershipsResponse', {
          pagination: PaginationResponse,
          members: List(GroupMembership)
        }),
        async handle(input, call) {
          const page = pages.open<readonly [number]>(call, input)
          const group = await getGroup(call, input.groupId!)
          const found = await listGroupMemberships(
            db,
            call.organization.organization_id,
            group.id,
            { search: input.filter?.search || undefined },
            { after: page.after?.[0] ?? 0, limit: page.limit }
          )
          const { rows, pagination } = page.close(found, ({ id }) => [id])
          return compact({ pagination, members: rows.map((row) => presentMembership(group.uid, row)) })
        }
      }),
      method({
        name: 'DeleteMembership',
        summary: 'Take a user or a service account out of a group',
        access: 'organization:administer',
        request: Message('DeleteMembershipRequest', { membershipId: Uuid({ required: true }) }),
        response: Empty,
        async handle({ membershipId }, { principal, organization }) {
          await removeGroupMember(db, principal, organization, membershipId!)
          return {}
        }
      })
    ]
  }
}
