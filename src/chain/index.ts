/** The door of chain: names of images, which references they may open, images with all that they stand on, their map, new images. */

export { type BackingName, type BrokenLink, Chain, type ChainWarning, type Layer } from './chain.ts'
export { type CommitOptions, commitLayer } from './commit.ts'
export {
  type ConvertOptions,
  type ConvertTarget,
  convertInto,
  convertToNew,
  type Unchanged,
} from './convert.ts'
export {
  type Dependent,
  type DependentOptions,
  type Dependents,
  findDependents,
} from './dependents.ts'
export type { FileDriver, Format } from './driver.ts'
export {
  type Family,
  type FamilyLink,
  type FamilyMember,
  type FamilyOptions,
  findFamily,
  type LinkState,
} from './family.ts'
export { type BaseChange, compareBase, compareNamedBase, fingerprintOf } from './fingerprint.ts'
export type { ScannedImage, ScannedReference, SkippedFile } from './folder-scan.ts'
export { Gate, type GateOptions, type GateRequest } from './gate.ts'
export { JoinedDevice } from './joined-device.ts'
export {
  type FormatNode,
  type Location,
  parseLocation,
  protocolOf,
  withFormat,
} from './location.ts'
export type { LocationOrigin } from './location-error.ts'
export { filenameOf, type OpenedLocation } from './location-text.ts'
export { type MapExtent, type MapOptions, mapChain } from './map.ts'
export { type ImageLayout, NewImage, type NewImageOptions, statOf } from './new-image.ts'
export { type ChainOptions, openChain } from './open.ts'
export { PROBE_SIZE, probeFormat } from './probe.ts'
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
