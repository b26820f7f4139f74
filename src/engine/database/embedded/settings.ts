import { access, constants, statfs } from 'node:fs/promises'
import { KerpError } from '../../../kernel/errors.ts'
import { host } from './connect.ts'

/** What the url depends on, and what keeps two servers apart. */
const ours = [
  'port',
  'listen_addresses',
  'data_directory',
  'config_file',
  'unix_socket_directories',
  'external_pid_file',
]

/** For a developer's machine; the data are as safe as on any server (fsync and synchronous commits stay on). */
const defaults = {
  max_connections: '200',
  shared_buffers: '128MB',
  // Bulk work would otherwise force a checkpoint every few seconds.
  max_wal_size: '2GB',
  checkpoint_timeout: '15min',
  log_checkpoints: 'off',
  // Clients get their errors themselves; their statements may hold what must not be in a file.
  log_min_error_statement: 'panic',
  cluster_name: 'kerp',
}

export function checkSettings(settings: Record<string, string>): void {
  for (const name of Object.keys(settings)) {
    if (/^[a-z_][a-z0-9_.]*$/i.test(name) && !ours.includes(name.toLowerCase())) continue
    throw new KerpError('CONFIG_INVALID', `'${name}' cannot be set for the embedded PostgreSQL`, {
      hint: ours.includes(name.toLowerCase())
        ? 'It is chosen automatically: leave it out.'
        : 'Settings look like work_mem.',
    })
  }
}

/** The settings as `name=value`: on the command line they count, whatever the files in the data folder say. */
export async function settingsFor(port: number, settings: Record<string, string>): Promise<string[]> {
  const all = {
    ...defaults,
    ...(await memorySettings()),
    ...settings,
    listen_addresses: host,
    port: String(port),
    unix_socket_directories: '', // their paths may be 107 bytes long, and nobody needs them
  }
  return Object.entries(all).map(([name, value]) => `${name}=${value}`)
}

/** PostgreSQL's processes share memory through /dev/shm, which containers may lack, or have next to nothing of. */
export async function memorySettings(): Promise<Record<string, string>> {
  if (process.platform !== 'linux') return {}
  try {
    await access('/dev/shm', constants.W_OK)
    const { bavail, bsize } = await statfs('/dev/shm')
    if (bavail * bsize >= 16 * 1024 * 1024) return {}
  } catch {
    // there is none
  }
  return { dynamic_shared_memory_type: 'mmap' }
}
