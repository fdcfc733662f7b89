/**
 * Disks with checkpoints in a file system in memory, and beside them what each view must read as. After every step all views are
 * read, all images checked, and all files accounted for.
 */

import { expect } from 'vitest'
import { Gate, openChain } from '../../src/chain/index.ts'
import {
  CheckpointCatalogue,
  type CheckpointNode,
  type CheckpointPlace,
  createCheckpoint,
} from '../../src/checkpoint/index.ts'
import { checkImage, createQcow2 } from '../../src/qcow2/index.ts'
import { FileDevice, type FileSystem } from '../../src/storage/index.ts'
import { DiskFiles } from './disk-files.ts'

/** How the layers of a disk are made. */
export interface DiskShape {
  readonly size: number
  readonly clusterSize?: number
  readonly extendedL2?: boolean
  readonly version?: 2 | 3
  readonly refcountBits?: number
  readonly compressionType?: 'zlib' | 'zstd'
  /** All disks begin as raw files, each under an overlay. */
  readonly isRaw?: boolean
}

/** What a checkpoint reads as on each disk; by its name. */
export type Contents = readonly Uint8Array[]

/** A picker of numbers that is the same for the same seed. */
export function picker(seed: number): (limit: number) => number {
  let state = seed >>> 0 || 1
  return (limit) => {
    state ^= state << 13
    state >>>= 0
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state % limit
  }
}

/** The model. */
export class CheckpointModel {
  readonly files: DiskFiles
  readonly images: readonly string[]
  current: Uint8Array[]
  readonly checkpoints = new Map<string, Contents>()
  /** Milliseconds since 1970 for what is made next. */
  time = 1_700_000_000_000

  private constructor(files: DiskFiles, images: readonly string[], current: Uint8Array[]) {
    this.files = files
    this.images = images
    this.current = current
  }

  /** Empty disks, one for each shape, in one folder. */
  static async create(shapes: readonly DiskShape[]): Promise<CheckpointModel> {
    const files = new DiskFiles()
    await files.makeFolder('/vm')
    const images = shapes.map((_, index) => `/vm/disk${index}.qcow2`)
    const isRaw = shapes.some((shape) => shape.isRaw)
    const current = shapes.map(({ size }) => new Uint8Array(size).fill(isRaw ? 9 : 0))
    const model = new CheckpointModel(files, images, current)
    if (isRaw) {
      await model.#standOnRaw()
      return model
    }
    for (const [index, path] of images.entries()) {
      const file = await FileDevice.open(files, path, { create: 'new', growable: true })
      await createQcow2(file, shapes[index] as DiskShape)
      await file.close()
    }
    return model
  }

  /** Raw disks as the first checkpoint, and an overlay on each. */
  async #standOnRaw(): Promise<void> {
    const { files, images } = this
    const bases = images.map((path) => path.replace('.qcow2', '.base.raw'))
    for (const [index, path] of bases.entries()) {
      files.put(path, this.current[index] as Uint8Array)
    }
    const catalogue = await CheckpointCatalogue.find({ images: bases, files, format: 'raw' })
    const date = new Date(this.time)
    await createCheckpoint(catalogue, { name: 'raw', overlays: images, date })
    this.noteCheckpoint('raw')
  }

  /** An independent copy, files included. */
  clone(): CheckpointModel {
    const copy = new CheckpointModel(this.files.clone(), this.images, [...this.current])
    for (const [name, contents] of this.checkpoints) copy.checkpoints.set(name, contents)
    return copy
  }

  catalogue(files: FileSystem = this.files): Promise<CheckpointCatalogue> {
    return CheckpointCatalogue.find({ images: this.images, files })
  }

  /** Writes to a disk, and to the model. */
  async write(disk: number, offset: number, bytes: Uint8Array | number): Promise<void> {
    await using chain = await openActive(this.files, this.images[disk] as string)
    const next = (this.current[disk] as Uint8Array).slice()
    if (typeof bytes === 'number') {
      await chain.device.writeZeroes(offset, bytes)
      next.fill(0, offset, offset + bytes)
    } else {
      await chain.device.write(offset, bytes)
      next.set(bytes, offset)
    }
    this.current[disk] = next
  }

  /** Takes note that what is current has a name now. */
  noteCheckpoint(name: string, contents: Contents = [...this.current]): void {
    this.checkpoints.set(name, contents)
  }

  /** All checkpoints that have a name, as the catalogue finds them. */
  async nodes(files: FileSystem = this.files): Promise<Map<string, CheckpointNode>> {
    const found = new Map<string, CheckpointNode>()
    for (const tree of await (await this.catalogue(files)).trees()) {
      for (const node of tree.nodes.values()) if (!node.isHidden) found.set(node.name, node)
    }
    return found
  }

  /**
   * Reads everything. After a cut, `going` are names that may be there or not, and files may be there twice.
   */
  async checkViews(
    label: string,
    files: FileSystem = this.files,
    { going = new Set(), isCut = false }: { going?: ReadonlySet<string>; isCut?: boolean } = {},
  ): Promise<void> {
    for (const [disk, path] of this.images.entries()) {
      await using chain = await openActive(files, path, false)
      const warnings = chain.warnings.map(({ message }) => message)
      if (!isCut) expect(warnings, `${label}: warnings of ${path}`).toEqual([])
      await expectBytes(chain.device, this.current[disk] as Uint8Array, `${label}: ${path}`)
    }
    const nodes = await this.nodes(files)
    for (const [name, contents] of this.checkpoints) {
      const node = nodes.get(name)
      if (going.has(name)) continue
      expect(node, `${label}: checkpoint ${name}`).toBeDefined()
      expect(node?.places.length, `${label}: places of ${name}`).toBe(this.images.length)
      for (const place of node?.places ?? []) {
        const disk = await this.#diskOf(place)
        await expectPlace(files, place, contents[disk] as Uint8Array, `${label}: ${name}`)
      }
    }
    if (isCut) return
    const others = [...nodes.keys()].filter((name) => !this.checkpoints.has(name))
    expect(others, `${label}: checkpoints nobody knows`).toEqual([])
  }

  async #diskOf({ layer }: CheckpointPlace): Promise<number> {
    return this.images.findIndex((image) => layer.path.startsWith(image.slice(0, -'.qcow2'.length)))
  }

  /** Checks every image, and that each file is needed; `tidy` demands that no hidden layer could be merged. */
  async checkFiles(
    label: string,
    files: FileSystem = this.files,
    { tidy = true }: { tidy?: boolean } = {},
  ): Promise<void> {
    const { survey, trees } = await (await this.catalogue(files)).view()
    const needed = new Set(trees.flatMap(({ disks }) => disks.map(({ layer }) => layer?.key)))
    for (const { nodes } of trees) {
      for (const { places, isHidden } of nodes.values()) {
        for (const { layer, snapshot } of places) {
          const count = (survey.overlays.get(layer.key) ?? []).length
          const isUsed = count > (tidy ? 1 : 0) || layer.snapshots.length > 0
          expect(!isHidden || isUsed || snapshot, `${label}: hidden ${layer.path}`).toBeTruthy()
          needed.add(layer.key)
        }
      }
    }
    for (const layer of survey.layers.values()) {
      expect(needed.has(layer.key), `${label}: ${layer.path} is needed`).toBe(true)
      expect(layer.otherPaths, `${label}: other names of ${layer.path}`).toEqual([])
      if (layer.format === 'raw') continue
      await using file = await FileDevice.open(files, layer.path)
      const { corruptions, checkErrors, leaks } = await checkImage(file)
      expect([corruptions, checkErrors, leaks], `${label}: check of ${layer.path}`).toEqual([
        0, 0, 0,
      ])
    }
    const known = new Set([...survey.layers.values()].map(({ path }) => path))
    const names = (await files.list('/vm')).filter((name) => name !== '.cowpoint')
    const strange = names.filter((name) => !known.has(`/vm/${name}`))
    expect(strange, `${label}: files that are no layers`).toEqual([])
  }
}

/** Opens a disk with what it stands on. */
export function openActive(files: FileSystem, path: string, writable = true) {
  return openChain(path, { files, writable, gate: new Gate({ allowFolders: ['/vm'] }) })
}

async function expectPlace(
  files: FileSystem,
  { layer, snapshot }: CheckpointPlace,
  wanted: Uint8Array,
  label: string,
): Promise<void> {
  await using chain = await openChain(layer.path, {
    files,
    format: layer.format === 'raw' ? 'raw' : 'qcow2',
  })
  const { image } = chain.active
  if (snapshot === undefined) return expectBytes(chain.device, wanted, label)
  const record = image?.snapshots.find(({ id }) => id === snapshot.record.id)
  if (image === undefined || record === undefined) throw new Error(`${label}: snapshot is lost`)
  await expectBytes(await image.openSnapshot(record), wanted, label)
}

async function expectBytes(
  device: { readonly size: number; read(at: number, target: Uint8Array): Promise<void> },
  wanted: Uint8Array,
  label: string,
): Promise<void> {
  expect(device.size, `${label}: size`).toBe(wanted.length)
  const bytes = new Uint8Array(device.size)
  await device.read(0, bytes)
  const at = Buffer.compare(bytes, wanted) === 0 ? -1 : bytes.findIndex((b, i) => b !== wanted[i])
  expect(at, `${label}: first byte that differs`).toBe(-1)
}
