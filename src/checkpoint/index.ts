/** The door of checkpoint: remembered instants of disks, their trees, their catalogue, and the verbs that change them. */

export { type AdoptOptions, adoptImages } from './adopt.ts'
export {
  type CatalogueOptions,
  type CatalogueView,
  CheckpointCatalogue,
} from './catalogue.ts'
export { type ConvertCheckpointOptions, convertCheckpoint } from './convert-kind.ts'
export { type CreateCheckpointOptions, createCheckpoint } from './create.ts'
export { type DiffCheckpointsOptions, type DiskChanges, diffCheckpoints } from './diff.ts'
export {
  type DescribeOptions,
  describeCheckpoint,
  type RenameOptions,
  renameCheckpoint,
} from './edit.ts'
export { shortId } from './identity.ts'
export { type Recovery, recover } from './journal.ts'
export type { KeepRules } from './keep-rules.ts'
export { pendingOperation, resumeCheckpoints } from './litter.ts'
export { type FoundCheckpoint, findCheckpoint, findInView, findSet, setsWith } from './lookup.ts'
export type { CatalogueEntry, CheckpointNote, Manifest, StateFile } from './manifest.ts'
export type { Plan, PlannedTouch, PlannedView } from './plan.ts'
export type { RemovalOptions } from './plan-removal.ts'
export { type PruneOptions, type PruneResult, pruneCheckpoints } from './prune.ts'
export type { Consistency, LayerRecord, LayerState, SnapshotMark } from './record.ts'
export type { RemovalDirection } from './removal-ways.ts'
export {
  planRemoval,
  type RemovalResult,
  type RemoveCheckpointOptions,
  removeCheckpoint,
  tidyHidden,
} from './remove.ts'
export { type RevertOptions, type RevertResult, revertTo } from './revert.ts'
export { type RunCheckpoint, runCheckpoint } from './run-checkpoint.ts'
export { type CheckpointSizes, measureCheckpoints } from './sizes.ts'
export type { StateOptions } from './state.ts'
export type { Survey, SurveyedLayer, SurveyedSnapshot } from './survey.ts'
export { listTrash, purgeTrash, type TrashedFile } from './trash.ts'
export type { CheckpointNode, CheckpointPlace, CheckpointTree, TreeDisk } from './tree.ts'
export { treeLines } from './tree-text.ts'
export type { VerbOptions, VerbResult } from './verb.ts'
export {
  type VerifyFinding,
  type VerifyOptions,
  type VerifyReport,
  verifyCheckpoints,
} from './verify.ts'
