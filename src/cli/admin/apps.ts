import { Argument, type Command, InvalidArgumentError } from 'commander'
import { RefusedToStart } from '../../errors.ts'
import { parseLogin } from '../names.ts'
import { printJson, printTable } from '../terminal.ts'
import type { AppSummary, Grant, InstallationSummary, PermissionMap } from './app-administration.ts'
import {
  administer,
  type CommonOptions,
  describePermissions,
  group,
  leaf,
  parsePermissions,
  report,
  requireYes,
  withJson
} from './common.ts'
import { writePrivateKey } from './private-key-file.ts'

interface AppOptions extends CommonOptions {
  owner: string
  permissions?: PermissionMap
  description?: string
  keyFile?: string
}

interface GrantOptions extends CommonOptions {
  account: string
  repos?: string[]
  allRepositories?: true
  permissions?: PermissionMap
}

const CREATE_EXAMPLE = `admin app create "Deploy bot" --owner acme --permissions codespaces_secrets=write --key-file deploy-bot.pem
  $ npx coffer admin app install deploy-bot --account acme --repos web,api

Without --key-file the private key is printed, alone on standard output. It is shown this once; what is stored is the
public key.`

export function addAppCommands(admin: Command): void {
  const app = group(admin, 'app', 'Register GitHub Apps, and install them.')

  withJson(leaf(app, 'create', 'Register an App, with its first key.', CREATE_EXAMPLE))
    .argument('<name>', 'its name; the slug by which the other commands know it is made of that')
    .requiredOption('--owner <login>', 'the user or organization that owns it', parseLogin)
    .requiredOption('--permissions <name=level,…>', 'what it asks for at most', parsePermissions)
    .option('--description <text>', 'what it is for')
    .option('--key-file <file>', 'where to write the private key, mode 0600')
    .action(async (name: string, { permissions, ...options }: AppOptions) => {
      const { owner, description } = options
      const order = {
        name,
        owner,
        permissions: permissions!,
        ...(description !== undefined && { description })
      }
      await withKey(
        options,
        () => administer(options, ({ apps }) => apps.create(order)),
        ({ slug, id, client_id }) => `App ${slug} registered, id ${id}, client id ${client_id}.`
      )
    })

  withJson(leaf(app, 'list', 'List Apps.', 'admin app list')).action(async (options: CommonOptions) => {
    const apps = await administer(options, (administration) => administration.apps.list())
    if (options.json) return printJson(apps)
    printTable(
      ['APP', 'ID', 'CLIENT ID', 'OWNER', 'INSTALLED', 'PERMISSIONS'],
      apps.map(({ slug, id, client_id, owner, installations_count, permissions }) => [
        slug,
        String(id),
        client_id,
        owner,
        String(installations_count),
        describePermissions(permissions)
      ])
    )
  })

  withJson(
    leaf(
      app,
      'update',
      'Change what an App asks for: installations lose at once what it loses, and gain nothing by themselves.',
      'admin app update deploy-bot --permissions codespaces_secrets=write,members=read'
    )
  )
    .addArgument(slug())
    .option('--permissions <name=level,…>', 'what it asks for from now on', parsePermissions)
    .option('--description <text>', 'what it is for')
    .action(async (slug: string, { permissions, description, ...options }: AppOptions) => {
      if (!permissions && description === undefined) {
        throw new RefusedToStart('Give --permissions, --description or both.')
      }
      const change = {
        ...(permissions && { permissions }),
        ...(description !== undefined && { description })
      }
      const updated = await administer(options, ({ apps }) => apps.update(slug, change))
      report(options.json, updated, `App ${slug} asks for ${describePermissions(updated.permissions)}.`)
    })

  leaf(
    app,
    'delete',
    'Delete an App with its keys, installations and tokens.',
    'admin app delete deploy-bot --yes'
  )
    .addArgument(slug())
    .option('--yes', 'do it: it cannot be undone')
    .action(async (slug: string, options: CommonOptions & { yes?: true }) => {
      requireYes(options, `This deletes the App ${slug} with its keys, installations and tokens.`)
      await administer(options, ({ apps }) => apps.delete(slug))
      report(undefined, {}, `App ${slug} deleted.`)
    })

  addKeyCommands(group(app, 'key', "List, replace and delete an App's keys."))
  addInstallationCommands(app)
}

function addKeyCommands(key: Command): void {
  withJson(leaf(key, 'list', 'List the keys of an App.', 'admin app key list deploy-bot'))
    .addArgument(slug())
    .action(async (slug: string, options: CommonOptions) => {
      const keys = await administer(options, ({ apps }) => apps.listKeys(slug))
      if (options.json) return printJson(keys)
      printTable(
        ['ID', 'FINGERPRINT', 'CREATED', 'VALID'],
        keys.map(({ id, fingerprint, created_at, valid }) => [
          String(id),
          fingerprint,
          created_at,
          valid ? 'yes' : 'no: of a restored backup'
        ])
      )
    })

  withJson(
    leaf(
      key,
      'rotate',
      'Make a new key, and delete those that were there before.',
      'admin app key rotate deploy-bot --key-file deploy-bot-2.pem'
    )
  )
    .addArgument(slug())
    .option('--key-file <file>', 'where to write the private key, mode 0600')
    .option('--keep', 'leave the keys before as they are; delete them when the new one is in use')
    .action(async (slug: string, options: CommonOptions & { keyFile?: string; keep?: true }) => {
      // The old ones go only when the new one is written: whatever fails, one of them is in hand.
      const made = await withKey(
        options,
        () => administer(options, ({ apps }) => apps.createKey(slug)),
        ({ id, fingerprint }) => `Key ${id} of ${slug} made (${fingerprint}).`
      )
      if (options.keep) return
      const deleted = await administer(options, async ({ apps }) => {
        const old = (await apps.listKeys(slug)).filter(({ id }) => id < made.id)
        for (const { id } of old) await apps.deleteKey(slug, id)
        return old.map(({ id }) => id)
      })
      process.stderr.write(`${deleted.length} earlier key${deleted.length === 1 ? '' : 's'} deleted.\n`)
    })

  leaf(
    key,
    'delete',
    'Delete a key: what it signs is refused at once.',
    'admin app key delete deploy-bot 1000'
  )
    .addArgument(slug())
    .addArgument(new Argument('<id>', 'as coffer admin app key list shows it').argParser(parseId))
    .action(async (slug: string, id: number, options: CommonOptions) => {
      await administer(options, ({ apps }) => apps.deleteKey(slug, id))
      report(undefined, {}, `Key ${id} of ${slug} deleted.`)
    })
}

function addInstallationCommands(app: Command): void {
  const onAccount = (command: Command) =>
    command.addArgument(slug()).requiredOption('--account <login>', 'a user or an organization', parseLogin)
  const granting = (command: Command) =>
    onAccount(withJson(command))
      .option('--repos <names>', 'repositories of the account, separated by commas', parseNames)
      .option('--all-repositories', 'all that the account owns, now and later')
      .option('--permissions <name=level,…>', 'at most what the App asks for', parsePermissions)

  granting(
    leaf(
      app,
      'install',
      'Install an App on an account; without --permissions it gets all that it asks for.',
      'admin app install deploy-bot --account acme --repos web,api'
    )
  ).action(async (slug: string, options: GrantOptions) => {
    const grant = readGrant(options)
    if (!grant.repositories) throw new RefusedToStart('Give --repos or --all-repositories.')
    const installed = await administer(options, ({ apps }) => apps.install(slug, options.account, grant))
    report(options.json, installed, `App ${slug} ${describe(installed)}`)
  })

  granting(
    leaf(
      app,
      'change',
      'Change the repositories or the permissions of an installation, at once.',
      'admin app change deploy-bot --account acme --all-repositories'
    )
  ).action(async (slug: string, options: GrantOptions) => {
    const grant = readGrant(options)
    if (!grant.repositories && !grant.permissions) {
      throw new RefusedToStart('Give --repos, --all-repositories or --permissions.')
    }
    const changed = await administer(options, ({ apps }) =>
      apps.changeInstallation(slug, options.account, grant)
    )
    report(options.json, changed, `App ${slug} ${describe(changed)}`)
  })

  withJson(
    leaf(app, 'installations', 'List where an App is installed.', 'admin app installations deploy-bot')
  )
    .addArgument(slug())
    .action(async (slug: string, options: CommonOptions) => {
      const installations = await administer(options, ({ apps }) => apps.listInstallations(slug))
      if (options.json) return printJson(installations)
      printTable(
        ['ID', 'ACCOUNT', 'REPOSITORIES', 'SUSPENDED', 'PERMISSIONS'],
        installations.map(({ id, account, repository_selection, suspended_at, permissions }) => [
          String(id),
          account,
          repository_selection,
          suspended_at ?? 'no',
          describePermissions(permissions)
        ])
      )
    })

  onAccount(
    leaf(app, 'suspend', 'Suspend an installation.', 'admin app suspend deploy-bot --account acme')
  ).action(async (slug: string, options: GrantOptions) => {
    await administer(options, ({ apps }) => apps.suspend(slug, options.account))
    report(undefined, {}, `App ${slug} is suspended on ${options.account}.`)
  })

  onAccount(
    leaf(app, 'unsuspend', 'Lift a suspension.', 'admin app unsuspend deploy-bot --account acme')
  ).action(async (slug: string, options: GrantOptions) => {
    await administer(options, ({ apps }) => apps.unsuspend(slug, options.account))
    report(undefined, {}, `App ${slug} is no longer suspended on ${options.account}.`)
  })

  onAccount(
    leaf(
      app,
      'uninstall',
      'Remove an App from an account, which revokes its tokens.',
      'admin app uninstall deploy-bot --account acme --yes'
    )
  )
    .option('--yes', 'do it: it cannot be undone')
    .action(async (slug: string, options: GrantOptions & { yes?: true }) => {
      requireYes(options, `This removes the App ${slug} from ${options.account}, with its tokens.`)
      await administer(options, ({ apps }) => apps.uninstall(slug, options.account))
      report(undefined, {}, `App ${slug} is no longer installed on ${options.account}.`)
    })
}

/** Shows a new private key once: in the file that was asked for, or alone on standard output. */
async function withKey<T extends { pem: string }>(
  { json, keyFile }: CommonOptions & { keyFile?: string },
  make: () => Promise<T>,
  sentence: (made: T) => string
): Promise<T> {
  const made = keyFile === undefined ? await make() : await writePrivateKey(keyFile, make)
  const { pem, ...shown } = made
  if (json) {
    printJson(keyFile === undefined ? made : shown)
  } else if (keyFile === undefined) {
    process.stdout.write(pem)
    process.stderr.write(`${sentence(made)} The private key is shown this once.\n`)
  } else {
    process.stdout.write(`${sentence(made)} The private key is in ${keyFile}.\n`)
  }
  return made
}

function readGrant({ repos, allRepositories, permissions }: GrantOptions): Grant {
  if (repos && allRepositories) throw new RefusedToStart('Give --repos or --all-repositories, not both.')
  return {
    ...(repos && { repositories: repos }),
    ...(allRepositories && { repositories: 'all' }),
    ...(permissions && { permissions })
  }
}

function describe({ account, id, repository_selection, permissions }: InstallationSummary): string {
  const which = repository_selection === 'all' ? 'all repositories' : 'selected repositories'
  return `is installed on ${account}, id ${id}: ${which}, ${describePermissions(permissions)}.`
}

// Checked here so that nothing typed can turn into another path; the server decides about the rest.

function slug(): Argument {
  return new Argument('<app>', 'slug of an App').argParser((text: string): AppSummary['slug'] => {
    if (/^[a-z0-9-]{1,64}$/.test(text)) return text
    throw new InvalidArgumentError('A slug has small letters, digits and hyphens only.')
  })
}

function parseId(text: string): number {
  if (/^[1-9][0-9]{0,14}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('An id is a number.')
}

function parseNames(text: string): string[] {
  const names = text
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  if (names.length > 0 && names.every((name) => /^[A-Za-z0-9._-]{1,100}$/.test(name))) return names
  throw new InvalidArgumentError('Write names of repositories, without their owner, separated by commas.')
}
