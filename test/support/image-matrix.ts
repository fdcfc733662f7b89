/**
 * The images under test/images: what MANIFEST.json says of each, and how to get one as files in a folder.
 * Whole images are stored as gzipped files, one folder per image; broken ones as patches on a whole one.
 * test/images/make.ts makes all of it with the real tools.
 */

import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { type Patch, pokeFile } from './poke.ts'

/** Where the images and their manifest lie. */
export const IMAGES_FOLDER = fileURLToPath(new URL('../images', import.meta.url))

/** What `qemu-img check` found; counts are of its JSON (missing ones are 0). */
export interface CheckVerdict {
  readonly status: number
  readonly leaks: number
  readonly corruptions: number
  readonly checkErrors: number
  readonly allocatedClusters: number
  readonly totalClusters: number
  readonly compressedClusters: number
  readonly imageEndOffset: number
}

/** How one qemu-img verb ended: exit status and first line of its complaints (empty: none). */
export interface Outcome {
  readonly status: number
  readonly complaint: string
}

/** A range of guest bytes: `[offset, length]`. */
export type DirtyRange = readonly [number, number]

export interface ManifestBitmap {
  readonly name: string
  readonly granularity: number
  readonly flags: readonly string[]
  /** What the bitmap marks, ascending and joined; left out where it is inconsistent (in-use). */
  readonly dirty?: readonly DirtyRange[]
}

export interface ManifestSnapshot {
  readonly id: string
  readonly name: string
  readonly virtualSize: number
  readonly vmStateSize: number
  /** SHA-256 of the guest content of the snapshot, in its own size (what the disk is after applying it). */
  readonly content: string
  /** SHA-256 of what `qemu-img convert -l` writes: the same, cut or lengthened to the size of the active disk. */
  readonly converted: string
  /** How `qemu-img snapshot -a` ended. */
  readonly apply: Outcome
}

/** An image that qemu-img made and opens. */
export interface WholeImage {
  readonly name: string
  readonly shows: string
  /** All files, which lie together in one folder. */
  readonly files: readonly string[]
  /** The one to open. */
  readonly file: string
  readonly commands: readonly string[]
  readonly virtualSize: number
  /** SHA-256 of the guest content (of an encrypted image: with its key); left out where it cannot be had. */
  readonly content?: string
  readonly snapshots: readonly ManifestSnapshot[]
  readonly bitmaps: readonly ManifestBitmap[]
  /** Left out where qemu-img needs a key. */
  readonly check?: CheckVerdict
  readonly info: Outcome
  readonly convert: Outcome
  readonly open: Outcome
  readonly openWritable: Outcome
  /** Passphrase of an encrypted image. */
  readonly secret?: string
}

/** A whole image with bytes damaged on purpose, and what qemu-img does with it. */
export interface BrokenImage {
  readonly name: string
  readonly shows: string
  /** The whole image that was damaged. */
  readonly base: string
  readonly structure: string
  readonly field: string
  readonly patches: readonly Patch[]
  readonly info: Outcome
  readonly check: Outcome & Partial<CheckVerdict>
  readonly convert: Outcome
  /** Opening for reading (qemu-io), without touching anything. */
  readonly open: Outcome
  /** Opening for writing, which repairs a dirty image and refuses a corrupt one. */
  readonly openWritable: Outcome
  /** SHA-256 of what `convert` wrote, where it worked. */
  readonly content?: string
  /** What `qemu-img snapshot -l` and a conversion of every snapshot did, where the damage is in one. */
  readonly snapshots?: readonly (Outcome & { readonly id: string; readonly content?: string })[]
}

export interface Manifest {
  readonly tool: string
  readonly whole: readonly WholeImage[]
  readonly broken: readonly BrokenImage[]
}

let loaded: Manifest | undefined

/** The manifest, read once. */
export function imageManifest(): Manifest {
  loaded ??= JSON.parse(readFileSync(join(IMAGES_FOLDER, 'MANIFEST.json'), 'utf8')) as Manifest
  return loaded
}

/** The whole image of that name; throws if there is none. */
export function wholeImage(name: string): WholeImage {
  const image = imageManifest().whole.find((candidate) => candidate.name === name)
  if (image === undefined) throw new Error(`MANIFEST.json has no whole image ${name}`)
  return image
}

/** The broken image of that name; throws if there is none. */
export function brokenImage(name: string): BrokenImage {
  const image = imageManifest().broken.find((candidate) => candidate.name === name)
  if (image === undefined) throw new Error(`MANIFEST.json has no broken image ${name}`)
  return image
}

/** Puts all files of the image into `folder` and returns the path of the one to open. */
export function unpackImage(image: WholeImage | BrokenImage | string, folder: string): string {
  if (typeof image === 'string') return unpackImage(wholeImage(image), folder)
  if ('patches' in image) {
    const path = unpackImage(wholeImage(image.base), folder)
    pokeFile(path, image.patches)
    return path
  }
  for (const file of image.files) {
    const packed = readFileSync(join(IMAGES_FOLDER, image.name, `${file}.gz`))
    writeSparse(join(folder, file), gunzipSync(packed))
  }
  return join(folder, image.file)
}

/** Writes a file, leaving holes for blocks (4 KiB) of zero bytes. */
export function writeSparse(path: string, bytes: Uint8Array): void {
  const block = 4096
  const zero = Buffer.alloc(block)
  const file = openSync(path, 'w')
  try {
    ftruncateSync(file, bytes.length)
    for (let offset = 0; offset < bytes.length; offset += block) {
      const part = bytes.subarray(offset, offset + block)
      if (zero.compare(part, 0, part.length, 0, part.length) === 0) continue
      writeSync(file, part, 0, part.length, offset)
    }
  } finally {
    closeSync(file)
  }
}
