/**
 * A workload: how files are set up, what is then done to them in steps, and which views must stay true. To add one, write an
 * object of this shape and list it in workloads/index.ts; crash states, recovery, replay and the command come by themselves.
 */

import type { Qcow2Image } from '../../src/qcow2/index.ts'
import type { Geometry } from './geometry.ts'
import type { Random } from './random.ts'
import type { RecordingFiles } from './recording-files.ts'
import type { Session } from './session.ts'
import type { NameModel } from './timeline.ts'
import type { ViewSpec } from './view-set.ts'

/** What a workload gets. */
export interface WorkloadContext {
  readonly files: RecordingFiles
  readonly geometry: Geometry
  /** The same for the same seed. */
  readonly random: Random
}

/** Something to cut the power on. */
export interface Workload {
  readonly name: string
  /** What may be leaked: nothing by structural verbs, space by guest writes. */
  readonly leaks: 'none' | 'allowed'
  /** The images that are looked at, the one that guest writes go to first. */
  readonly views: readonly ViewSpec[]
  /** Names of geometries on which it makes sense; all where left out. */
  readonly geometries?: readonly string[]
  /** Other seeds do other things. */
  readonly seeded?: boolean
  /** Bitmaps may be found in use. */
  readonly bitmapSession?: boolean
  /** The image is damaged before the first step, which puts that right. */
  readonly isDamaged?: boolean
  /** How directories behave; `ordered` where left out. */
  readonly names?: NameModel
  /** Makes the files, without a trace. */
  readonly setup: (context: WorkloadContext) => Promise<void>
  /** Does what is cut off, in steps of the session. */
  readonly run: (session: Session) => Promise<void>
  /**
   * Does it again after the power cut, as a user would; it must end with the views after the last step. Left out where that makes
   * no sense.
   */
  readonly redo?: (context: WorkloadContext) => Promise<void>
}

/** An image that a session writes to. */
export type OpenImage = Qcow2Image
