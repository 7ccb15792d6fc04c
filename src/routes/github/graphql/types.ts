const REPOSITORIES = /* GraphQL */ `
    "Those that the account owns and the token may see, at most 100 at once."
    repositories(
      first: Int
      after: String
      privacy: RepositoryPrivacy
      isFork: Boolean
      affiliations: [RepositoryAffiliation]
      ownerAffiliations: [RepositoryAffiliation] = [OWNER, COLLABORATOR]
      orderBy: RepositoryOrder
    ): RepositoryConnection!
`

/**
 * What of GitHub's schema is served: names, types and nullability are GitHub's, so that a query for these fields
 * works at either. https://docs.github.com/graphql/reference
 */
export const TYPES = /* GraphQL */ `
  type Query {
    "Look up an organization by its login."
    organization(login: String!): Organization

    "Look up a repository that the token may see by its owner and name."
    repository(
      owner: String!
      name: String!
      "Whether the name that a repository had before leads to it."
      followRenames: Boolean = true
    ): Repository

    "Look up a user or an organization by its login."
    repositoryOwner(login: String!): RepositoryOwner

    "Look up a user by its login."
    user(login: String!): User

    "The user whose token it is."
    viewer: User!
  }

  "ISO 8601 in UTC, to the second."
  scalar DateTime

  scalar URI

  scalar GitSSHRemote

  interface Node {
    "The same as node_id of the REST API."
    id: ID!
  }

  "A user or an organization."
  interface RepositoryOwner {
    avatarUrl(size: Int): URI!
    id: ID!
    login: String!
    ${REPOSITORIES}
    resourcePath: URI!
    url: URI!
  }

  type User implements Node & RepositoryOwner {
    avatarUrl(size: Int): URI!
    createdAt: DateTime!
    databaseId: Int
    "Empty for everybody but the viewer."
    email: String!
    id: ID!
    isSiteAdmin: Boolean!
    isViewer: Boolean!
    login: String!
    name: String
    ${REPOSITORIES}
    resourcePath: URI!
    updatedAt: DateTime!
    url: URI!
  }

  type Organization implements Node & RepositoryOwner {
    avatarUrl(size: Int): URI!
    createdAt: DateTime!
    databaseId: Int
    description: String
    id: ID!
    login: String!
    name: String
    ${REPOSITORIES}
    resourcePath: URI!
    updatedAt: DateTime!
    url: URI!
  }

  "Secrets need little of a repository; what is about code and issues says that there are none."
  type Repository implements Node {
    createdAt: DateTime!
    databaseId: Int
    defaultBranchRef: Ref
    description: String
    forkCount: Int!
    hasDiscussionsEnabled: Boolean!
    hasIssuesEnabled: Boolean!
    hasProjectsEnabled: Boolean!
    hasWikiEnabled: Boolean!
    homepageUrl: URI
    id: ID!
    isArchived: Boolean!
    isDisabled: Boolean!
    isFork: Boolean!
    isInOrganization: Boolean!
    isMirror: Boolean!
    isPrivate: Boolean!
    isTemplate: Boolean!
    mergeCommitAllowed: Boolean!
    mirrorUrl: URI
    name: String!
    nameWithOwner: String!
    owner: RepositoryOwner!
    "Always null: there are no forks."
    parent: Repository
    pushedAt: DateTime
    rebaseMergeAllowed: Boolean!
    resourcePath: URI!
    squashMergeAllowed: Boolean!
    sshUrl: GitSSHRemote!
    stargazerCount: Int!
    updatedAt: DateTime!
    url: URI!
    viewerCanAdminister: Boolean!
    viewerPermission: RepositoryPermission
    visibility: RepositoryVisibility!
  }

  type Ref {
    name: String!
    prefix: String!
  }

  type RepositoryConnection {
    edges: [RepositoryEdge]
    nodes: [Repository]
    pageInfo: PageInfo!
    totalCount: Int!
  }

  type RepositoryEdge {
    cursor: String!
    node: Repository
  }

  type PageInfo {
    endCursor: String
    hasNextPage: Boolean!
    hasPreviousPage: Boolean!
    startCursor: String
  }

  enum RepositoryPermission {
    ADMIN
    MAINTAIN
    READ
    TRIAGE
    WRITE
  }

  enum RepositoryVisibility {
    INTERNAL
    PRIVATE
    PUBLIC
  }

  enum RepositoryPrivacy {
    PRIVATE
    PUBLIC
  }

  enum RepositoryAffiliation {
    COLLABORATOR
    ORGANIZATION_MEMBER
    OWNER
  }

  input RepositoryOrder {
    direction: OrderDirection!
    field: RepositoryOrderField!
  }

  enum OrderDirection {
    ASC
    DESC
  }

  enum RepositoryOrderField {
    CREATED_AT
    NAME
    PUSHED_AT
    STARGAZERS
    UPDATED_AT
  }
`
