/**
 * A tree of images in memory and its model side by side through random steps. After each, every view that can have changed
 * is compared, every file that was written is checked, and a verb that was refused must have changed nothing.
 */

import { basename, dirname, relative } from 'node:path'
import { expect } from 'vitest'
import { bytesEqual } from '../../src/base/bytes.ts'
import { CowpointError } from '../../src/base/errors.ts'
import { type Chain, fingerprintOf, Gate, guardBase, openChain } from '../../src/chain/index.ts'
import { checkImage, createQcow2, type DirtyRange, type Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { ModelFile, ModelTree, missedSector } from './chain-model.ts'
import { type ChainRequest, type ChainStep, content, type TreeShape } from './chain-model-steps.ts'
import { DiskFiles } from './disk-files.ts'

/** Where the files lie. */
export const FOLDERS = ['/d', '/d/e', '/d/f'] as const

/** The longest chain. */
export const DEPTH = 8

/** A tree on its way through the steps. */
export class ChainWalk {
  readonly files = new DiskFiles()
  readonly tree = new ModelTree()
  readonly use = { files: this.files, gate: new Gate({ allowAll: true }) }
  readonly scope = { ...this.use, folders: FOLDERS }
  /** How often each verb did its work, and how often it was refused. */
  readonly done = new Map<string, number>()
  #count = 0

  /** Makes the files of a tree, with some content in each. */
  async build({ rawBase, layers }: TreeShape): Promise<void> {
    for (const folder of FOLDERS) await this.files.makeFolder(folder)
    if (rawBase) {
      const bytes = content(layers[0]?.size ?? 512, 8)
      this.files.put(this.freshPath('raw'), bytes)
      this.tree.files.push(new ModelFile(this.#path('raw'), 'raw', bytes))
    }
    for (const shape of layers) {
      const { files } = this.tree
      // Most stand on the one before; now and then a sibling.
      const base = files.at(-1 - (shape.parent === 3 ? Math.min(2, files.length - 1) : 0))
      await this.createOverlay(base, shape)
    }
  }

  /** A name that no file has, in one of the folders. */
  freshPath(extension: string): string {
    this.#count++
    return this.#path(extension)
  }

  #path(extension: string): string {
    return `${FOLDERS[this.#count % 5 === 4 ? 1 : 0]}/f${this.#count}.${extension}`
  }

  /** Creates an image on a base, or on nothing, and writes some bytes into it. */
  async createOverlay(
    base: ModelFile | undefined,
    { options, size, data = 'inside' }: Omit<TreeShape['layers'][number], 'parent'>,
  ): Promise<void> {
    const path = this.freshPath('qcow2')
    const make = (name: string) =>
      FileDevice.open(this.files, name, { create: 'new', growable: true })
    const device = await make(path)
    const dataPath = data === 'inside' ? undefined : `${path}.data`
    const dataDevice = dataPath === undefined ? undefined : await make(dataPath)
    const dataFile = dataDevice && {
      ...{ name: basename(dataPath ?? ''), device: dataDevice },
      // Below it nothing may be read.
      raw: data === 'external-raw' && base === undefined,
    }
    if (base === undefined) {
      await createQcow2(device, { size, ...options, dataFile })
    } else {
      await using chain = await openChain(base.path, { ...this.use, format: base.format })
      const name = this.nameFrom(path, base)
      const extension = await fingerprintOf(chain.active, name)
      await createQcow2(device, {
        ...{ size, ...options, dataFile, backing: { name, format: base.format } },
        ...(extension === undefined ? {} : { extensions: [extension] }),
      })
    }
    await device.close()
    await dataDevice?.close()
    const below = base?.content ?? new Uint8Array(0)
    const bytes = new Uint8Array(size)
    bytes.set(below.subarray(0, size))
    const file = new ModelFile(path, 'qcow2', bytes, base)
    file.dataPath = dataPath
    this.tree.files.push(file)
    const seed = this.#count * 37
    const start = Math.floor(size / 3 / 512) * 512
    await this.open(file, (chain) =>
      chain.device.write(start, content(20_000 % size, seed).subarray(0, size - start)),
    )
    file.change(start, content(20_000 % size, seed).subarray(0, size - start))
  }

  /** The name of `base` as an image at `path` must write it. */
  nameFrom(path: string, base: ModelFile): string {
    return relative(dirname(path), base.path)
  }

  /** Opens a file for writing, does `work` and closes it. */
  async open<T>(file: ModelFile, work: (chain: Chain) => Promise<T>): Promise<T> {
    const chain = await openChain(file.path, { ...this.use, format: file.format, writable: true })
    try {
      return await work(chain)
    } finally {
      await chain.close()
    }
  }

  /** As `open`, with the image itself. */
  image<T>(file: ModelFile, work: (image: Qcow2Image, chain: Chain) => Promise<T>): Promise<T> {
    return this.open(file, (chain) => {
      if (chain.active.image === undefined) throw new Error('model: not an image')
      return work(chain.active.image, chain)
    })
  }

  /**
   * Whether `action` did its work. It may be refused with one of the codes, and where it must be, it has to; then no file may
   * have changed.
   */
  async attempt(
    name: string,
    codes: readonly string[],
    action: () => Promise<unknown>,
    must = false,
  ): Promise<boolean> {
    const before = new Map(this.files.paths.map((path) => [path, this.files.contents(path)]))
    try {
      await action()
    } catch (error) {
      if (!(error instanceof CowpointError) || !codes.includes(error.code)) throw error
      this.#note(`${name} ${error.code}`)
      expect(this.files.paths, `${name} was refused and left files`).toEqual([...before.keys()])
      for (const [path, bytes] of before) {
        // Until the image is closed its bitmaps may be marked as in use; its views are compared after the step.
        if (this.tree.files.some((file) => file.path === path && file.bitmaps.size > 0)) continue
        const isSame = bytesEqual(this.files.contents(path), bytes)
        expect(isSame, `${name} was refused with ${error.code} and changed ${path}`).toBe(true)
      }
      return false
    }
    expect(must, `${name} had to be refused with ${codes.join()}`).toBe(false)
    this.#note(name)
    return true
  }

  /** Whether a file may change what it reads as; else the guard must say so. */
  async mayChange(file: ModelFile): Promise<boolean> {
    const overlays = this.tree.above(file)
    const asked = guardBase(file.path, { ...this.scope, action: 'change' })
    if (overlays.length === 0) {
      await asked
      return true
    }
    const paths = overlays.map(({ path }) => path).sort()
    await asked.then(
      () => expect.fail(`guard did not see ${paths.join()} above ${file.path}`),
      (error: CowpointError) => {
        expect(error.code).toBe('BASE_HAS_OVERLAYS')
        expect([...(error.context.overlays as string[])].sort()).toEqual(paths)
      },
    )
    this.#note('guarded')
    return false
  }

  #note(name: string): void {
    this.done.set(name, (this.done.get(name) ?? 0) + 1)
  }

  /** Does requests to a disk and to its model. */
  async request(file: ModelFile, chain: Chain, request: ChainRequest): Promise<void> {
    const { image } = chain.active
    const { kind, offset, length, bytes } = request
    if (kind === 'flush') return chain.device.flush()
    if (kind === 'compressed' && image !== undefined) {
      await image.writeCompressed(offset, bytes)
    } else if (kind === 'zero' || kind === 'unmap') {
      await chain.device.writeZeroes(offset, length, { mayDiscard: kind === 'unmap' })
      return file.change(offset, new Uint8Array(length))
    } else if (kind === 'discard') {
      if (image === undefined) return
      await image.discard(offset, length)
      const range = discarded(image, chain, { offset, length })
      return file.change(range.offset, new Uint8Array(range.length))
    } else {
      await chain.device.write(offset, bytes)
    }
    file.change(offset, bytes)
  }

  /** Compares every view that stands on a file which was changed since the last time, and checks those files. */
  async verify(step: ChainStep | undefined): Promise<void> {
    const changed = this.files.changed
    const about = step === undefined ? 'after all' : `after ${step.verb}`
    for (const file of this.tree.files) {
      const isChanged = file.chain.some(
        ({ path, dataPath }) => changed.has(path) || (dataPath && changed.has(dataPath)),
      )
      if (!isChanged && step !== undefined) continue
      await this.#compare(file, about)
      if (file.format === 'qcow2') await this.#check(file, about)
    }
    changed.clear()
    expect(this.files.paths).toEqual(this.tree.paths)
  }

  async #compare(file: ModelFile, about: string): Promise<void> {
    await using chain = await openChain(file.path, { ...this.use, format: file.format })
    expect(
      chain.layers.map(({ path }) => path.split('/').at(-1)),
      about,
    ).toEqual(file.chain.map(({ path }) => path.split('/').at(-1)))
    await this.#same(chain.device, file.content, `${about}, disk of ${file.path}`)
    const { image } = chain.active
    if (image === undefined) return
    expect(image.snapshots.map(({ name }) => name)).toEqual([...file.snapshots.keys()])
    for (const snapshot of image.snapshots) {
      const what = `${about}, snapshot ${snapshot.name} of ${file.path}`
      const wanted = file.snapshots.get(snapshot.name) ?? new Uint8Array(0)
      await this.#same(await image.openSnapshot(snapshot), wanted, what)
    }
    const bitmaps = await image.bitmaps()
    expect(bitmaps.map(({ name }) => name).sort()).toEqual([...file.bitmaps.keys()].sort())
    for (const { name, auto, inUse, granularityBits } of bitmaps) {
      const bitmap = file.bitmaps.get(name)
      if (bitmap === undefined) continue
      const { enabled, granularity } = bitmap
      expect([auto, inUse, 2 ** granularityBits]).toEqual([enabled, false, granularity])
      const ranges: DirtyRange[] = []
      await image.readBitmap(name, (list) => void ranges.push(...list))
      const missed = missedSector(bitmap, ranges)
      expect(missed, `${about}, bitmap ${name} of ${file.path} misses a sector`).toBeUndefined()
    }
  }

  async #same(
    view: { readonly size: number; read(offset: number, target: Uint8Array): Promise<void> },
    wanted: Uint8Array,
    what: string,
  ): Promise<void> {
    expect(view.size, `size of ${what}`).toBe(wanted.length)
    const bytes = new Uint8Array(view.size)
    await view.read(0, bytes)
    if (bytesEqual(bytes, wanted)) return
    const at = bytes.findIndex((byte, index) => byte !== wanted[index])
    expect.fail(`${what}: byte ${at} of ${wanted.length} is ${bytes[at]}, not ${wanted[at]}`)
  }

  async #check(file: ModelFile, about: string): Promise<void> {
    await using device = await FileDevice.open(this.files, file.path)
    const { dataPath } = file
    const dataFile = dataPath && (await FileDevice.open(this.files, dataPath))
    const options = dataFile ? { dataFile } : {}
    const { corruptions, leaks, checkErrors, findings } = await checkImage(device, options)
    if (dataFile) await dataFile.close()
    const messages = findings.map(({ message }) => message).slice(0, 3)
    const sound = { corruptions: 0, leaks: 0, checkErrors: 0, messages: [] }
    expect({ corruptions, leaks, checkErrors, messages }, `${about}, ${file.path}`).toEqual(sound)
  }
}

/** What a discard makes zero: whole clusters only, and nothing in version 2 over a backing. */
function discarded(
  image: Qcow2Image,
  chain: Chain,
  { offset, length }: { readonly offset: number; readonly length: number },
): { readonly offset: number; readonly length: number } {
  const { clusterSize } = image.geometry
  if (image.header.version === 2 && chain.layers.length > 1) return { offset: 0, length: 0 }
  const start = Math.ceil(offset / clusterSize) * clusterSize
  const isEnd = offset + length === image.size
  const end = isEnd ? image.size : Math.floor((offset + length) / clusterSize) * clusterSize
  return start < end ? { offset: start, length: end - start } : { offset: 0, length: 0 }
}
