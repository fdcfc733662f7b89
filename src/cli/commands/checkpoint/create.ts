/** `cowpoint checkpoint create`: remembers what disks are now. */

import { UsageError } from '../../../base/errors.ts'
import { createCheckpoint, shortId } from '../../../checkpoint/index.ts'
import { STATE_KINDS, type StateRequest } from '../../../machine/index.ts'
import { defineCommand } from '../../command.ts'
import { choice, text, texts, toggle } from '../../options.ts'
import { changingOptions, knownDisks, openCatalogue, runChange } from './catalogue-options.ts'

/** The verb `checkpoint create`. */
export const command = defineCommand({
  name: 'checkpoint create',
  summary: 'remember what disks are now, by internal snapshots or frozen layers',
  manners: 'cowpoint',
  options: {
    internal: toggle({ flags: '--internal', summary: 'snapshots in the files of the disks' }),
    external: toggle({
      flags: '--external',
      summary: 'freeze the files of the disks, and go on in overlays on them',
    }),
    format: choice({
      flags: '-f --format',
      choices: ['qcow2', 'raw'],
      summary: 'format of the disks; found out if left out, which a guest can fool on a raw disk',
    }),
    overlay: texts({
      flags: '--overlay',
      placeholder: 'path',
      summary: 'external: the overlay goes here, and is what boots next; once for each disk',
    }),
    description: text({ flags: '--description', summary: 'a text for people' }),
    label: texts({
      flags: '--label',
      placeholder: 'key=value',
      summary: 'a label; may be repeated',
    }),
    state: texts({
      flags: '--state',
      placeholder: '[kind=]file',
      summary: 'state of the machine at this instant, such as memory; may be repeated',
    }),
    stateMode: choice({
      flags: '--state-mode',
      choices: ['copy', 'reference'],
      default: 'copy',
      summary: 'copy state files beside the disks, or refer to them where they are',
    }),
    consistency: choice({
      flags: '--consistency',
      choices: ['crash', 'filesystem'],
      summary:
        'what is known of the state of the guest; crash is the default, memory with its state',
    }),
    ...changingOptions,
  },
  positionals: [{ name: 'name', summary: 'what the checkpoint is called' }, knownDisks],
  notes: [
    'Several disks are one checkpoint, all or nothing. Without --internal or --external it is internal where every disk can hold one.',
    'External: the frozen layer gets a new name, and the overlay takes over the path of the disk, so that no configuration changes; ' +
      'the path opens at every instant. With --overlay it is the other way round: the disk keeps its name, and the overlay gets a new one.',
    `State files are hashed and checked: bhyve's NAME with NAME.kern and NAME.meta, a migration stream of QEMU, a save image of libvirt, firmware variables, TPM state. Kinds: ${STATE_KINDS.join(', ')}.`,
  ],
  examples: [
    { line: 'cowpoint checkpoint create before-update disk.qcow2', summary: 'an internal one' },
    {
      line: 'cowpoint checkpoint create --external clean a.qcow2 b.qcow2',
      summary: 'two disks, each with a new overlay',
    },
  ],
  run: async ({ options, positionals: [name = '', ...images] }, context) => {
    const { internal, external, overlay, label, description, consistency } = options
    if (internal && external) {
      throw new UsageError(
        'CONFLICTING_OPTIONS',
        "'--internal' and '--external' exclude each other",
        {
          context: { verb: 'checkpoint create' },
        },
      )
    }
    const kind = internal ? ('internal' as const) : external ? ('external' as const) : undefined
    const catalogue = await openCatalogue(options, images)
    const wish = {
      ...{ name, kind, consistency, labels: parseLabels(label) },
      ...(description === undefined ? {} : { description }),
      overlays: overlay.length === 0 ? undefined : overlay,
      state: { files: options.state.map(parseState), mode: options.stateMode },
    }
    const words = {
      label: 'create',
      done: ({ plan }: { plan: { checkpoint: { id: string } | undefined } }) =>
        `Created checkpoint ${name} ${shortId(plan.checkpoint?.id ?? '')}.`,
    }
    return runChange(options, context, words, (verbOptions) =>
      createCheckpoint(catalogue, { ...wish, ...verbOptions }),
    )
  },
})

/** `kind=file`, or a file whose kind is found out. */
function parseState(value: string): StateRequest {
  const equals = value.indexOf('=')
  const kind = STATE_KINDS.find((one) => one === value.slice(0, Math.max(0, equals)))
  return kind === undefined ? { path: value } : { path: value.slice(equals + 1), kind }
}

/** Labels as `key=value`. */
export function parseLabels(list: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const label of list) {
    const equals = label.indexOf('=')
    if (equals <= 0) {
      throw new UsageError('INVALID_OPTION_VALUE', `--label takes key=value, not '${label}'`, {
        context: { option: '--label', value: label },
      })
    }
    labels[label.slice(0, equals)] = label.slice(equals + 1)
  }
  return labels
}
