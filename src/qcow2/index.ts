/** The door of qcow2: the format, read, written, created and checked. It opens no file by itself. */

export type { AmendOptions } from './amend.ts'
export type { BitmapChange, BitmapOwner, DirtyVisitor } from './bitmap-draft.ts'
export { type CheckOptions, type CheckReport, checkImage, type Finding } from './check.ts'
export type { Compaction, CompactOptions } from './compact.ts'
export {
  type CreateOptions,
  createQcow2,
  type DataFileOptions,
  type Preallocation,
} from './create.ts'
export { type CreatePlan, planCreate } from './create-options.ts'
export type { DataTransfer } from './data-transfer.ts'
export { describeImage, type Qcow2Description } from './describe.ts'
export { Qcow2Image } from './image.ts'
export {
  inspectQcow2,
  type Qcow2Facts,
  type Qcow2Inspection,
  type Qcow2InspectOptions,
} from './inspect.ts'
export type { InspectLimits } from './inspect-budget.ts'
export {
  type InspectFinding,
  InspectFindings,
  type InspectSeverity,
} from './inspect-findings.ts'
export type { InspectReference } from './inspect-header.ts'
export type { BitmapRecord } from './layout/bitmap-directory.ts'
export { EXTENSION, INCOMPATIBLE } from './layout/constants.ts'
export {
  changedExtensions,
  type ExtensionChange,
  type HeaderNotes,
} from './layout/extension-change.ts'
export { extensionText, type HeaderExtension } from './layout/extensions.ts'
export { type Geometry, l1EntriesFor } from './layout/geometry.ts'
export {
  type CompressionType,
  type Header,
  hasIncompatible,
  headerGeometry,
  looksLikeQcow2,
  parseHeader,
} from './layout/header.ts'
export { refcountCodec } from './layout/refcounts.ts'
export type { SnapshotRecord } from './layout/snapshot-table.ts'
export {
  luksHeaderLength,
  type Measurement,
  type MeasureOptions,
  measureQcow2,
  measureRaw,
} from './measure.ts'
export type { MergeOptions, MergeSource } from './merge-disk.ts'
export type { DirtyRange } from './metadata/bitmap-store.ts'
export type { BackingName } from './metadata/header-switch.ts'
export type { Mapping } from './metadata/mapping.ts'
export { readHeader, readSnapshots } from './metadata/open-state.ts'
export type { OpenOptions } from './open-options.ts'
export type { PullBelowOptions, PullChange, PullCost, PullSource } from './pull-below.ts'
export { type RepairOptions, type RepairReport, repairImage } from './repair.ts'
export type { Suspicion } from './repair-suspicion.ts'
export { type RepairUndo, undoRepair } from './repair-undo.ts'
export type { ResizeOptions } from './resize.ts'
export type { SnapshotChange } from './snapshot-records.ts'
export { SnapshotView } from './snapshot-view.ts'
export type { SnapshotOptions, SnapshotWork } from './snapshots.ts'
export type { SharedUsage, SnapshotUsage, Usage } from './usage.ts'
