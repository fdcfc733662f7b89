/** All verbs: one line each for the overview, and how to load the module of the one that was asked for. */

import type { Command } from './command.ts'

/** A verb that is not loaded yet. */
export interface Entry {
  readonly name: string
  readonly aliases: readonly string[]
  readonly summary: string
  load(): Promise<{ readonly command: Command }>
}

function entry(name: string, summary: string, load: Entry['load'], ...aliases: string[]): Entry {
  return { name, aliases, summary, load }
}

/** In the order of the overview. */
export const COMMANDS: readonly Entry[] = [
  entry('info', 'show what is known about an image', () => import('./commands/info.ts')),
  entry('create', 'create an empty image', () => import('./commands/create.ts')),
  entry(
    'convert',
    'copy images into another image or format',
    () => import('./commands/convert.ts'),
  ),
  entry('map', 'show which bytes of the disk lie where', () => import('./commands/map.ts')),
  entry(
    'check',
    'check that the tables of an image agree with each other',
    () => import('./commands/check.ts'),
  ),
  entry(
    'inspect',
    'tell whether an untrusted image is safe to read',
    () => import('./commands/inspect.ts'),
  ),
  entry(
    'compare',
    'check whether two images have the same content',
    () => import('./commands/compare.ts'),
  ),
  entry(
    'diff',
    'show which ranges changed between snapshots, layers or images',
    () => import('./commands/diff.ts'),
  ),
  entry(
    'checksum',
    'print or check digests of what images read as',
    () => import('./commands/checksum.ts'),
  ),
  entry(
    'measure',
    'calculate the space that a new image needs',
    () => import('./commands/measure.ts'),
  ),
  entry(
    'snapshot',
    'list, create, apply, delete or extract internal snapshots',
    () => import('./commands/snapshot.ts'),
  ),
  entry(
    'bitmap',
    'add, remove, clear, enable, disable, merge or show a dirty bitmap',
    () => import('./commands/bitmap.ts'),
  ),
  entry('commit', 'push what an overlay holds into its base', () => import('./commands/commit.ts')),
  entry('rebase', 'put an overlay on another base', () => import('./commands/rebase.ts')),
  entry(
    'stream',
    'pull backing data into an image and drop what it stood on',
    () => import('./commands/stream.ts'),
  ),
  entry(
    'usage',
    'show who holds the space in the file of an image',
    () => import('./commands/usage.ts'),
  ),
  entry(
    'compact',
    'make the file of an image shorter, in place',
    () => import('./commands/compact.ts'),
  ),
  entry('resize', 'change the virtual size of an image', () => import('./commands/resize.ts')),
  entry('amend', 'change options of an existing image', () => import('./commands/amend.ts')),
  entry('dd', 'copy blocks of an image into a new one', () => import('./commands/dd.ts')),
  entry('io', 'read, write and query an image by a script', () => import('./commands/io.ts')),
  entry(
    'chain',
    'show the files below and above an image as a tree',
    () => import('./commands/chain.ts'),
  ),
  entry(
    'checkpoint',
    'create, list, restore and merge checkpoints of one or several disks',
    () => import('./commands/checkpoint.ts'),
  ),
  entry(
    'relocate',
    'move or rename a file of a chain and rewrite the names that lead to it',
    () => import('./commands/relocate.ts'),
  ),
  entry(
    'gc',
    'remove unfinished files that killed processes left',
    () => import('./commands/gc.ts'),
  ),
  entry(
    'version',
    'show the versions of cowpoint and of Node',
    () => import('./commands/version.ts'),
  ),
]

/** The verb of that name or alias. */
export function findCommand(name: string): Entry | undefined {
  return COMMANDS.find((one) => one.name === name || one.aliases.includes(name))
}
