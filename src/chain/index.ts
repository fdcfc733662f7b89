/** The door of chain: names of images, which references they may open, images with all that they stand on, and their map. */

export { type BackingName, type BrokenLink, Chain, type Layer } from './chain.ts'
export type { FileDriver, Format } from './driver.ts'
export { Gate, type GateOptions, type GateRequest } from './gate.ts'
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
export { type ChainOptions, openChain } from './open.ts'
export { PROBE_SIZE, probeFormat } from './probe.ts'
export { folderOf, joinPath } from './reference.ts'
