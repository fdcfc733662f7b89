/**
 * Repairs an image in the file that it was given, all or nothing: new refcounts, and tables where they change, go behind everything
 * else, and one write of header sector 0 makes them true. Nothing else is overwritten and no freed cluster is given back, so a
 * repair can be taken back. What is repaired and how it is told is as `qemu-img check -r` has it, but for leaks that look like data.
 */

import { IoError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import type { BlockDevice } from '../block/index.ts'
import { type CheckOptions, type CheckReport, checkImage, checkParts } from './check.ts'
import { writeCounts } from './count-writer.ts'
import { type ImageParts, partsOfHeader, readHeaderOf, readParts } from './image-parts.ts'
import {
  AUTOCLEAR,
  EXTENSION,
  INCOMPATIBLE,
  KNOWN_AUTOCLEAR,
  SECTOR_SIZE,
} from './layout/constants.ts'
import { type HeaderChange, prepareHeader, switchHeader } from './metadata/header-switch.ts'
import type { HostFile } from './metadata/host-file.ts'
import {
  checkRoom,
  planRepair,
  type RepairLimits,
  type RepairPlan,
  repairedTable,
} from './repair-plan.ts'
import { failedAtSnapshots, mendSnapshots } from './repair-snapshot-table.ts'
import { type RepairSurvey, surveyImage } from './repair-survey.ts'
import { type Suspicion, suspectLeaks } from './repair-suspicion.ts'
import { digestRange, type RepairUndo } from './repair-undo.ts'

/** How a repair goes. */
export interface RepairOptions extends LongWork, Pick<CheckOptions, 'findingLimit'> {
  /** `leaks` only lowers counts. */
  readonly what: 'leaks' | 'all'
  /** Tell what would be done, and write nothing. */
  readonly dryRun?: boolean
  /** Free leaked clusters even where they look like data whose reference was lost. */
  readonly force?: boolean
  /** Drop all bitmaps, as where their directory is broken and the image cannot be opened because of it. */
  readonly dropBitmaps?: boolean
  /** Called with what takes the repair back when all is written but the header; it should be durable when this resolves. */
  readonly onUndo?: (undo: RepairUndo) => Promise<void>
}

/** What a repair did, or would do. */
export interface RepairReport {
  /** The check before; its failure, if any, is why nothing was repaired. */
  readonly before: CheckReport
  /** The check after; the same as `before` where nothing was changed. */
  readonly after: CheckReport
  readonly leaksFixed: number
  readonly corruptionsFixed: number
  /** Anything was written, or would be. */
  readonly changed: boolean
  /** The lines about what was repaired, as `qemu-img` prints them. */
  readonly lines: readonly string[]
  /** Why leaked clusters were left alone. */
  readonly suspicion?: Suspicion
  /** Why nothing could be repaired, in the words of `qemu-img` (`Check failed: …`). */
  readonly failure?: string
}

/** Repairs the image in `file`, which must be open for writing unless `dryRun` is set. */
export async function repairImage(
  file: BlockDevice,
  options: RepairOptions,
): Promise<RepairReport> {
  const parts = await partsFor(file, options)
  const work = { signal: options.signal, onProgress: options.onProgress }
  const limit = options.findingLimit === undefined ? {} : { findingLimit: options.findingLimit }
  const isFixing = options.what === 'all'
  const first = await checkParts(parts, { ...work, ...limit })
  const snapshots = isFixing && failedAtSnapshots(first) ? await mendSnapshots(parts) : undefined
  const before =
    snapshots === undefined ? first : await checkParts(parts, { ...work, ...limit, snapshots })
  if (before.failure !== undefined) return unchanged(before)
  const survey = await surveyImage(parts, isFixing, { ...work, snapshots })
  if (survey.needsRebuild && !isFixing) {
    const lines = ['ERROR need to rebuild refcount structures']
    return { ...unchanged(before, lines), failure: 'Input/output error' }
  }
  const suspicion = options.force ? undefined : await suspectLeaks(parts, survey, options.signal)
  const limits = limitsOf(survey, isFixing, suspicion)
  const { plan, outcome } = await decide(parts, survey, limits, options.signal)
  const change = headerChange(parts, outcome, options)
  const found = { ...outcome, before, ...(suspicion === undefined ? {} : { suspicion }) }
  const { isRewriting } = outcome
  if (!isRewriting && change === undefined) return { ...found, after: before, changed: false }
  if (isRewriting) checkRoom(parts, survey, plan)
  if (options.dryRun) return { ...found, after: before, changed: true }
  const writer = new RepairWriter(parts, plan, { ...limits, dropsOutside: isRewriting })
  await writer.run(isRewriting, change ?? {}, options)
  const after = await checkImage(file, { ...work, ...limit })
  return { ...found, after, changed: true }
}

/** Plans once, and once more where the new refcounts leave out what lies past the end of the file. */
async function decide(
  parts: ImageParts,
  survey: RepairSurvey,
  limits: RepairLimits,
  signal: AbortSignal | undefined,
): Promise<{ plan: RepairPlan; outcome: Outcome }> {
  const plan = await planRepair(parts, survey, limits, signal)
  const outcome = outcomeOf(survey, plan, limits)
  if (!outcome.isRewriting || survey.outside.size === 0) return { plan, outcome }
  const further = { ...limits, dropsOutside: true }
  const replanned = await planRepair(parts, survey, further, signal)
  return { plan: replanned, outcome: outcomeOf(survey, replanned, further) }
}

function unchanged(before: CheckReport, lines: readonly string[] = []): RepairReport {
  return { before, after: before, leaksFixed: 0, corruptionsFixed: 0, changed: false, lines }
}

async function partsFor(file: BlockDevice, options: RepairOptions): Promise<ImageParts> {
  if (!options.dropBitmaps) return readParts(file)
  const header = await readHeaderOf(file)
  return partsOfHeader(file, {
    ...header,
    autoclearFeatures: header.autoclearFeatures & ~AUTOCLEAR.bitmaps,
    extensions: header.extensions.filter(({ type }) => type !== EXTENSION.bitmaps),
  })
}

function limitsOf(
  survey: RepairSurvey,
  isFixing: boolean,
  suspicion: Suspicion | undefined,
): RepairLimits {
  const { tableCorruptions, snapshotRepairs, compared } = survey
  const isSound = tableCorruptions + snapshotRepairs.corruptions + compared.corruptions === 0
  const leaks = suspicion === undefined
  const flags = isFixing || (isSound && leaks)
  return { errors: isFixing, leaks, flags, dropsOutside: false }
}

interface Outcome {
  readonly leaksFixed: number
  readonly corruptionsFixed: number
  readonly corruptionsLeft: number
  readonly isRewriting: boolean
  readonly lines: readonly string[]
}

/** What is repaired and what is not, counted and told as by `qemu-img`. */
function outcomeOf(survey: RepairSurvey, plan: RepairPlan, limits: RepairLimits): Outcome {
  const { compared, findings, tableCorruptions, snapshotRepairs } = survey
  const structureCorruptions = findings.corruptions - tableCorruptions
  let dropped = 0
  for (const count of survey.dropped.values()) dropped += count
  const counted = limits.errors
    ? compared.corruptions + structureCorruptions + snapshotRepairs.corruptions + dropped
    : 0
  const total = compared.corruptions + findings.corruptions + snapshotRepairs.corruptions + dropped
  const inTable = snapshotRepairs.list.map(({ message }) =>
    limits.errors ? message.replace(/^ERROR/, 'Repairing') : message,
  )
  const lines = [...inTable, ...survey.repairs, ...findings.list.map(({ message }) => message)]
  for (const { message } of compared.list) lines.push(message)
  if (survey.needsRebuild) {
    lines.push('Rebuilding refcount structure')
  } else {
    for (const { kind, message } of compared.list) {
      const isFixed = kind === 'leak' ? limits.leaks : limits.errors
      if (isFixed) lines.push(message.replace(/^(Leaked|ERROR)/, 'Repairing'))
    }
  }
  const leaksFixed = limits.leaks ? compared.leaks : 0
  const corruptionsFixed = counted + plan.flagCount
  return {
    leaksFixed,
    corruptionsFixed,
    corruptionsLeft: total - counted,
    isRewriting: leaksFixed + corruptionsFixed > 0 || (limits.errors && survey.needsRebuild),
    lines: [...lines, ...plan.lines],
  }
}

/** What becomes of the header besides the places; undefined where it stays. */
function headerChange(
  { header }: ImageParts,
  { corruptionsLeft, leaksFixed }: Outcome,
  { dropBitmaps = false }: RepairOptions,
): HeaderChange | undefined {
  const marks = INCOMPATIBLE.dirty | INCOMPATIBLE.corrupt
  const clears = corruptionsLeft === 0 && (header.incompatibleFeatures & marks) !== 0n
  // Bitmaps that a writer without knowledge of them left behind were among the leaks: nothing may name them any more.
  const isStale = (header.autoclearFeatures & AUTOCLEAR.bitmaps) === 0n && leaksFixed > 0
  const extensions = header.extensions.filter(({ type }) => type !== EXTENSION.bitmaps)
  const goes = dropBitmaps || (isStale && extensions.length < header.extensions.length)
  if (!clears && !goes) return undefined
  return {
    ...(clears ? { incompatibleFeatures: header.incompatibleFeatures & ~marks } : {}),
    ...(goes
      ? { extensions, autoclearFeatures: header.autoclearFeatures & ~AUTOCLEAR.bitmaps }
      : {}),
  }
}

/** Writes a repair: everything new behind what is there, then the header. */
class RepairWriter {
  readonly #parts: ImageParts
  readonly #plan: RepairPlan
  readonly #limits: RepairLimits

  constructor(parts: ImageParts, plan: RepairPlan, limits: RepairLimits) {
    this.#parts = parts
    this.#plan = plan
    this.#limits = limits
  }

  async run(isRewriting: boolean, change: HeaderChange, options: RepairOptions): Promise<void> {
    const { host } = this.#parts
    const fileSize = host.size
    try {
      const places = isRewriting ? await this.#write(options) : {}
      await this.#switch({ ...change, ...places }, fileSize, options)
    } catch (error) {
      // Before the switch the image is as it was: only what was appended has to go.
      const isWhole = host.failure === undefined && host.device.can.resize
      if (isWhole && host.size > fileSize) await host.resize(fileSize).catch(() => undefined)
      throw error
    }
  }

  async #write({ signal }: RepairOptions): Promise<HeaderChange> {
    const { host, geometry } = this.#parts
    const { counts, countsPlace, structures, l2Tables, l1TableOffset } = this.#plan
    const { snapshotsOffset, snapshotCount } = this.#plan
    await this.#makeRoom()
    for (const table of l2Tables) {
      const bytes = await repairedTable(this.#parts, this.#plan, table, this.#limits)
      await host.write(table.to, bytes, 'data')
      signal?.throwIfAborted()
    }
    for (const { to, bytes } of structures) {
      const padded = new Uint8Array(
        Math.ceil(bytes.length / geometry.clusterSize) * geometry.clusterSize,
      )
      padded.set(bytes)
      await host.write(to, padded, 'data')
    }
    return {
      ...(await writeCounts(host, geometry, counts, countsPlace)),
      ...(l1TableOffset === undefined ? {} : { l1TableOffset }),
      ...(snapshotsOffset === undefined ? {} : { snapshotsOffset, snapshotCount }),
    }
  }

  /** Lets the file reach to the end of what will be written. */
  async #makeRoom(): Promise<void> {
    const { host, geometry } = this.#parts
    const { start, tableClusters, blockCount } = this.#plan.countsPlace
    const end = (start + tableClusters + blockCount) * geometry.clusterSize
    if (end <= host.size) return
    if (host.device.can.resize) return host.resize(end)
    throw new IoError(
      'NO_SPACE',
      `repair needs ${end} bytes, and the device has ${host.size} and cannot grow`,
      { context: { fileSize: host.size, needed: end } },
    )
  }

  async #switch(change: HeaderChange, fileSize: number, options: RepairOptions): Promise<void> {
    const { host } = this.#parts
    const header = await readHeaderOf(host.device)
    const sector = new Uint8Array(SECTOR_SIZE)
    await host.read(0, sector)
    const old = sector.slice()
    const { autoclearFeatures = header.autoclearFeatures } = change
    const plan = await prepareHeader(host, header, sector, {
      ...change,
      autoclearFeatures: autoclearFeatures & KNOWN_AUTOCLEAR,
    })
    await host.flush()
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    await options.onUndo?.({
      kind: 'cowpoint-undo',
      version: 1,
      header: base64(old),
      repairedHeader: base64(plan.sector),
      fileSize,
      repairedFileSize: host.size,
      written: await this.#written(host, change),
    })
    options.signal?.throwIfAborted()
    await host.checkUnchanged(sector)
    await switchHeader(host, sector, plan)
  }

  async #written(host: HostFile, change: HeaderChange): Promise<RepairUndo['written']> {
    const { clusterSize } = this.#parts.geometry
    if (change.refcountTableOffset === undefined) {
      // Only the header changes: the old refcounts tell whether the image was written to since.
      const { refcountTableOffset: offset, refcountTableClusters } = this.#parts.header
      const length = refcountTableClusters * clusterSize
      return { offset, length, digest: await digestRange(host, offset, length) }
    }
    const { start, tableClusters, blockCount } = this.#plan.countsPlace
    const places = [...this.#plan.l2Tables, ...this.#plan.structures].map(({ to }) => to)
    const offset = Math.min(start * clusterSize, ...firstOf(places))
    const length = (start + tableClusters + blockCount) * clusterSize - offset
    return { offset, length, digest: await digestRange(host, offset, length) }
  }
}

/** The lowest of many places, if there is one. */
function firstOf(places: readonly number[]): number[] {
  return places.length === 0 ? [] : [places.reduce((least, place) => Math.min(least, place))]
}
