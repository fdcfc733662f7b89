/** `cowpoint snapshot`: the internal snapshots of an image: list, create, apply, delete. */

import { UsageError } from '../../base/errors.ts'
import type { Qcow2Image, SnapshotRecord } from '../../qcow2/index.ts'
import { defineCommand } from '../command.ts'
import { text, toggle } from '../options.ts'
import { imageSourceOptions, openImage } from './image-source.ts'
import { snapshotLines } from './snapshot-list.ts'
import { guardViews, viewsOptions } from './views-options.ts'
import { visibleLines } from './visible-text.ts'

/** The verb `snapshot`. */
export const command = defineCommand({
  name: 'snapshot',
  summary: 'list, create, apply or delete internal snapshots',
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
    quiet: toggle({ flags: '-q --quiet', summary: 'taken for compatibility' }),
    ...viewsOptions,
  },
  positionals: [{ name: 'file', summary: 'the image' }],
  notes: [
    'Every change is made as a whole or not at all, also when the power fails meanwhile. Needs no backing file.',
  ],
  examples: [
    { line: 'cowpoint snapshot -c before-update disk.qcow2', summary: 'take a snapshot' },
    { line: 'cowpoint snapshot -a before-update disk.qcow2', summary: 'go back to it' },
  ],
  run: async ({ options, positionals: [name = ''] }, context) => {
    const { apply, create, delete: remove, list } = options
    const asked = [list || undefined, apply, create, remove].filter((one) => one !== undefined)
    if (asked.length > 1) {
      throw new UsageError('CONFLICTING_OPTIONS', "Cannot mix '-l', '-a', '-c', '-d'", {
        context: { verb: 'snapshot' },
      })
    }
    const writable = asked.length === 1 && !list
    await using chain = await openImage(name, options, { writable, backing: false })
    const image = chain.layers[0]?.image
    if (create !== undefined) await createOne(image, create)
    else if (apply !== undefined) {
      // Of all these only going back changes what overlays of the image read.
      await guardViews(chain.active.path, options, { action: 'snapshot -a' }, context)
      await applyOne(image, apply)
    } else if (remove !== undefined) await deleteOne(image, remove)
    else if (list) {
      const lines = snapshotLines(image?.snapshots ?? [])
      for (const line of visibleLines(lines, context.stdout)) await context.stdout.line(line)
    }
    return 0
  },
})

/** What fits into QEMU's field for a name. */
const NAME_LENGTH = 255

async function createOne(image: Qcow2Image | undefined, name: string): Promise<void> {
  if (image === undefined) throw noSnapshots(`Could not create snapshot '${name}'`)
  await image.createSnapshot({ name: shortened(name), vmClock: 0n, icount: 0n })
}

/** Cut to what QEMU stores, between characters. */
function shortened(name: string): string {
  const bytes = Buffer.from(name)
  if (bytes.length <= NAME_LENGTH) return name
  let end = NAME_LENGTH
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}

async function applyOne(image: Qcow2Image | undefined, wanted: string): Promise<void> {
  const failed = `Could not apply snapshot '${wanted}'`
  if (image === undefined) throw noSnapshots(failed)
  const { snapshots } = image
  const found =
    snapshots.find(({ id }) => id === wanted) ?? snapshots.find(({ name }) => name === wanted)
  if (found === undefined) {
    throw notFound(`${failed}: Failed to load snapshot: No such file or directory`, wanted)
  }
  await image.applySnapshot(found)
}

async function deleteOne(image: Qcow2Image | undefined, wanted: string): Promise<void> {
  const found: SnapshotRecord | undefined = image?.snapshots.find(({ name }) => name === wanted)
  if (image === undefined || found === undefined) {
    throw notFound(`Could not delete snapshot '${wanted}': snapshot not found`, wanted)
  }
  await image.deleteSnapshot(found)
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
