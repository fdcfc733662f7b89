/** The door of codec: how the bytes of compressed clusters are packed. */

export { type ClusterCodec, type CodecName, loadCodec } from './codec.ts'
