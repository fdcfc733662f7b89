/**
 * Who of a chain locks what (docs/locking.md): the layer that is written, with its data file, against everybody; those below
 * against writers; with `forceShare` nobody is kept out. How a file is locked is storage's affair.
 */

import { type FileLockKind, LockGroup, type LockRequest } from '../storage/index.ts'
import type { ChainWarning } from './chain.ts'

/** How files are kept from being used by two at a time. */
export interface LockOptions {
  /** `qemu`: locked as QEMU does it, so that its tools and virtual machines keep out; the default. `none`: not at all. */
  readonly locking?: 'qemu' | 'none' | undefined
  /** Writes although another process has the file open for writing and locks nothing. False where left out. */
  readonly ignoreWriters?: boolean | undefined
  /** Handles of this process that may use the same files at the same time; this chain alone where left out. */
  readonly lockGroup?: LockGroup | undefined
}

/** The locks of one chain that is being opened. */
export class ChainLocks {
  /** What the user should know about files that could not be locked. */
  readonly warnings: ChainWarning[] = []
  readonly #options: LockOptions
  readonly #forceShare: boolean

  constructor(options: LockOptions, { forceShare }: { readonly forceShare: boolean }) {
    // A file that stands in the chain twice is a loop, not somebody else's.
    this.#options = { lockGroup: new LockGroup(), ...options }
    this.#forceShare = forceShare
  }

  /** How a file is to be locked that is shown as `filename`. */
  request(use: {
    readonly writable: boolean
    readonly layerIndex: number
    readonly filename: string
  }): LockRequest | undefined {
    const kind: FileLockKind = use.writable ? 'write' : this.#forceShare ? 'share' : 'read'
    const request = lockRequest(kind, this.#options)
    if (request === undefined || kind === 'share') return request
    const { layerIndex, filename } = use
    return { ...request, onUnlocked: () => this.#warn(layerIndex, filename) }
  }

  #warn(layerIndex: number, filename: string): void {
    const message = 'file cannot be locked here, and may change while it is read'
    this.warnings.push({ code: 'NOT_LOCKED', layerIndex, filename, message })
  }
}

/** How a single file is to be locked. */
export function lockRequest(kind: FileLockKind, options: LockOptions): LockRequest | undefined {
  if (options.locking === 'none') return undefined
  return { kind, group: options.lockGroup, ignoreWriters: options.ignoreWriters }
}
