/** The bitmaps that `convert --bitmaps` takes along: which ones, into which targets, and how they get there. */

import { UsageError } from '../../base/errors.ts'
import { type BitmapChange, describeImage, type Qcow2Image } from '../../qcow2/index.ts'
import type { Context } from '../context.ts'
import { STALE_BITMAPS } from './info-facts.ts'

/** Bitmaps of an open image, ready to be copied. */
export interface BitmapCopy {
  /** Throws a UsageError where such a target holds no bitmaps; `version` is undefined unless it is qcow2. */
  checkTarget(format: string, version: 2 | 3 | undefined): void
  /** Adds them to `target`, all or none. */
  copyTo(target: Qcow2Image): Promise<void>
}

/** Looks at the bitmaps of `source`. Throws a UsageError where it can have none, or one is inconsistent and not to be skipped. */
export async function planBitmapCopy(
  source: Qcow2Image | undefined,
  { skipBroken, context }: { readonly skipBroken: boolean; readonly context: Context },
): Promise<BitmapCopy> {
  if (source === undefined || source.header.version === 2) {
    throw new UsageError('BITMAPS_NOT_SUPPORTED', 'Source lacks bitmap support')
  }
  if ((await describeImage(source)).staleBitmaps) await context.warn(STALE_BITMAPS)
  const records = await source.bitmaps()
  const broken = records.filter(({ inUse }) => inUse)
  const [first] = broken
  if (first !== undefined && !skipBroken) {
    throw new UsageError('BITMAP_INCONSISTENT', `Cannot copy inconsistent bitmap '${first.name}'`, {
      context: { bitmap: first.name },
    })
  }
  for (const { name } of broken) await context.warn(`Skipping inconsistent bitmap '${name}'`)
  const changes = records
    .filter(({ inUse }) => !inUse)
    .flatMap(({ name, granularityBits, auto }): BitmapChange[] => [
      { action: 'add', name, granularity: 2 ** granularityBits, enabled: auto },
      { action: 'merge', name, source: name, from: source },
    ])
  const { signal } = context
  return {
    checkTarget(format, version) {
      if (version === 3) return
      throw new UsageError(
        'BITMAPS_NOT_SUPPORTED',
        `Format driver '${format}' does not support bitmaps`,
      )
    },
    async copyTo(target) {
      try {
        await target.changeBitmaps(changes, { signal })
      } catch (error) {
        throw explained(error)
      }
    },
  }
}

/** An error that says which bitmap it was. */
function explained(error: unknown): unknown {
  if (!(error instanceof UsageError)) return error
  const { action, bitmap } = error.context
  if (action === undefined) return error
  const failed = action === 'add' ? 'create' : 'populate'
  return new UsageError(error.code, `Failed to ${failed} bitmap ${bitmap}: ${error.message}`, {
    context: error.context,
    cause: error,
  })
}
