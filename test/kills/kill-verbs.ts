/** The lines that are killed, each with the verb of the fault loop that says what it may change. */

import { COMMAND_CHECKPOINTS } from '../faults/command-checkpoints.ts'
import { COMMAND_VERBS } from '../faults/command-verbs.ts'

/** One line of the command. */
export interface KillVerb {
  readonly name: string
  readonly words: readonly string[]
  /** The verb of test/faults that does the same in the library. */
  readonly like: string
  /** Guest writes of the line: values and ranges, in order. */
  readonly writes?: readonly {
    readonly value: number
    readonly offset: number
    readonly length: number
  }[]
}

const ALONE = 'alone.qcow2'

function line(name: string, words: string, like = name): KillVerb {
  return { name, words: words.split(' '), like }
}

/** A line of the fault loop, in the current folder. */
function likeFault(name: string): KillVerb {
  const all = [...COMMAND_VERBS, ...COMMAND_CHECKPOINTS]
  const found = all.find((one) => one.name === `line-${name}`)
  if (found === undefined) throw new RangeError(`no line ${name}`)
  const words = found.words.map((word) => word.replace(/^((?:if|of)=)?\/(?=\w)/, '$1'))
  return { name, words, like: found.name }
}

/** All of them; the files of a scene of test/faults are the current folder. */
export const KILL_VERBS: readonly KillVerb[] = [
  line('create', 'create -q -f qcow2 new.qcow2 48K'),
  line('convert', 'convert -O qcow2 top.qcow2 new.qcow2'),
  line('convert-compressed', 'convert -c -O qcow2 top.qcow2 new.qcow2'),
  line('convert-raw', 'convert -O raw top.qcow2 new.raw'),
  line('snapshot-create', `snapshot -c third ${ALONE}`),
  line('snapshot-apply', `snapshot -a first ${ALONE}`),
  line('snapshot-delete', `snapshot -d first ${ALONE}`),
  line('grow', `resize ${ALONE} +10K`),
  line('grow-full', `resize --preallocation=full ${ALONE} +10K`),
  line('shrink', `resize --shrink ${ALONE} 24K`),
  line('compact', `compact -q ${ALONE}`),
  line('amend-width', `amend -q -o refcount_bits=32 ${ALONE}`),
  line('bitmap-add', `bitmap --add ${ALONE} b1`, 'bitmap-add-merge'),
  line('bitmap-remove', `bitmap --remove ${ALONE} b0`),
  line('repair', `check -q -r all --force ${ALONE}`),
  line('commit', 'commit -q --unsafe top.qcow2'),
  line('commit-raw', 'commit -q raw-top.qcow2'),
  line('rebase', 'rebase -b other.qcow2 -F qcow2 top.qcow2'),
  line('stream', 'stream -q top.qcow2'),
  line('relocate-base', 'relocate base.qcow2 moved.qcow2'),
  line('relocate-top', 'relocate top.qcow2 far.qcow2'),
  {
    ...{ name: 'io', like: 'guest' },
    words: [...['io', '-c', 'write -P 7 1k 9k', '-c', 'flush', '-c', 'write -P 8 5k 17k', ALONE]],
    writes: [
      { value: 7, offset: 1024, length: 9 * 1024 },
      { value: 8, offset: 5 * 1024, length: 17 * 1024 },
    ],
  },
  line('checkpoint-create', 'checkpoint create new vm/disk0.qcow2 vm/disk1.qcow2 -q'),
  line(
    'checkpoint-create-external',
    'checkpoint create new vm/disk0.qcow2 vm/disk1.qcow2 --external -q',
  ),
  line('checkpoint-restore', 'checkpoint restore a vm/disk0.qcow2 vm/disk1.qcow2 --discard -q'),
  line('checkpoint-delete-push', 'checkpoint delete b vm/disk0.qcow2 vm/disk1.qcow2 -q'),
  ...[
    ...['create-over', 'convert-snapshots', 'convert-bitmaps', 'dd', 'extract', 'extract-qcow2'],
    ...['bitmap-merge-other', 'relocate-folder', 'repair-table', 'repair-restore'],
    ...['checkpoint-state', 'checkpoint-prune', 'checkpoint-rename', 'checkpoint-describe'],
    ...['checkpoint-convert', 'checkpoint-convert-inside', 'checkpoint-adopt', 'checkpoint-purge'],
  ].map(likeFault),
]
