/**
 * Fills clusters that views lack: reads each once from the layers below, gives it a new place, and links it into all the
 * tables that were alike there. Zeroes take no place where the format can say so, or where nothing else would show.
 */

import { isZero } from '../base/bytes.ts'
import type { OpenTable, PullParts } from './pull-clusters.ts'
import { type Filling, fillEntry, isShared, markCopied, placedUnits } from './pull-entries.ts'

/** A guest cluster that is to be filled. */
export interface ClusterPlan {
  /** Guest offset. */
  readonly start: number
  /** Where in the slices its entry lies. */
  readonly at: number
  /** Units that the layer below holds as data; others that are needed are zeroes. */
  readonly data: number
  /** The units that the views of each table lack. */
  readonly needs: readonly number[]
  /** Whether somebody needs one that is data. */
  readonly readsData: boolean
}

/** Tables whose entries for a cluster are alike and become alike. */
interface Variant {
  readonly need: number
  /** Guest offset where the views end, or the cluster. */
  readonly limit: number
  readonly tables: OpenTable[]
  referenceCount: number
}

const IN_FLIGHT = 4
const READ_SIZE = 1024 * 1024

/** Links data below into tables; writes go on while the next data is read. */
export class PullFilling {
  clusterCount = 0
  readonly #parts: PullParts
  readonly #writes: Promise<void>[] = []
  #cannotTransfer = false
  /** Neighbours that are written together. */
  #pending: { place: number; bytes: Uint8Array } | undefined

  constructor(parts: PullParts) {
    this.#parts = parts
  }

  /** Fills all of `plans`, which are in order; what is on its way need not be written yet. */
  async fill(plans: readonly ClusterPlan[], tables: readonly OpenTable[]): Promise<void> {
    const { clusterSize } = this.#parts.state.geometry
    for (let index = 0; index < plans.length; ) {
      const first = plans[index] as ClusterPlan
      let count = 1
      if (first.readsData) {
        const most = Math.max(1, READ_SIZE / clusterSize)
        while (count < most && follows(plans[index + count], first.start + count * clusterSize)) {
          count++
        }
      }
      const moved = await this.#transferRun(plans.slice(index, index + count), tables)
      if (moved > 0) {
        index += moved
        continue
      }
      const content = first.readsData
        ? await this.#read(first.start, count * clusterSize)
        : undefined
      for (let done = 0; done < count; done++) {
        const from = done * clusterSize
        await this.#fillCluster(
          plans[index + done] as ClusterPlan,
          tables,
          content?.subarray(from, from + clusterSize),
        )
      }
      await this.#flushPending()
      index += count
    }
  }

  /** Waits for every write, whatever becomes of it. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#writes)
  }

  /** Throws what a write threw. */
  async finish(): Promise<void> {
    await Promise.all(this.#writes)
  }

  /** Lets the host copy whole clusters that one place each suffices for; says how many plans that were. */
  async #transferRun(plans: readonly ClusterPlan[], tables: readonly OpenTable[]): Promise<number> {
    const { state, source, views, space, options, countOnly } = this.#parts
    const { plainLength, transfer } = source
    const { clusterSize, extendedL2 } = state.geometry
    const start = plans[0]?.start ?? 0
    const isPossible = plainLength !== undefined && transfer !== undefined && !extendedL2
    if (!isPossible || countOnly === true || this.#cannotTransfer) return 0
    const runs: Variant[] = []
    for (const plan of plans) {
      const [variant, other] = plan.readsData ? this.#variants(plan, tables) : []
      if (variant === undefined || other !== undefined) break
      const isWhole = variant.limit === plan.start + clusterSize
      if (!isWhole || variant.referenceCount > views.referenceLimit) break
      runs.push(variant)
    }
    const plain = runs.length === 0 ? 0 : await plainLength(start, runs.length * clusterSize)
    const count = Math.floor(plain / clusterSize)
    const places: number[] = []
    for (let index = 0; index < count; index++) {
      const { tables: all, referenceCount } = runs[index] as Variant
      const kinds = { data: 1, zeroes: 0 }
      const { at } = plans[index] as ClusterPlan
      places.push(await this.#claim(at, { tables: all, count: referenceCount }, kinds))
    }
    for (let from = 0; from < count; ) {
      const place = places[from] as number
      let to = from + 1
      while (to < count && places[to] === place + (to - from) * clusterSize) to++
      const [offset, length] = [start + from * clusterSize, (to - from) * clusterSize]
      const done = await space.transfer(() => transfer(offset, length, place))
      if (done < length) {
        this.#cannotTransfer = true
        await space.write(place + done, await this.#read(offset + done, length - done))
      }
      await options.pace?.(length)
      from = to
    }
    return count
  }

  async #read(offset: number, length: number): Promise<Uint8Array> {
    const { source, countOnly } = this.#parts
    if (countOnly === true) return anyData(length)
    const bytes = new Uint8Array(length)
    const there = Math.min(length, source.device.size - offset)
    if (there > 0) await source.device.read(offset, bytes.subarray(0, there))
    return bytes
  }

  async #fillCluster(
    plan: ClusterPlan,
    tables: readonly OpenTable[],
    content: Uint8Array | undefined,
  ): Promise<void> {
    const variants = this.#variants(plan, tables)
    for (const variant of variants) await this.#fillVariant(plan, variant, content)
    if (this.#parts.state.geometry.extendedL2) await this.#settleActive(plan, tables)
  }

  #variants(plan: ClusterPlan, tables: readonly OpenTable[]): readonly Variant[] {
    const { clusterSize, l2EntrySize } = this.#parts.state.geometry
    const variants: Variant[] = []
    for (const [index, table] of tables.entries()) {
      const need = plan.needs[index] as number
      if (need === 0) continue
      const limit = Math.min(table.group.end, plan.start + clusterSize)
      const same = variants.find((one) => {
        const other = one.tables[0] as OpenTable
        return (
          one.need === need &&
          one.limit === limit &&
          sameEntry(table.view, other.view, plan.at, l2EntrySize)
        )
      })
      const added = table.group.views.length
      if (same === undefined) {
        variants.push({ need, limit, tables: [table], referenceCount: added })
      } else {
        same.tables.push(table)
        same.referenceCount += added
      }
    }
    return variants
  }

  async #fillVariant(
    plan: ClusterPlan,
    variant: Variant,
    content: Uint8Array | undefined,
  ): Promise<void> {
    const { state, views } = this.#parts
    const bytes = content === undefined ? undefined : cut(content, variant.limit - plan.start)
    const { data, zeroes } = this.#kinds(plan, variant, bytes)
    if ((data | zeroes) === 0) return
    if (data === 0) return this.#link(variant.tables, plan.at, { place: undefined, data, zeroes })
    const { clusterSize } = state.geometry
    const whole = await this.#withOld(plan, variant, bytes ?? new Uint8Array(clusterSize), data)
    // As many tables to one copy as can refer to it.
    for (let index = 0; index < variant.tables.length; ) {
      const first = index
      let count = 0
      while (index < variant.tables.length) {
        const more = (variant.tables[index] as OpenTable).group.views.length
        if (count > 0 && count + more > views.referenceLimit) break
        count += more
        index++
      }
      await this.#place(plan, { tables: variant.tables.slice(first, index), count }, whole, {
        data,
        zeroes,
      })
    }
  }

  /** Which of the needed units are stored as data, and which as zeroes. */
  #kinds(
    plan: ClusterPlan,
    { need, limit }: Variant,
    bytes: Uint8Array | undefined,
  ): { data: number; zeroes: number } {
    const { state, source } = this.#parts
    const { subclusterSize, subclustersPerCluster } = state.geometry
    let data = 0
    let zeroes = 0
    for (let unit = 0; unit < subclustersPerCluster; unit++) {
      const bit = (1 << unit) >>> 0
      if ((need & bit) === 0) continue
      const from = unit * subclusterSize
      const isData = (plan.data & bit) !== 0 && bytes !== undefined
      const holdsNothing = !isData || isZero(bytes, from, from + subclusterSize)
      if (!holdsNothing) data = (data | bit) >>> 0
      else if (plan.start + from < Math.min(source.belowSize, limit)) {
        if (state.header.version === 2) data = (data | bit) >>> 0
        else zeroes = (zeroes | bit) >>> 0
      }
    }
    return { data, zeroes }
  }

  /** The cluster with what its entry has in another place already, which it leaves. */
  async #withOld(
    { at }: ClusterPlan,
    { tables, referenceCount }: Variant,
    bytes: Uint8Array,
    data: number,
  ): Promise<Uint8Array> {
    const { state, space } = this.#parts
    const { extendedL2, clusterSize, subclusterSize } = state.geometry
    if (!extendedL2 || this.#parts.countOnly === true) return bytes
    const old = placedUnits((tables[0] as OpenTable).view, at)
    if (old.offset === 0) return bytes
    const whole = new Uint8Array(clusterSize)
    await state.host.readWithin(old.offset, whole, 'data cluster')
    for (let unit = 0; unit < 32; unit++) {
      if (((data >>> unit) & 1) === 0) continue
      const from = unit * subclusterSize
      whole.set(bytes.subarray(from, from + subclusterSize), from)
    }
    for (let less = referenceCount; less > 0; less--) {
      await space.change(old.offset / clusterSize, 1, -1)
    }
    return whole
  }

  /** Gives a cluster a place that all of `tables` refer to. */
  async #place(
    { at }: ClusterPlan,
    { tables, count }: { tables: readonly OpenTable[]; count: number },
    bytes: Uint8Array,
    kinds: { data: number; zeroes: number },
  ): Promise<void> {
    await this.#write(await this.#claim(at, { tables, count }, kinds), bytes)
  }

  /** Takes a place for a cluster, and links it into all of `tables`. */
  async #claim(
    at: number,
    { tables, count }: { tables: readonly OpenTable[]; count: number },
    kinds: { data: number; zeroes: number },
  ): Promise<number> {
    const { state, space } = this.#parts
    const { clusterSize } = state.geometry
    const place = await space.take(1)
    this.clusterCount++
    for (let more = count; more > 1; more--) await space.change(place / clusterSize, 1, 1)
    this.#link(tables, at, { place, ...kinds })
    const [only] = tables
    if (count === 1 && only?.group.isOwn === true) markCopied(only.view, at)
    return place
  }

  #link(tables: readonly OpenTable[], at: number, filling: Filling): void {
    for (const table of tables) {
      fillEntry(table.view, at, this.#parts.state.geometry, filling)
      table.isChanged = true
    }
  }

  /** What a snapshot shared with the active disk and left may be the active disk's alone now (I4). */
  async #settleActive(plan: ClusterPlan, tables: readonly OpenTable[]): Promise<void> {
    const own = tables.find(({ group }) => group.isOwn)
    if (own === undefined || own.group.end <= plan.start) return
    if (!isShared(own.view, plan.at)) return
    const { offset } = placedUnits(own.view, plan.at)
    const { space, state } = this.#parts
    if ((await space.count(offset / state.geometry.clusterSize)) !== 1) return
    markCopied(own.view, plan.at)
    own.isChanged = true
  }

  async #write(place: number, bytes: Uint8Array): Promise<void> {
    const pending = this.#pending
    if (
      pending !== undefined &&
      pending.place + pending.bytes.length === place &&
      pending.bytes.buffer === bytes.buffer &&
      pending.bytes.byteOffset + pending.bytes.length === bytes.byteOffset
    ) {
      const length = pending.bytes.length + bytes.length
      pending.bytes = new Uint8Array(bytes.buffer, pending.bytes.byteOffset, length)
      return
    }
    await this.#flushPending()
    this.#pending = { place, bytes }
  }

  async #flushPending(): Promise<void> {
    const pending = this.#pending
    this.#pending = undefined
    if (pending === undefined) return
    const { space, options } = this.#parts
    const write = space.write(pending.place, pending.bytes)
    write.catch(() => undefined)
    this.#writes.push(write)
    if (this.#writes.length >= IN_FLIGHT) await this.#writes.shift()
    await options.pace?.(pending.bytes.length)
  }
}

let ones = new Uint8Array(0)

/** Bytes that are no zeroes, where nothing is read but its cost is counted; lent. */
function anyData(length: number): Uint8Array {
  if (ones.length < length) ones = new Uint8Array(Math.max(length, READ_SIZE)).fill(1)
  return ones.subarray(0, length)
}

function follows(plan: ClusterPlan | undefined, start: number): boolean {
  return plan !== undefined && plan.start === start && plan.readsData
}

function sameEntry(a: DataView, b: DataView, at: number, length: number): boolean {
  for (let word = at; word < at + length; word += 4) {
    if (a.getUint32(word) !== b.getUint32(word)) return false
  }
  return true
}

/** The bytes with zeroes from `length` on. */
function cut(bytes: Uint8Array, length: number): Uint8Array {
  if (length >= bytes.length || isZero(bytes, length)) return bytes
  const whole = new Uint8Array(bytes.length)
  whole.set(bytes.subarray(0, length))
  return whole
}
