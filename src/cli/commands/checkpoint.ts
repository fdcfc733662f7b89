/** `cowpoint checkpoint`: the verbs for checkpoints, each a module under checkpoint/ that is loaded when it is asked for. */

import { UsageError } from '../../base/errors.ts'
import { defineCommand } from '../command.ts'
import type { Entry } from '../registry.ts'

function verb(name: string, summary: string, load: Entry['load'], ...aliases: string[]): Entry {
  return { name, aliases, summary, load }
}

const VERBS: readonly Entry[] = [
  verb(
    'create',
    'remember what disks are now, by internal snapshots or frozen layers',
    () => import('./checkpoint/create.ts'),
  ),
  verb('list', 'list checkpoints', () => import('./checkpoint/list.ts')),
  verb('show', 'show all that is known of a checkpoint', () => import('./checkpoint/show.ts')),
  verb('tree', 'draw checkpoints and branches as a tree', () => import('./checkpoint/tree.ts')),
  verb(
    'diff',
    'show which ranges changed from one checkpoint to another',
    () => import('./checkpoint/diff.ts'),
  ),
  verb(
    'restore',
    'bring disks back to a checkpoint',
    () => import('./checkpoint/restore.ts'),
    'revert',
  ),
  verb(
    'delete',
    'remove a checkpoint, and merge what others need',
    () => import('./checkpoint/delete.ts'),
  ),
  verb('prune', 'remove the checkpoints that no rule keeps', () => import('./checkpoint/prune.ts')),
  verb(
    'convert',
    'make an internal checkpoint an external one, or the other way round',
    () => import('./checkpoint/convert.ts'),
  ),
  verb('purge', 'empty the trash of merged layers', () => import('./checkpoint/purge.ts')),
  verb('rename', 'give a checkpoint another name', () => import('./checkpoint/rename.ts')),
  verb(
    'describe',
    'change description and labels of a checkpoint',
    () => import('./checkpoint/describe.ts'),
  ),
  verb('verify', 'check that checkpoints can be restored', () => import('./checkpoint/verify.ts')),
  verb(
    'run-args',
    'print the command lines that start a machine as it was at a checkpoint',
    () => import('./checkpoint/run-args.ts'),
  ),
  verb(
    'adopt',
    'take over snapshots and overlays that other programs made',
    () => import('./checkpoint/adopt.ts'),
  ),
  verb(
    'resume',
    'finish or take back what was cut off, and clean up',
    () => import('./checkpoint/resume.ts'),
  ),
]

/** The verb `checkpoint`. */
export const command = defineCommand({
  name: 'checkpoint',
  summary: 'create, list, restore and merge checkpoints of one or several disks',
  manners: 'cowpoint',
  options: {},
  positionals: [],
  verbs: VERBS,
  notes: [
    'Checkpoints are found through the disks that are named, through --catalogue, or in the present folder. A name can be given as ' +
      'an id too: @ and its first digits.',
  ],
  examples: [
    { line: 'cowpoint checkpoint create before-update disk.qcow2', summary: 'remember' },
    { line: 'cowpoint checkpoint restore before-update disk.qcow2', summary: 'go back' },
  ],
  run: () => {
    throw new UsageError('MISSING_COMMAND', "'checkpoint' needs a verb, such as create or list", {
      context: { verb: 'checkpoint' },
    })
  },
})
