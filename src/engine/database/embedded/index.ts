import { stat } from 'node:fs/promises'
import { systemClock } from '../../../kernel/clock.ts'
import { chooseAccount } from './account.ts'
import { findPackage, prepareBinaries } from './binaries.ts'
import { createCluster, sweepWorkFolders } from './cluster.ts'
import { findData, giveTo, openFolder, readPassword } from './folder.ts'
import { createServer } from './server.ts'
import { checkSettings } from './settings.ts'

/** The PostgreSQL that runs when no DATABASE_URL is given. */
export interface EmbeddedPostgres {
  /** postgres://kerp:<password>@127.0.0.1:<port>/kerp */
  readonly url: string
  /** 18.x */
  readonly version: string
  /** The folder where PostgreSQL's files really are. */
  readonly dataDir: string
  /** This process started it, and stops it; otherwise another live process of ours did. It may change with `ensure`. */
  readonly owner: boolean
  /** Makes sure the server runs; starts it again after a crash, on the same port. Concurrent calls share. */
  ensure(): Promise<void>
  /** As owner: shuts it down fast and waits for its end. Otherwise only lets go. */
  stop(): Promise<void>
}

export interface EmbeddedOptions {
  /** KERP_DATA_DIR */
  folder: string
  log?: (line: string) => void
  /** Of PostgreSQL, such as `work_mem`. */
  settings?: Record<string, string>
}

/**
 * Starts PostgreSQL on the folder, or attaches to the one that runs there. However this process ends, the server it
 * started ends too: a watchdog sees to that (launch.ts). Nothing here keeps the process alive.
 */
export async function openEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const { log = () => undefined, settings = {} } = options
  checkSettings(settings)
  const found = await findPackage()
  const folder = await openFolder(options.folder)
  await sweepWorkFolders(folder.path)

  const existing = await findData(folder, found.major)
  const account = await chooseAccount(existing === undefined ? undefined : await stat(existing))
  const native = () => prepareBinaries(found, account, folder.path)

  let dataDir = existing
  if (dataDir === undefined) {
    log(`creating a PostgreSQL ${found.major} database in ${folder.data}`)
    dataDir = await createCluster(folder, await native(), found.major, account)
    if (dataDir !== folder.data) log(`its files are in ${dataDir}, where the user ${account?.name} can reach them`)
  } else {
    await giveTo(account, dataDir)
  }
  const password = await readPassword(dataDir)
  const [version] = /^\d+\.\d+/.exec(found.version) ?? [String(found.major)]
  const where = { folder, dataDir, password, account }
  const server = createServer({ ...where, native, settings, version, log, clock: systemClock })
  try {
    await server.ensure()
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}
