/**
 * A qcow2 image: a device that stands on a device. It opens nothing: file, data file and backing are handed
 * to it. This class is the face of an open image; who waits for whom is in turns.ts, and the work is done in io/,
 * metadata/ and the verbs beside it; those are loaded when they are called, since most runs of the command need none.
 */

import type { LongWork } from '../base/progress.ts'
import {
  type BlockDevice,
  type BlockSizes,
  type Capabilities,
  checkRange,
  type Extent,
  promiseOf,
} from '../block/index.ts'
import type { AmendOptions } from './amend.ts'
import type { BitmapChange, DirtyVisitor } from './bitmap-draft.ts'
import type { Compaction, CompactOptions } from './compact.ts'
import { discardGuest, zeroGuest } from './io/discard.ts'
import { guestExtents, guestMapping, guestMappings } from './io/extents.ts'
import { readActive } from './io/read.ts'
import { writeGuest } from './io/write.ts'
import { writeCompressedGuest } from './io/write-compressed.ts'
import { INCOMPATIBLE } from './layout/constants.ts'
import type { ExtensionChange, HeaderNotes } from './layout/extension-change.ts'
import type { Geometry } from './layout/geometry.ts'
import { type Header, hasIncompatible } from './layout/header.ts'
import type { SnapshotRecord } from './layout/snapshot-table.ts'
import type { MergeOptions, MergeSource } from './merge-disk.ts'
import { beginGuestWrite } from './metadata/begin-write.ts'
import { type BitmapRecord, readBitmapDirectory } from './metadata/bitmap-store.ts'
import { commit } from './metadata/commit.ts'
import type { BackingName } from './metadata/header-switch.ts'
import { HostFile } from './metadata/host-file.ts'
import type { Mapping } from './metadata/mapping.ts'
import { openState } from './metadata/open-state.ts'
import type { Qcow2State } from './metadata/state.ts'
import { capabilitiesOf, type OpenOptions } from './open-options.ts'
import type { PullBelowOptions, PullChange, PullCost, PullSource } from './pull-below.ts'
import {
  type BackingReference,
  backingReferenceOf,
  type DataFileReference,
  dataFileReferenceOf,
  encryptionOf,
} from './references.ts'
import type { ResizeOptions } from './resize.ts'
import type { SnapshotChange } from './snapshot-records.ts'
import { SnapshotView } from './snapshot-view.ts'
import type { SnapshotOptions, SnapshotWork } from './snapshots.ts'
import { Turns } from './turns.ts'
import type { Usage } from './usage.ts'

const DEFAULT_CACHE = 32 * 1024 * 1024

/** An open image; as a device it is the active disk. It owns the file that it was opened on. */
export class Qcow2Image implements BlockDevice {
  readonly file: BlockDevice
  readonly can: Capabilities
  readonly blockSizes: BlockSizes
  readonly #state: Qcow2State
  readonly #turns: Turns

  private constructor(state: Qcow2State) {
    this.#state = state
    this.#turns = new Turns(state)
    this.file = state.host.device
    this.can = capabilitiesOf(state.writable)
    const { clusterSize } = state.geometry
    this.blockSizes = { minimum: 1, preferred: clusterSize, maximum: Number.MAX_SAFE_INTEGER }
  }

  /**
   * Opens the image in `file`; a dirty one that is to be written gets its refcounts rebuilt first. Throws an
   * ImageError that names structure and offset where the image is damaged, or asks for something this engine
   * does not know; then `file` stays open and the caller's.
   */
  static async open(file: BlockDevice, options: OpenOptions = {}): Promise<Qcow2Image> {
    const state = await openState(file, {
      writable: options.writable ?? false,
      name: options.name ?? file.name,
      dataFile: options.dataFile,
      tableBudget: options.cacheSize ?? DEFAULT_CACHE,
      punch: options.discard !== 'keep',
    })
    state.backing = options.backing
    if (state.writable && hasIncompatible(state.header, INCOMPATIBLE.dirty)) {
      const { rebuildRefcounts } = await import('./rebuild.ts')
      await state.mutex.run(() => rebuildRefcounts(state))
    }
    return new Qcow2Image(state)
  }

  get name(): string {
    return this.#state.name
  }

  /** Whole sectors only, as QEMU has it. */
  get size(): number {
    return this.#turns.size
  }

  /** The header as it is now. */
  get header(): Header {
    return this.#state.header
  }

  get geometry(): Geometry {
    return this.#state.geometry
  }

  /** What the image says lies below it. */
  get backingReference(): BackingReference | undefined {
    return backingReferenceOf(this.header)
  }

  /** Which file the image says its data is in. */
  get dataFileReference(): DataFileReference | undefined {
    return dataFileReferenceOf(this.header)
  }

  /** How guest data is encrypted; such data can be neither read nor written. */
  get encryption(): 'aes' | 'luks' | undefined {
    return encryptionOf(this.header)
  }

  /** Puts `device` below this image, or nothing. */
  attachBacking(device: BlockDevice | undefined): void {
    this.#state.backing = device
  }

  /** Changes what the image says lies below it, all or nothing; bytes and the device below stay as they are. */
  setBacking(reference: BackingName | undefined, notes: HeaderNotes = {}): Promise<void> {
    return this.#turns.structural(() =>
      import('./metadata/header-rewrite.ts').then((verb) =>
        verb.rewriteBacking(this.#state, reference, notes),
      ),
    )
  }

  /** Sets or removes header extensions of the caller's own, in one switch of the header. */
  changeExtensions(extensions: readonly ExtensionChange[]): Promise<void> {
    return this.#turns.structural(() =>
      import('./metadata/header-rewrite.ts').then((verb) =>
        verb.rewriteExtensions(this.#state, { extensions }),
      ),
    )
  }

  /** Takes over what `source` holds, all or nothing; see merge-disk.ts. */
  mergeDisk(source: MergeSource, options: MergeOptions = {}): Promise<void> {
    return this.#turns.changing(() =>
      import('./merge-disk.ts').then((verb) => verb.mergeDisk(this.#state, source, options)),
    )
  }

  /** Takes over, for every view, what the layer below holds, and stands on what is below that; see pull-below.ts. */
  pullBelow(source: PullSource, change: PullChange, options: PullBelowOptions = {}): Promise<void> {
    return this.#turns.structural(() =>
      import('./pull-below.ts').then((verb) =>
        verb.pullBelow(this.#state, source, change, options),
      ),
    )
  }

  /** What `pullBelow` would copy and take; writes nothing and works on an image that is open for reading. */
  planPull(source: PullSource, options: LongWork = {}): Promise<PullCost> {
    return this.#turns.alone(() =>
      import('./pull-below.ts').then((verb) => verb.planPull(this.#state, source, options)),
    )
  }

  /** Frees all that the active disk holds, all or nothing, so that it reads as what lies below. */
  emptyDisk(options: LongWork = {}): Promise<void> {
    return this.#turns.structural(() =>
      import('./empty-disk.ts').then((verb) => verb.emptyDisk(this.#state, options)),
    )
  }

  /** Hands over the external data file. */
  attachDataFile(device: BlockDevice): void {
    if (this.#state.externalData) this.#state.data = new HostFile(device)
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    return promiseOf(() => this.readNow(offset, target))
  }

  readNow(offset: number, target: Uint8Array): Promise<void> | undefined {
    this.#turns.check(offset, target.length)
    return this.#turns.calls.track(readActive(this.#state, offset, target))
  }

  write(offset: number, source: Uint8Array): Promise<void> {
    return promiseOf(() => this.writeNow(offset, source))
  }

  writeNow(offset: number, source: Uint8Array): Promise<void> | undefined {
    this.#turns.checkWritable(offset, source.length)
    if (source.length === 0) return undefined
    return this.#turns.calls.track(writeGuest(this.#state, offset, source))
  }

  /**
   * Writes one whole cluster compressed (or what the disk has of its last one); where that saves nothing, it
   * is written as any other. Throws a UsageError, code `NOT_A_CLUSTER`, for any other range.
   */
  async writeCompressed(offset: number, source: Uint8Array): Promise<void> {
    this.#turns.checkWritable(offset, source.length)
    if (source.length === 0) return
    await this.#turns.calls.run(() => writeCompressedGuest(this.#state, offset, source))
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { mayDiscard?: boolean } = {},
  ): Promise<void> {
    this.#turns.checkWritable(offset, length)
    const { mayDiscard = false } = options
    await this.#turns.calls.run(() => zeroGuest(this.#state, offset, length, { mayDiscard }))
  }

  /** Frees whole clusters; they read as zeroes then. Version 2 over a backing does nothing: old backing data would reappear. */
  async discard(offset: number, length: number): Promise<void> {
    this.#turns.checkWritable(offset, length)
    if (length > 0) await this.#turns.calls.run(() => discardGuest(this.#state, offset, length))
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    return this.#turns.lookUp(guestExtents, offset, length)
  }

  /** Where the run that starts at `offset` lies in this layer; clipped to `length`. */
  map(offset: number, length: number): Promise<Mapping> {
    return this.#turns.lookUp(guestMapping, offset, length)
  }

  /** As `map`, for many runs at once: ascending from `offset` on; the list may stop short. */
  mappings(offset: number, length: number): Promise<readonly Mapping[]> {
    return this.#turns.lookUp(guestMappings, offset, length)
  }

  async flush(): Promise<void> {
    this.#turns.checkOpen()
    const state = this.#state
    if (state.writable) await this.#turns.calls.run(() => state.mutex.run(() => commit(state)))
  }

  /** Makes the disk larger; a smaller size is a UsageError, code `SHRINK_NOT_ALLOWED`. */
  resize(size: number): Promise<void> {
    return this.resizeDisk(size)
  }

  /** Gives the disk another size, all or nothing; a smaller one must be asked for by name, for bytes are lost. */
  resizeDisk(size: number, options: ResizeOptions = {}): Promise<void> {
    return this.#turns.changing(() =>
      import('./resize.ts').then((verb) => verb.resizeImage(this.#state, size, options)),
    )
  }

  /** Changes options of the format: version, refcount width, lazy refcounts, data file, size; see amend.ts. */
  amend(options: AmendOptions): Promise<void> {
    return this.#turns.changing(() =>
      import('./amend.ts').then((verb) => verb.amendImage(this.#state, options)),
    )
  }

  /** The internal snapshots, oldest first. */
  get snapshots(): readonly SnapshotRecord[] {
    return this.#state.snapshots
  }

  /** Takes a snapshot of the active disk; all or nothing, also in a power cut. */
  createSnapshot(options: SnapshotOptions): Promise<SnapshotRecord> {
    return this.#turns.structural(() =>
      import('./snapshots.ts').then((verb) => verb.createSnapshot(this.#state, options)),
    )
  }

  /** Makes the active disk what the snapshot is, its size too; what was only on the disk is freed. */
  async applySnapshot(snapshot: SnapshotRecord, options: SnapshotWork = {}): Promise<void> {
    this.#turns.checkWritable()
    this.#turns.checkSnapshot(snapshot)
    await this.#turns.calls.run(async () => {
      await beginGuestWrite(this.#state)
      await this.#turns.structural(async () => {
        const { applySnapshot } = await import('./snapshots.ts')
        this.#turns.checkSnapshot(snapshot)
        return applySnapshot(this.#state, snapshot, options)
      })
    })
  }

  /** Makes the file shorter in place, every view unchanged; the snapshots' records are other ones then. */
  compact(options: CompactOptions = {}): Promise<Compaction> {
    return this.#turns.structural(() =>
      import('./compact.ts').then((verb) => verb.compactImage(this.#state, options)),
    )
  }

  /** What `compact` would do, to the byte; writes nothing and works on an image that is open for reading. */
  planCompaction(options: CompactOptions = {}): Promise<Compaction> {
    return this.#turns.alone(() =>
      import('./compact.ts').then((verb) => verb.planCompaction(this.#state, options)),
    )
  }

  /** Who holds the space in the file; reads only. */
  usage(options: LongWork = {}): Promise<Usage> {
    return this.#turns.alone(() =>
      import('./usage.ts').then((verb) => verb.measureUsage(this.#state, options)),
    )
  }

  /** Removes a snapshot; what only it referred to is freed. */
  async deleteSnapshot(snapshot: SnapshotRecord, options: SnapshotWork = {}): Promise<void> {
    this.#turns.checkWritable()
    this.#turns.checkSnapshot(snapshot)
    await this.#turns.structural(async () => {
      const { deleteSnapshot } = await import('./snapshots.ts')
      this.#turns.checkSnapshot(snapshot)
      return deleteSnapshot(this.#state, snapshot, options)
    })
  }

  /** Changes names and private data of snapshots, all or nothing; their records are other ones then. */
  changeSnapshots(changes: readonly SnapshotChange[], notes: HeaderNotes = {}): Promise<void> {
    return this.#turns.structural(() =>
      import('./snapshot-records.ts').then((verb) =>
        verb.changeSnapshotRecords(this.#state, changes, notes),
      ),
    )
  }

  /** A snapshot as a read-only device; it lives as long as this image. */
  async openSnapshot(snapshot: SnapshotRecord): Promise<SnapshotView> {
    this.#turns.checkOpen()
    this.#turns.checkSnapshot(snapshot)
    return this.#turns.calls.run(() => SnapshotView.open(this.#state, snapshot))
  }

  /** Reads VM state, of the active disk or of a snapshot; `offset` counts from its beginning. */
  async readVmState(offset: number, target: Uint8Array, snapshot?: SnapshotRecord): Promise<void> {
    this.#turns.checkOpen()
    if (snapshot === undefined) {
      return this.#turns.calls.run(async () => {
        const { readVmState } = await import('./vm-state.ts')
        return readVmState(this.#state, offset, target)
      })
    }
    checkRange(snapshot.vmStateSize, offset, target.length)
    const view = await this.openSnapshot(snapshot)
    await this.#turns.calls.run(() => view.readVmState(offset, target))
  }

  /** Writes VM state behind the active disk; `createSnapshot` with its size makes it a snapshot's. */
  writeVmState(offset: number, source: Uint8Array): Promise<void> {
    return this.#turns.changing(() =>
      import('./vm-state.ts').then((verb) => verb.writeVmState(this.#state, offset, source)),
    )
  }

  /** The persistent dirty bitmaps, as the directory lists them; none where the bitmaps bit is clear. */
  async bitmaps(): Promise<readonly BitmapRecord[]> {
    this.#turns.checkOpen()
    return readBitmapDirectory(this.file, this.#state.header)
  }

  /** Adds, removes, clears, enables, disables or merges bitmaps: all of `changes` in order, or nothing. */
  changeBitmaps(changes: readonly BitmapChange[], options: LongWork = {}): Promise<void> {
    return this.#turns.structural(() =>
      import('./bitmaps.ts').then((verb) =>
        verb.changeBitmaps(this.#state, this, changes, options),
      ),
    )
  }

  /** Hands over what is dirty in a bitmap, ascending; `visit` must not use this image. */
  readBitmap(name: string, visit: DirtyVisitor, options: LongWork = {}): Promise<void> {
    return this.#turns.alone(() =>
      import('./bitmaps.ts').then((verb) => verb.readBitmap(this.#state, name, visit, options)),
    )
  }

  /** Waits for what is under way, brings all of it to the file, bitmaps too, and closes that; a broken image only closes. */
  close(): Promise<void> {
    return this.#turns.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
