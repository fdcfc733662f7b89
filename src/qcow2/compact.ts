/**
 * Makes the file of an image shorter in place: what lies at its end moves into free clusters further down, and the
 * end is cut off. It goes in rounds (compact-round.ts), each all or nothing, so that it can be stopped at any
 * time, by a power cut too, and done again. What it would do is found out by doing it on a scratch device.
 */

import { breathe } from '../base/breathe.ts'
import { divideUp } from '../base/bytes.ts'
import { ImageError, UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { checkImage } from './check.ts'
import { findPinnedEnd } from './compact-pinned.ts'
import { type RoundOptions, runRound } from './compact-round.ts'
import { Survey } from './compact-survey.ts'
import { findZeroClusters } from './compact-zero.ts'
import { INCOMPATIBLE } from './layout/constants.ts'
import { hasIncompatible } from './layout/header.ts'
import { beginChange } from './metadata/begin-write.ts'
import type { ClusterSet } from './metadata/cluster-set.ts'
import { commit } from './metadata/commit.ts'
import { openState } from './metadata/open-state.ts'
import type { Qcow2State } from './metadata/state.ts'
import { rebuildRefcounts } from './rebuild.ts'
import { ScratchDevice } from './scratch-device.ts'

/** How an image is compacted. */
export interface CompactOptions extends LongWork {
  /** Bytes in use at the end of the file that may move; without it, as many as help. */
  readonly maxMove?: number
  /** Clusters that hold zeroes only become zero clusters first, in every view. Reads all data. */
  readonly zero?: boolean
}

/** What compacting an image did, or would do. */
export interface Compaction {
  /** Bytes of the file before. */
  readonly oldFileSize: number
  readonly fileSize: number
  /** Bytes of data that were copied to another place; metadata that was written anew is not counted. */
  readonly movedSize: number
  /** Bytes of clusters that became zero clusters. */
  readonly zeroedSize: number
  /** Bytes that are free within the file afterwards. */
  readonly freeSize: number
  /** Bytes up to the end of what cannot move: leaked clusters, and encrypted data that is bound to its place. */
  readonly pinnedSize: number
}

/**
 * A round moves so many bytes, or this share of a larger file: that is what is lost where it is interrupted, while each round
 * goes through all tables.
 */
const ROUND_LENGTH = 256 * 1024 * 1024
const ROUND_SHARE = 32
/** More clusters are not moved in one round; they take memory. */
const ROUND_CLUSTERS = 1 << 17
/** L2 tables that one round turns zero at most. */
const ZERO_TABLES = 1024
const TABLE_CACHE = 1024 * 1024

/** Compacts the image. The caller holds the whole range and the mutex, and has begun the change. */
export async function compactImage(
  state: Qcow2State,
  options: CompactOptions = {},
): Promise<Compaction> {
  if (!state.host.device.can.resize) {
    throw new UsageError('NOT_SUPPORTED', 'compacting needs a file that can be cut off')
  }
  const zero = await prepare(state, options)
  return new Compactor(state, options, zero, true).run()
}

/**
 * Finds out what `compactImage` would do; nothing is written. For an image that is open for writing, the caller holds
 * the whole range and the mutex.
 */
export async function planCompaction(
  state: Qcow2State,
  options: CompactOptions = {},
): Promise<Compaction> {
  if (state.writer !== undefined) await commit(state)
  const scratch = await scratchState(state)
  const zero = await prepare(scratch, options)
  return new Compactor(scratch, options, zero, false).run()
}

async function scratchState(state: Qcow2State): Promise<Qcow2State> {
  const scratch = await openState(new ScratchDevice(state.host.device), {
    writable: true,
    name: state.name,
    dataFile: undefined,
    tableBudget: TABLE_CACHE,
    punch: true,
  })
  scratch.backing = state.backing
  if (hasIncompatible(scratch.header, INCOMPATIBLE.dirty)) await rebuildRefcounts(scratch)
  await beginChange(scratch)
  return scratch
}

/** Refuses what must be mended first, and finds the zeroes. */
async function prepare(
  state: Qcow2State,
  options: CompactOptions,
): Promise<ClusterSet | undefined> {
  if (options.zero && state.header.cryptMethod !== 0) {
    throw new UsageError('ENCRYPTED', 'zeroes cannot be found in encrypted data')
  }
  await state.quarantine.reads.drain()
  await commit(state)
  const { signal } = options
  const report = await checkImage(state.host.device, { signal, findingLimit: 1 })
  if (report.corruptions + report.checkErrors > 0 || report.failure !== undefined) {
    const reason = report.failure ?? report.findings[0]?.message
    throw new ImageError('IMAGE_CORRUPT', `image is damaged and cannot be compacted: ${reason}`, {
      context: { corruptions: report.corruptions },
    })
  }
  // Version 2 has no zero clusters; with a backing, that would show instead.
  const canZero = state.header.version === 3 || state.header.backingName === undefined
  return options.zero && canZero ? findZeroClusters(state, { signal }) : undefined
}

class Compactor {
  readonly #state: Qcow2State
  readonly #options: CompactOptions
  readonly #zero: ClusterSet | undefined
  readonly #copiesData: boolean
  readonly #oldFileSize: number
  #moved = 0
  #zeroed = 0
  #pinnedEnd = 0
  /** Clusters that may still move. */
  #budget: number

  constructor(
    state: Qcow2State,
    options: CompactOptions,
    zero: ClusterSet | undefined,
    copiesData: boolean,
  ) {
    this.#state = state
    this.#options = options
    this.#zero = zero
    this.#copiesData = copiesData
    this.#oldFileSize = state.host.size
    const { maxMove = Number.POSITIVE_INFINITY } = options
    this.#budget = Math.floor(maxMove / state.geometry.clusterSize)
  }

  async run(): Promise<Compaction> {
    const { clusterSize } = this.#state.geometry
    this.#pinnedEnd = await findPinnedEnd(this.#state, this.#options.signal)
    await this.#dropZeroes()
    await this.#cut()
    await this.#descend({ leavesRest: true })
    // One round for all that is left, tables aside, instead of ever smaller ones; where that cannot be, those.
    await this.#settle()
    await this.#descend()
    if (await this.#settle()) await this.#descend()
    const survey = await Survey.take(this.#state)
    await this.#giveBack(survey)
    await this.#state.host.flush()
    const { size } = this.#state.host
    return {
      oldFileSize: this.#oldFileSize,
      fileSize: size,
      movedSize: this.#moved,
      zeroedSize: this.#zeroed,
      freeSize: (divideUp(size, clusterSize) - survey.used) * clusterSize,
      pinnedSize: this.#pinnedEnd * clusterSize,
    }
  }

  async #dropZeroes(): Promise<void> {
    if (this.#zero === undefined) return
    const before = (await Survey.take(this.#state)).used
    const options = {
      from: Number.POSITIVE_INFINITY,
      zero: this.#zero,
      tableLimit: ZERO_TABLES,
    }
    while ((await this.#round(options))?.isPartial);
    const { clusterSize } = this.#state.geometry
    const after = await Survey.take(this.#state)
    this.#zeroed = Math.max(0, before - after.used) * clusterSize
    // New tables that went behind the end must not stay there, whatever the limit.
    this.#budget += await after.usedFrom(divideUp(this.#oldFileSize, clusterSize))
  }

  /** Moves the top of the file down, as much at a time as fits, until nothing does any more. */
  async #descend(options: { leavesRest?: boolean } = {}): Promise<void> {
    for (;;) {
      const before = (await Survey.take(this.#state)).end
      if (!(await this.#lower(options))) return
      await this.#cut()
      if ((await Survey.take(this.#state)).end >= before) return
    }
  }

  /** Does one round, the largest for which there is room; false where there is none, or for the rest that one could do. */
  async #lower({ leavesRest = false }: { leavesRest?: boolean }): Promise<boolean> {
    const survey = await Survey.take(this.#state)
    const longest = this.#longestRound(survey)
    const lowest = survey.packedEnd(this.#pinnedEnd)
    const rest = await survey.usedFrom(lowest)
    if (leavesRest && rest <= longest) return false
    let count = Math.min(longest, rest, this.#budget)
    for (; count >= 1; count = Math.floor(count / 2)) {
      const from = Math.max(lowest, await survey.startOfTop(count))
      const free = from - survey.used + (await survey.usedFrom(from))
      if (free < count + 2 || (await this.#round({ from })) === undefined) continue
      this.#budget -= count
      return true
    }
    return false
  }

  /** Clusters that one round may move. */
  #longestRound(survey: Survey): number {
    const { clusterSize } = this.#state.geometry
    const share = Math.max(ROUND_LENGTH / clusterSize, survey.end / ROUND_SHARE)
    return Math.min(ROUND_CLUSTERS, Math.floor(share))
  }

  /**
   * Brings the last clusters down, for which there is room, but not beside the tables that name them. All of that
   * goes up once, behind the end, and then into what is free below. Answers whether it went up and not all of it
   * came down.
   */
  async #settle(): Promise<boolean> {
    const survey = await Survey.take(this.#state)
    const lowest = survey.packedEnd(this.#pinnedEnd)
    const count = await survey.usedFrom(lowest)
    if (survey.end <= lowest || count > this.#budget || count > this.#longestRound(survey)) {
      return false
    }
    const lift = async (from: number): Promise<boolean> => {
      const liftTo = (await Survey.take(this.#state)).end
      const done = await this.#round({ from, liftTo, movesRuns: true, holesTo: lowest })
      return done !== undefined
    }
    if (!(await lift(lowest))) return false
    const evacuated = lowest - this.#runClusters(lowest)
    if (evacuated < lowest && evacuated > this.#pinnedEnd && !(await lift(evacuated))) return true
    const end = (await Survey.take(this.#state)).packedEnd(this.#pinnedEnd)
    const runsFrom = Math.max(1, end - this.#runClusters(end))
    const done = await this.#round({ from: end, runsFrom, holesTo: end })
    await this.#cut()
    return done === undefined
  }

  /** Clusters of all structures that need several in a row, for a file that ends at `end`. */
  #runClusters(end: number): number {
    const { header, geometry, snapshots, snapshotTableLength } = this.#state
    const { clusterSize, refcountsPerBlock } = geometry
    const lengths = [
      header.l1Size * 8,
      snapshotTableLength,
      divideUp(end, refcountsPerBlock) * 8,
      ...snapshots.map((one) => one.l1Size * 8),
    ]
    const counts = lengths.map((length) => divideUp(length, clusterSize))
    return counts.filter((count) => count > 1).reduce((sum, count) => sum + count, 0)
  }

  /** Where the top did not all come down, and so was not cut off, the host gets what is free between. */
  async #giveBack(survey: Survey): Promise<void> {
    const { host, geometry } = this.#state
    const packedEnd = survey.packedEnd(this.#pinnedEnd)
    if (!this.#copiesData || survey.end <= packedEnd) return
    const { clusterSize } = geometry
    for await (const { first, count } of survey.freeRuns(packedEnd)) {
      await host.punch(first * clusterSize, count * clusterSize)
      await breathe(this.#options.signal)
    }
  }

  /** Cuts off what is free at the end of the file. */
  async #cut(): Promise<void> {
    const { host, geometry } = this.#state
    const end = (await Survey.take(this.#state)).end * geometry.clusterSize
    if (host.size > end) await host.resize(end)
  }

  async #round(options: Omit<RoundOptions, 'copiesData'>) {
    const { signal, onProgress } = this.#options
    signal?.throwIfAborted()
    const done = await runRound(this.#state, {
      ...options,
      signal,
      onProgress: undefined,
      copiesData: this.#copiesData,
    })
    this.#moved += done?.moved ?? 0
    if (done !== undefined && done.moved > 0) {
      const rest = Math.max(0, this.#state.host.size - this.#oldFileSize)
      onProgress?.({ done: this.#moved, total: this.#moved + rest })
    }
    return done
  }
}
