/** `cowpoint snapshot`: the internal snapshots of an image: list, create, apply, delete, extract. */

import { UsageError } from '../../base/errors.ts'
import type { Qcow2Image, SnapshotRecord } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { text, toggle } from '../options.ts'
import { warnOfBases } from './base-warning.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { extractSnapshot } from './snapshot-extract.ts'
import { snapshotLines } from './snapshot-list.ts'
import { guardViews, viewsOptions } from './views-options.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `snapshot`. */
export const command = defineCommand({
  name: 'snapshot',
  summary: 'list, create, apply, delete or extract internal snapshots',
  manners: 'qemu-img',
  options: {
    ...imageSourceOptions,
    list: toggle({ flags: '-l --list', summary: 'list them (the default)' }),
    apply: text({
      flags: '-a --apply',
      placeholder: 'snapshot',
      summary: 'bring the disk back to a snapshot, by id or name',
    }),
    create: text({ flags: '-c --create', placeholder: 'name', summary: 'take a snapshot' }),
    delete: text({
      flags: '-d --delete',
      placeholder: 'name',
      summary: 'delete the first snapshot of that name',
    }),
    extract: text({
      flags: '-x --extract',
      placeholder: 'snapshot',
      summary: 'copy a snapshot, by id or name, to the file target, or its VM state elsewhere',
    }),
    targetFormat: text({
      flags: '-O --target-format',
      placeholder: 'format',
      summary: 'with -x: format of the target: raw (default) or qcow2',
    }),
    vmState: text({
      flags: '--vm-state',
      placeholder: 'file',
      summary: 'with -x: write the VM state of the snapshot, as it is, to this file',
    }),
    progress: toggle({ flags: '-p --progress', summary: 'with -x: show progress' }),
    quiet: toggle({ flags: '-q --quiet', summary: 'taken for compatibility' }),
    ...viewsOptions,
  },
  positionals: [
    { name: 'file', summary: 'the image' },
    { name: 'target', summary: 'with -x: the new image', optional: true },
  ],
  notes: [
    'Every change is made as a whole or not at all, also when the power fails meanwhile. Needs no backing file, ' +
      'but for -x with a target: that reads as the snapshot does and stands on nothing.',
  ],
  examples: [
    { line: 'cowpoint snapshot -c before-update disk.qcow2', summary: 'take a snapshot' },
    { line: 'cowpoint snapshot -a before-update disk.qcow2', summary: 'go back to it' },
    {
      line: 'cowpoint snapshot -x before-update disk.qcow2 before.raw',
      summary: 'its disk as a file of its own',
    },
  ],
  run: async ({ options, positionals: [name = '', target] }, context) => {
    const { apply, create, delete: remove, list, extract } = options
    const asked = [list || undefined, apply, create, remove, extract].filter(
      (one) => one !== undefined,
    )
    if (asked.length > 1) {
      throw new UsageError(
        'CONFLICTING_OPTIONS',
        `Cannot mix '-l', '-a', '-c', '-d'${extract === undefined ? '' : ", '-x'"}`,
        {
          context: { verb: 'snapshot' },
        },
      )
    }
    if (extract !== undefined) {
      const use = { backing: target !== undefined }
      await using chain = await openImage(name, options, use)
      await context.about(name, () =>
        extractSnapshot(chain, { ...options, snapshot: extract, target }, context),
      )
      return 0
    }
    refuseExtractOptions(options, target)
    const writable = asked.length === 1 && !list
    await using chain = await openImage(name, options, { writable, backing: false })
    await warnOfBases(chain, context)
    const image = chain.layers[0]?.image
    if (create !== undefined) await createOne(image, create, context)
    else if (apply !== undefined) {
      // Of all these only going back changes what overlays of the image read.
      await guardViews(chain.active.path, options, { action: 'snapshot -a' }, context)
      await applyOne(image, apply, context)
    } else if (remove !== undefined) await deleteOne(image, remove, context)
    else if (list) {
      const lines = snapshotLines(image?.snapshots ?? [])
      for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
    }
    return 0
  },
})

/** Refuses what only `-x` has a use for. */
function refuseExtractOptions(
  options: { readonly targetFormat: string | undefined; readonly vmState: string | undefined },
  target: string | undefined,
): void {
  const context = { verb: 'snapshot' }
  if (target !== undefined) {
    throw new UsageError('EXTRA_ARGUMENT', `'snapshot' takes a file, not also '${target}'`, {
      context,
    })
  }
  if (options.targetFormat === undefined && options.vmState === undefined) return
  throw new UsageError('CONFLICTING_OPTIONS', '-O and --vm-state require -x', { context })
}

/** What fits into QEMU's field for a name. */
const NAME_LENGTH = 255

async function createOne(
  image: Qcow2Image | undefined,
  name: string,
  { signal }: Context,
): Promise<void> {
  if (image === undefined) throw noSnapshots(`Could not create snapshot '${name}'`)
  await image.createSnapshot({ name: shortened(name), vmClock: 0n, icount: 0n, signal })
}

/** Cut to what QEMU stores, between characters. */
function shortened(name: string): string {
  const bytes = Buffer.from(name)
  if (bytes.length <= NAME_LENGTH) return name
  let end = NAME_LENGTH
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}

async function applyOne(
  image: Qcow2Image | undefined,
  wanted: string,
  { signal }: Context,
): Promise<void> {
  const failed = `Could not apply snapshot '${wanted}'`
  if (image === undefined) throw noSnapshots(failed)
  const { snapshots } = image
  const found =
    snapshots.find(({ id }) => id === wanted) ?? snapshots.find(({ name }) => name === wanted)
  if (found === undefined) {
    throw notFound(`${failed}: Failed to load snapshot: No such file or directory`, wanted)
  }
  await image.applySnapshot(found, { signal })
}

async function deleteOne(
  image: Qcow2Image | undefined,
  wanted: string,
  { signal }: Context,
): Promise<void> {
  const found: SnapshotRecord | undefined = image?.snapshots.find(({ name }) => name === wanted)
  if (image === undefined || found === undefined) {
    throw notFound(`Could not delete snapshot '${wanted}': snapshot not found`, wanted)
  }
  await image.deleteSnapshot(found, { signal })
}

function notFound(message: string, snapshot: string): UsageError {
  return new UsageError('SNAPSHOT_NOT_FOUND', message, { context: { snapshot } })
}

function noSnapshots(failed: string): UsageError {
  return new UsageError(
    'SNAPSHOTS_NOT_SUPPORTED',
    `${failed}: raw images have no internal snapshots`,
  )
}
