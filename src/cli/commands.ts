import type { Command, Group } from './command.ts'

interface Entry {
  readonly summary: string
  /** Loaded when it is called, so that the help is there at once. */
  load(): Promise<Command | Group>
}

export const commands: Readonly<Record<string, Entry>> = {
  start: { summary: 'run the API, the relay and the workers', load: async () => (await import('./start.ts')).start },
  migrate: { summary: 'bring the database up to date', load: async () => (await import('./migrate.ts')).migrate },
  events: {
    summary: 'see what happens, and the life of one event',
    load: async () => (await import('./events.ts')).events,
  },
  outbox: {
    summary: 'see what is still to do, and since when',
    load: async () => (await import('./outbox.ts')).outbox,
  },
  dead: { summary: 'decide about events nobody could do', load: async () => (await import('./dead.ts')).dead },
  doctor: { summary: 'check everything it needs', load: async () => (await import('./doctor.ts')).doctor },
  config: {
    summary: 'list the settings and where each comes from',
    load: async () => (await import('./config.ts')).config,
  },
}
