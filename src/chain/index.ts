/** The door of chain: names of images, which references they may open, images with all that they stand on, their map, new images. */

export { type BackingName, type BrokenLink, Chain, type ChainWarning, type Layer } from './chain.ts'
export type { LockOptions } from './chain-locks.ts'
export type { ChangedExtent } from './changed-extent.ts'
export { type CommitOptions, commitLayer } from './commit.ts'
export {
  type ConvertOptions,
  type ConvertTarget,
  convertInto,
  convertToNew,
  type Unchanged,
} from './convert.ts'
export { type ConvertSnapshotsOptions, convertWithSnapshots } from './convert-snapshots.ts'
export {
  type Dependent,
  type DependentOptions,
  type Dependents,
  fileKey,
  findDependents,
} from './dependents.ts'
export { type DiffOptions, type DiffView, diffViews } from './diff.ts'
export type { FileDriver, Format } from './driver.ts'
export {
  type Family,
  type FamilyLink,
  type FamilyMember,
  type FamilyOptions,
  findFamily,
  type LinkState,
} from './family.ts'
export { familyDot, familyLines } from './family-text.ts'
export type { UntrustedOptions } from './find-layer.ts'
export {
  type BaseChange,
  type BaseLook,
  compareBase,
  compareNamedBase,
  currentFingerprint,
  fingerprintOf,
  remembersContent,
} from './fingerprint.ts'
export {
  FolderScan,
  type ScannedImage,
  type ScannedReference,
  type SkippedFile,
} from './folder-scan.ts'
export { Gate, type GateOptions, type GateRequest } from './gate.ts'
export { holeAwareDevice } from './hole-aware-device.ts'
export type { HostCopySource } from './host-copy.ts'
export { type Inspection, type InspectOptions, inspect } from './inspect.ts'
export { JoinedDevice } from './joined-device.ts'
export { type Leftover, type LeftoverOptions, removeLeftovers } from './leftovers.ts'
export {
  type FormatNode,
  type Location,
  parseLocation,
  protocolOf,
  withFormat,
} from './location.ts'
export type { LocationOrigin } from './location-error.ts'
export { filenameOf, type OpenedLocation } from './location-text.ts'
export { type MapExtent, type MapOptions, type MapRun, mapBatches, mapChain } from './map.ts'
export { heldParts } from './merge.ts'
export { type ImageLayout, NewImage, type NewImageOptions, statOf } from './new-image.ts'
export { type ChainOptions, openChain } from './open.ts'
export { PROBE_SIZE, probeFormat } from './probe.ts'
export { type PullLayerOptions, planPullLayer, pullLayer } from './pull.ts'
export {
  type PushCost,
  type PushLayerOptions,
  planPushLayer,
  pushLayer,
  pushObstacle,
  settlePushed,
} from './push.ts'
export { type NewBase, type RebaseOptions, rebaseLayer } from './rebase.ts'
export { folderOf, joinPath } from './reference.ts'
export { type RelocateWork, relocate, relocationSteps } from './relocate.ts'
export {
  type Move,
  type NameChange,
  planRelocation,
  type RelocateOptions,
  type RelocationPlan,
} from './relocate-plan.ts'
export { type StreamOptions, streamLayer } from './stream.ts'
export { UnflushedDevice } from './unflushed-device.ts'
export { type Views, viewsOf } from './views.ts'
export { type GuardOptions, guardBase } from './views-guard.ts'
