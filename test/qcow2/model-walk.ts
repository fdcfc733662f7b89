/**
 * An image and its model side by side through random steps. Batches run several requests at a time: what comes
 * out must be what one of their orders gives, and reads among them see no foreign byte.
 */

import { expect } from 'vitest'
import { bytesEqual, isZero } from '../../src/base/bytes.ts'
import { checkImage, type Qcow2Image } from '../../src/qcow2/index.ts'
import type { ModelDisk } from '../support/model-disk.ts'
import { ModelBitmaps } from './model-bitmaps.ts'
import type { Shape } from './model-geometry.ts'
import {
  type BatchItem,
  imagine,
  perform,
  type Range,
  type Request,
  rangeOf,
  type Step,
  windowsOf,
} from './model-steps.ts'
import type { Subject } from './model-subject.ts'
import { doVerb, hasCode } from './model-verbs.ts'

/** One of the requests of a batch, or a verb with the name of its snapshot; `done` says whether it worked. */
type Op =
  | { readonly verb: 'snapshot' | 'apply' | 'delete'; readonly name: string; done: boolean }
  | { readonly request: Request; readonly range: Range; done: boolean }

/** Somebody else who does something with the image while it is closed, and tells the model of it. */
export type Peer = (walk: Walk) => Promise<void>

/** A peer has its turn after so many steps. */
const PEER_EVERY = 6

/** An image and its model on their way through the steps. */
export class Walk {
  readonly subject: Subject
  shape: Shape
  model: ModelDisk
  image: Qcow2Image
  /** How many names of snapshots were used. */
  snapshotCount = 0
  /** VM state of each snapshot that has some. */
  readonly vmStates = new Map<string, Uint8Array>()
  /** VM state behind the active disk, after a snapshot that has some was applied. */
  activeVm: Uint8Array | undefined

  readonly bitmaps = new ModelBitmaps()

  private constructor(subject: Subject, image: Qcow2Image) {
    this.subject = subject
    this.shape = subject.shape
    this.model = subject.model
    this.image = image
  }

  /** Walks through all steps, compares and checks, closes, and does so once more with the image opened anew. */
  static async run(subject: Subject, steps: readonly Step[], peer?: Peer): Promise<Walk> {
    const walk = new Walk(subject, await subject.open(true))
    // Where each step moves megabytes, fewer of them will do.
    const isHeavy = subject.shape.clusterSize > 1024 * 1024
    for (const [index, step] of (isHeavy ? steps.slice(0, 20) : steps).entries()) {
      const before = walk.bitmaps.size > 0 ? walk.model.clone() : undefined
      await walk.#step(step)
      if (before !== undefined) walk.bitmaps.follow(before, walk.model)
      if (peer !== undefined && index % PEER_EVERY === PEER_EVERY - 1) await walk.#yield(peer)
    }
    await walk.compare()
    await walk.image.close()
    await walk.check()
    walk.image = await subject.open(false)
    await walk.compare()
    await walk.image.close()
    return walk
  }

  /** Closes the image and lets somebody else have a turn with it. */
  async #yield(peer: Peer): Promise<void> {
    await this.image.close()
    const before = this.bitmaps.size > 0 ? this.model.clone() : undefined
    await peer(this)
    if (before !== undefined) this.bitmaps.follow(before, this.model)
    this.activeVm = undefined
    await this.check()
    this.image = await this.subject.open(true)
    await this.compare()
  }

  async #step(step: Step): Promise<void> {
    if ('verb' in step) return doVerb(this, step.verb, step.pick)
    if ('batch' in step) return this.#batch(step.batch, step.near)
    const range = rangeOf(step.request, this.model.size, this.shape)
    const expected = this.model.read(range.offset, range.length)
    const bytes = await perform(this.image, step.request, range)
    if (bytes !== undefined) expectSame(bytes, expected, `read at ${range.offset}`)
    imagine(this.model, step.request, range)
  }

  /** Whether `verb` worked; with few refcount bits it may say that one reference more does not fit. */
  async mayOverflow(verb: () => Promise<unknown>): Promise<boolean> {
    try {
      await verb()
      return true
    } catch (error) {
      if (!hasCode(error, ['REFCOUNT_OVERFLOW']) || this.shape.refcountBits > 4) throw error
      return false
    }
  }

  async #batch(batch: readonly BatchItem[], near: boolean): Promise<void> {
    const before = this.model
    const ops = this.#opsOf(batch, near)
    const results = await Promise.all(
      ops.map(async (op) => {
        if ('request' in op) return perform(this.image, op.request, op.range)
        const { verb, name } = op
        const snapshot = this.image.snapshots.find((one) => one.name === name)
        op.done = await this.mayOverflow(async () => {
          if (verb === 'snapshot') await this.image.createSnapshot({ name })
          else if (verb === 'apply') await this.image.applySnapshot(snapshot!)
          else await this.image.deleteSnapshot(snapshot!)
        })
        if (op.done && verb !== 'delete') this.activeVm = undefined
        if (verb === 'delete') this.vmStates.delete(name)
        return undefined
      }),
    )
    this.#expectPossible(before, ops, results)
    const now = await this.#content()
    const changes = ops.filter(
      (op) => op.done && (!('request' in op) || !['read', 'flush'].includes(op.request.kind)),
    )
    for (const order of permutations(changes)) {
      const model = before.clone()
      for (const op of order) {
        if ('request' in op) imagine(model, op.request, op.range)
        else if (op.verb === 'snapshot') model.createSnapshot(op.name)
        else if (op.verb === 'apply') model.applySnapshot(op.name)
        else model.deleteSnapshot(op.name)
      }
      if (!this.#isContent(model, now)) continue
      this.model = model
      return
    }
    expect.fail('requests at the same time left what no order of them gives')
  }

  /** What the items of a batch are on the disk as it is; verbs that find no snapshot fall away. */
  #opsOf(batch: readonly BatchItem[], near: boolean): Op[] {
    const { size } = this.model
    // Each is used once, so that whatever comes first, the others still find theirs.
    const free = this.model.snapshots.filter((one) => one.size === size).map(({ name }) => name)
    const ops: Op[] = []
    for (const item of batch) {
      if ('at' in item) {
        const range = rangeOf(item, size, this.shape, near)
        ops.push({ request: item, range, done: true })
      } else if (item.kind !== 'snapshot') {
        const name = free.pop()
        if (name !== undefined) ops.push({ verb: item.kind, name, done: true })
      } else if (this.shape.data === 'inside') {
        ops.push({ verb: 'snapshot', name: `s${this.snapshotCount++}`, done: true })
      }
    }
    return ops
  }

  /** Reads in a batch see, byte by byte, what was there or what one of the others put there. */
  #expectPossible(
    before: ModelDisk,
    ops: readonly Op[],
    results: readonly (Uint8Array | undefined)[],
  ): void {
    for (const [index, bytes] of results.entries()) {
      const op = ops[index]
      if (bytes === undefined || op === undefined || !('request' in op)) continue
      const { offset, length } = op.range
      const allowed = [before.read(offset, length)]
      for (const other of ops) {
        const alone = before.clone()
        if ('request' in other) imagine(alone, other.request, other.range)
        else if (other.verb === 'apply') alone.applySnapshot(other.name)
        allowed.push(alone.read(offset, length))
      }
      if (allowed.some((one) => bytesEqual(one, bytes))) continue
      for (let at = 0; at < length; at++) {
        if (allowed.some((one) => one[at] === bytes[at])) continue
        expect.fail(`read at ${offset} saw a foreign byte at ${offset + at}: ${bytes[at]}`)
      }
    }
  }

  /** The windows of every view, by name. */
  async #content(): Promise<Map<string, Uint8Array[]>> {
    const content = new Map<string, Uint8Array[]>()
    content.set('', await readWindows(this.image, this.shape))
    for (const snapshot of this.image.snapshots) {
      const view = await this.image.openSnapshot(snapshot)
      content.set(snapshot.name, await readWindows(view, this.shape))
    }
    return content
  }

  #isContent(model: ModelDisk, content: ReadonlyMap<string, readonly Uint8Array[]>): boolean {
    const names = ['', ...model.snapshots.map(({ name }) => name)]
    if (content.size !== names.length) return false
    return names.every((name) => {
      const found = content.get(name)
      return found !== undefined && differs(model, name, found, this.shape) === undefined
    })
  }

  async compare(): Promise<void> {
    const { model, shape } = this
    expect(this.image.size).toBe(model.size)
    expect(this.image.snapshots.map(({ name }) => name)).toEqual(
      model.snapshots.map(({ name }) => name),
    )
    for (const [name, found] of await this.#content()) {
      expect(differs(model, name, found, shape), `view '${name}'`).toBeUndefined()
    }
    for (const snapshot of this.image.snapshots) {
      const vmState = this.vmStates.get(snapshot.name) ?? new Uint8Array(0)
      expect(snapshot.vmStateSize).toBe(vmState.length)
      const bytes = new Uint8Array(vmState.length)
      await this.image.readVmState(0, bytes, snapshot)
      expectSame(bytes, vmState, `VM state of ${snapshot.name}`)
    }
    if (this.activeVm !== undefined) {
      const bytes = new Uint8Array(this.activeVm.length)
      await this.image.readVmState(0, bytes)
      expectSame(bytes, this.activeVm, 'VM state of the active disk')
    }
    await this.bitmaps.compare(this.image)
    const { dataFile } = this.subject
    if (shape.data !== 'external-raw' || dataFile === undefined) return
    const found = await readWindows(dataFile, shape, model.size)
    expect(differs(model, '', found, shape), 'raw data file').toBeUndefined()
    // The file may end with the last cluster, as QEMU's do.
    const rest = new Uint8Array(dataFile.size - model.size)
    await dataFile.read(model.size, rest)
    expect(isZero(rest)).toBe(true)
  }

  async check(): Promise<void> {
    await using file = await this.subject.file()
    const { dataFile } = this.subject
    const report = await checkImage(file, dataFile === undefined ? {} : { dataFile })
    const { corruptions, leaks, checkErrors, findings } = report
    const messages = findings.map(({ message }) => message).slice(0, 5)
    expect({ corruptions, leaks, checkErrors, messages }).toEqual({
      corruptions: 0,
      leaks: 0,
      checkErrors: 0,
      messages: [],
    })
  }
}

async function readWindows(
  view: { readonly size: number; read(offset: number, target: Uint8Array): Promise<void> },
  shape: Shape,
  size = view.size,
): Promise<Uint8Array[]> {
  return Promise.all(
    windowsOf(size, shape).map(async ({ offset, length }) => {
      const bytes = new Uint8Array(length)
      await view.read(offset, bytes)
      return bytes
    }),
  )
}

/** Where a view ('' is the active disk) is not what the model says; undefined where it is. */
function differs(
  model: ModelDisk,
  name: string,
  found: readonly Uint8Array[],
  shape: Shape,
): string | undefined {
  const size = name === '' ? model.size : model.snapshots.find((one) => one.name === name)?.size
  if (size === undefined) return 'no such view'
  for (const [index, { offset, length }] of windowsOf(size, shape).entries()) {
    const wanted =
      name === '' ? model.read(offset, length) : model.readSnapshot(name, offset, length)
    const bytes = found[index]
    if (bytes === undefined || bytes.length !== length) return 'another size'
    if (bytesEqual(bytes, wanted)) continue
    let at = 0
    while (bytes[at] === wanted[at]) at++
    return `byte ${offset + at} is ${bytes[at]}, not ${wanted[at]}`
  }
  return undefined
}

function expectSame(found: Uint8Array, wanted: Uint8Array, what: string): void {
  if (bytesEqual(found, wanted)) return
  const at = wanted.findIndex((byte, index) => byte !== found[index])
  expect.fail(`${what}: byte ${at} is ${found[at]}, not ${wanted[at]} (${found.length} bytes)`)
}

function* permutations<T>(items: readonly T[]): Generator<readonly T[]> {
  if (items.length <= 1) {
    yield items
    return
  }
  for (const [index, first] of items.entries()) {
    const others = items.filter((_, other) => other !== index)
    for (const rest of permutations(others)) yield [first, ...rest]
  }
}
