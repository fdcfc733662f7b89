/**
 * Opens an image with all that it stands on. The chain is followed first (find-chain.ts) and opened then, base first, so that
 * the active layer, the only one that may be written, is touched last.
 */

import { CowpointError, UsageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { type OpenOptions, Qcow2Image } from '../qcow2/index.ts'
import { type FileSystem, nodeFiles } from '../storage/index.ts'
import { Chain, type ChainWarning, closeAll, devicesOf, type Layer } from './chain.ts'
import { ChainLocks, type LockOptions } from './chain-locks.ts'
import type { FileDriver, Format } from './driver.ts'
import {
  type FindOptions,
  type FoundChain,
  findChain,
  type LinkedLayer,
  openDevices,
} from './find-chain.ts'
import type { UntrustedOptions } from './find-layer.ts'
import { Gate } from './gate.ts'
import { type Link, linkError } from './link-error.ts'
import { type Location, parseLocation, withFormat } from './location.ts'
import { MissingDevice } from './missing-device.ts'

/** How a chain is opened. */
export interface ChainOptions extends Pick<OpenOptions, 'discard'>, LockOptions {
  /** Whether the active layer may be written; the others are never. False where left out. */
  readonly writable?: boolean
  /**
   * The format of the uppermost image: it is found out where left out. A raw disk can be written only where this says so, since
   * whoever fills such a disk can make it look like another format. `file` and `host_device` are raw under QEMU's other names.
   */
  readonly format?: Format | FileDriver
  /** Which references are followed; those to files in the image's folder and below it where left out. */
  readonly gate?: Gate
  readonly files?: FileSystem
  /** Reads although somebody may write at the same time: what is read can then be of no one moment. Not with `writable`. */
  readonly forceShare?: boolean | undefined
  /** False opens this one image, which then reads as zeroes where it holds nothing. */
  readonly backing?: boolean
  /** False leaves external data files closed: the images can be described, not read. */
  readonly dataFiles?: boolean
  /** How many layers may lie below the active one; 200 where left out. */
  readonly depthLimit?: number
  /** `report` opens what can be opened and tells the rest in `Chain.broken`; for looking, not for reading. */
  readonly onBroken?: 'throw' | 'report'
  /** Bytes for tables in memory, shared by all layers; 64 MiB where left out. */
  readonly cacheSize?: number
  /**
   * Inspects the image before anything in it is believed, and rejects with the code of the first reason to refuse it. No reference
   * is followed, whatever the gate says, and nothing is written.
   */
  readonly untrusted?: boolean | UntrustedOptions
}

const CACHE_SIZE = 64 * 1024 * 1024
const LARGEST_CACHE = 32 * 1024 * 1024
const SMALLEST_CACHE = 64 * 1024
const DEPTH_LIMIT = 200

/**
 * Opens the image at `location` (a path, `file:` or `json:`) and its backing files. Rejects with the error of the file or image
 * that cannot be opened; that of a reference names the layer that has it (`BACKING_NOT_FOUND`, `REFERENCE_REFUSED`,
 * `CHAIN_LOOP`, `CHAIN_TOO_DEEP`, …). Nothing stays open, and nothing was written, where it rejects.
 */
export async function openChain(location: string, options: ChainOptions = {}): Promise<Chain> {
  const parsed = parseLocation(location)
  const top = options.format === undefined ? parsed : withFormat(parsed, options.format)
  if (isUntrusted(options)) refuseTrust(top, options)
  const { forceShare = false, writable = false } = options
  if (forceShare && writable) {
    throw new UsageError(
      'FORCE_SHARE_WRITABLE',
      'force-share=on can only be used with read-only images',
    )
  }
  const locks = new ChainLocks(options, { forceShare })
  const found = await findChain(top, findOptions(options, locks))
  return openImages(found, options, locks)
}

function findOptions(options: ChainOptions, locks: ChainLocks): FindOptions {
  return {
    files: options.files ?? nodeFiles,
    gate: options.gate ?? new Gate(),
    writable: options.writable ?? false,
    backing: !isUntrusted(options) && (options.backing ?? true),
    dataFiles: !isUntrusted(options) && (options.dataFiles ?? true),
    depthLimit: options.depthLimit ?? DEPTH_LIMIT,
    report: options.onBroken === 'report',
    untrusted: untrustedOptions(options),
    locks,
  }
}

function isUntrusted({ untrusted = false }: ChainOptions): boolean {
  return untrusted !== false
}

function untrustedOptions({ untrusted = false }: ChainOptions): UntrustedOptions | undefined {
  return untrusted === false ? undefined : untrusted === true ? {} : untrusted
}

/** Refuses what would write an untrusted image, or read another file with it. */
function refuseTrust({ backing }: Location, { writable = false }: ChainOptions): void {
  if (writable) {
    throw new UsageError('UNTRUSTED_WRITABLE', 'an untrusted image can only be read')
  }
  if (backing) {
    throw new UsageError('UNTRUSTED_BACKING', 'an untrusted image is read without a backing file')
  }
}

async function openImages(
  found: FoundChain,
  options: ChainOptions,
  locks: ChainLocks,
): Promise<Chain> {
  const { layers } = found
  const imageCount = layers.filter((layer) => layer.format === 'qcow2').length
  const share = Math.floor((options.cacheSize ?? CACHE_SIZE) / Math.max(1, imageCount))
  const cacheSize = Math.max(SMALLEST_CACHE, Math.min(LARGEST_CACHE, share))
  let broken = found.broken
  let opened: Layer[] = []
  for (let index = layers.length - 1; index >= 0; index--) {
    const cut = broken.find((link) => link.kind === 'backing' && link.layerIndex === index)
    const below =
      cut === undefined ? opened[0]?.device : new MissingDevice(cut.reference, cut.error)
    try {
      opened.unshift(
        await openLayer(layers[index] as LinkedLayer, below, { ...options, cacheSize }, index),
      )
    } catch (cause) {
      await closeAll([...openDevices(layers.slice(index, index + 1)), ...devicesOf(opened)]).catch(
        () => {},
      )
      opened = []
      const link = linkTo(layers, index)
      const error = link === undefined ? cause : linkError(link, cause)
      if (
        link === undefined ||
        options.onBroken !== 'report' ||
        !(error instanceof CowpointError)
      ) {
        await closeAll(openDevices(layers.slice(0, index))).catch(() => {})
        throw error
      }
      const { kind, reference, layerIndex } = link
      broken = [
        ...broken.filter((other) => other.layerIndex < index),
        { kind, reference, layerIndex, error },
      ]
    }
  }
  try {
    const warnings = [...locks.warnings, ...(await changedBases(opened))]
    return new Chain(opened, broken, warnings)
  } catch (error) {
    await closeAll(devicesOf(opened)).catch(() => {})
    throw error
  }
}

/** Looks whether each base still is what the layer on it remembers; a base that another name put there is not asked. */
async function changedBases(layers: readonly Layer[]): Promise<ChainWarning[]> {
  const warnings: ChainWarning[] = []
  if (layers.length < 2) return warnings
  const { compareBase } = await import('./fingerprint.ts')
  for (const [layerIndex, { image, location, filename, backing }] of layers.entries()) {
    const below = layers[layerIndex + 1]
    if (image === undefined || below === undefined || location.backing !== undefined) continue
    const change = await compareBase(image.header, below)
    if (change === undefined) continue
    const message = `backing file '${backing?.name}' is not as it was when the image was put on it: it ${change.message}`
    warnings.push({ code: 'BASE_CHANGED', layerIndex, filename, message })
  }
  return warnings
}

/** The reference that led to a layer; undefined for the active one. */
function linkTo(layers: readonly LinkedLayer[], index: number): Link | undefined {
  const overlay = layers[index - 1]
  if (overlay === undefined) return undefined
  const reference = overlay.location.backing?.text ?? overlay.backing?.name ?? ''
  return { kind: 'backing', reference, overlay: overlay.filename, layerIndex: index - 1 }
}

async function openLayer(
  found: LinkedLayer,
  backing: BlockDevice | undefined,
  options: ChainOptions & { readonly cacheSize: number },
  index: number,
): Promise<Layer> {
  const { location, filename, path, format, driver, file, hostFile, fileOffset, data } = found
  const base = {
    ...{ location, filename, path, format, driver, file, hostFile, fileOffset },
    ...(found.backing === undefined ? {} : { backing: found.backing }),
    ...(data === undefined ? {} : { dataFile: data.device, dataFilename: data.filename }),
  }
  if (format === 'raw') return { ...base, device: file }
  const active = index === 0
  const image = await Qcow2Image.open(file, {
    name: filename,
    writable: active && (options.writable ?? false),
    cacheSize: options.cacheSize,
    ...(backing === undefined ? {} : { backing }),
    ...(data === undefined ? {} : { dataFile: data.device }),
    ...(active && options.discard !== undefined ? { discard: options.discard } : {}),
  })
  return { ...base, device: image, image }
}
