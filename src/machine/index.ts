/** The door of machine: the state of a machine that lies in files beside its disks, and how a machine is started with it. */

export { type BhyveMeta, type BhyveSection, parseBhyveMeta } from './bhyve-schema.ts'
export { type RunDisk, type RunLine, type RunRequest, runLines, shellLine } from './run-lines.ts'
export { copyFile, type DigestOptions, digestFile, type FileDigest } from './state-copy.ts'
export {
  examineStateFiles,
  type MachineState,
  STATE_KINDS,
  type StateKind,
  type StateRequest,
} from './state-files.ts'
export type { StateFinding, StateReport } from './state-finding.ts'
