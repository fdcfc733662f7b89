/**
 * Changes options of an image that exists. All is checked first; then each change is made as a whole or not at all,
 * in the order in which they need each other: upwards, within the version, downwards.
 */

import { UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { checkDowngrade, downgradeImage, upgradeImage } from './compat.ts'
import { AUTOCLEAR, COMPATIBLE, EXTENSION } from './layout/constants.ts'
import { extensionText, type HeaderExtension, textExtension } from './layout/extensions.ts'
import { beginChange, beginGuestWrite } from './metadata/begin-write.ts'
import { rewriteHeader } from './metadata/header-rewrite.ts'
import { dataFileIsRaw, type Qcow2State } from './metadata/state.ts'
import { changeRefcountWidth, checkRefcountWidth } from './refcount-width.ts'
import { isResize, resizeDisk } from './resize.ts'

/** What is to change; what is left out stays. */
export interface AmendOptions extends LongWork {
  readonly version?: 2 | 3
  readonly refcountBits?: number
  /** Whether writers may leave the refcounts behind and have them rebuilt after a crash; we never do. */
  readonly lazyRefcounts?: boolean
  /** The name of the external data file; the file itself is neither looked for nor moved. Empty for no name. */
  readonly dataFile?: string
  /** Whether the external data file stays valid as a raw image; it can only be given up. */
  readonly dataFileRaw?: boolean
  readonly size?: number
  /** Allows a smaller size: what lies past it is lost. */
  readonly shrink?: boolean
}

/** Changes what `options` name, alone: waits for all guest writes, and they for it. */
export function amendImage(state: Qcow2State, options: AmendOptions): Promise<void> {
  const all = Number.POSITIVE_INFINITY
  return state.ranges.run(0, all, 'exclusive', () => amendHeld(state, options))
}

async function amendHeld(state: Qcow2State, options: AmendOptions): Promise<void> {
  checkAmend(state, options)
  const { version = state.header.version, refcountBits, size } = options
  const work: LongWork = { signal: options.signal, onProgress: options.onProgress }
  await state.mutex.run(async () => {
    await beginChange(state)
    if (version > state.header.version) {
      // Refused as a whole, not half-way.
      if (refcountBits !== undefined) {
        await checkRefcountWidth(state, Math.log2(refcountBits), work)
      }
      await upgradeImage(state)
    }
    if (refcountBits !== undefined) {
      await changeRefcountWidth(state, Math.log2(refcountBits), work)
    }
    await amendHeader(state, options)
  })
  if (size !== undefined && isResize(state, size, options)) {
    await beginGuestWrite(state)
    await resizeDisk(state, size, { ...work, shrink: options.shrink ?? false })
  }
  if (version < state.header.version) await state.mutex.run(() => downgradeImage(state, work))
}

/** Refuses, before anything changes, what can be known not to work. */
function checkAmend(state: Qcow2State, options: AmendOptions): void {
  const { header } = state
  const { version = header.version, refcountBits, dataFile, dataFileRaw, size } = options
  const order = refcountBits === undefined ? header.refcountOrder : Math.log2(refcountBits)
  if (!Number.isInteger(order) || order < 0 || order > 6) {
    throw new UsageError(
      'INVALID_OPTION_VALUE',
      'Refcount width must be a power of two and may not exceed 64 bits',
    )
  }
  if (dataFile !== undefined && !state.externalData) {
    throw new UsageError(
      'NO_DATA_FILE',
      'data-file can only be set for images that use an external data file',
    )
  }
  if (dataFileRaw && !dataFileIsRaw(state)) {
    throw new UsageError('DATA_FILE_RAW', 'data-file-raw cannot be set on existing images')
  }
  if (version === 2 && refcountBits !== undefined && order !== 4) {
    throw needsVersion3('Refcount widths other than 16 bits require')
  }
  if (version === 2 && options.lazyRefcounts)
    throw needsVersion3('Lazy refcounts only supported with')
  if (size !== undefined) isResize(state, size, options)
  if (version < header.version) {
    checkDowngrade(state, { size: size ?? header.size, refcountOrder: order })
  }
}

function needsVersion3(what: string): UsageError {
  const since = what.startsWith('Lazy') ? 'and' : 'or'
  return new UsageError(
    'VERSION_2',
    `${what} compatibility level 1.1 ${since} above (use compat=1.1 or greater)`,
  )
}

/** The changes that are one switch of the header. */
async function amendHeader(state: Qcow2State, options: AmendOptions): Promise<void> {
  const { lazyRefcounts, dataFile, dataFileRaw } = options
  const { header } = state
  let { compatibleFeatures, autoclearFeatures, extensions } = header
  if (lazyRefcounts === true) compatibleFeatures |= COMPATIBLE.lazyRefcounts
  if (lazyRefcounts === false) compatibleFeatures &= ~COMPATIBLE.lazyRefcounts
  if (dataFileRaw === false) autoclearFeatures &= ~AUTOCLEAR.dataFileRaw
  if (
    dataFile !== undefined &&
    dataFile !== (extensionText(extensions, EXTENSION.dataFile) ?? '')
  ) {
    extensions = withDataFile(extensions, dataFile)
  }
  const isSame =
    compatibleFeatures === header.compatibleFeatures &&
    autoclearFeatures === header.autoclearFeatures &&
    extensions === header.extensions
  if (isSame) return
  await rewriteHeader(state, {
    compatibleFeatures,
    autoclearFeatures,
    ...(extensions === header.extensions ? {} : { extensions }),
  })
}

function withDataFile(list: readonly HeaderExtension[], name: string): readonly HeaderExtension[] {
  const others = list.filter(({ type }) => type !== EXTENSION.dataFile)
  return name === '' ? others : [...others, textExtension(EXTENSION.dataFile, name)]
}
