/**
 * A file system that does as the one below it, until the call comes at which it is to fail. It knows which files are open and locked,
 * and whether anything was written to a file, or flushed, after a flush of it had failed.
 */

import { BusyError } from '../../src/base/errors.ts'
import {
  type FileLockKind,
  type FileSystem,
  flushError,
  hostError,
  type LockGroup,
  type OpenFile,
  type OpenMode,
} from '../../src/storage/index.ts'
import type { CallName, Deed, FaultKind, FileCall } from './fault-kinds.ts'

/** Where to fail. */
export interface FaultPlan {
  readonly kind: FaultKind
  /** How many calls that the kind hits pass before. */
  readonly turn: number
  /** For meddling: does it. */
  readonly meddle?: () => void
}

/** The failing file system. */
export class FaultFiles implements FileSystem {
  readonly under: FileSystem
  plan: FaultPlan | undefined
  /** How many calls the plan has met. */
  hitCount = 0
  fired = false
  /** Handles that are open now. */
  openCount = 0
  lockCount = 0
  /** What must never happen, as it was seen. */
  readonly sins: string[] = []

  constructor(under: FileSystem, plan?: FaultPlan) {
    this.under = under
    this.plan = plan
  }

  /** What happens at this call; undefined where nothing does. */
  deedAt(call: FileCall): Deed | undefined {
    const { plan } = this
    if (plan === undefined || !plan.kind.hits(call)) return undefined
    const turn = this.hitCount++
    if (turn < plan.turn || (turn > plan.turn && plan.kind.lasts !== true)) return undefined
    this.fired = true
    const { deed } = plan.kind
    if (deed.how !== 'meddle') return deed
    plan.meddle?.()
    return undefined
  }

  /** Throws where the call is to fail. */
  pass(name: CallName, path: string, mode?: string): void {
    const deed = this.deedAt({ name, path, ...(mode === undefined ? {} : { mode }) })
    if (deed?.how === 'throw') throw failure(deed.errno, name)
    if (deed?.how === 'locked') throw new BusyError('IMAGE_LOCKED', 'Failed to get "write" lock')
  }

  async open(path: string, mode: OpenMode): Promise<OpenFile> {
    this.pass('open', path, mode)
    const file = await this.under.open(path, mode)
    this.openCount++
    return new FaultFile(this, file)
  }

  async stat(path: string) {
    this.pass('stat', path)
    return this.under.stat(path)
  }

  async list(folder: string) {
    this.pass('list', folder)
    return this.under.list(folder)
  }

  async realpath(path: string) {
    this.pass('realpath', path)
    return this.under.realpath(path)
  }

  async link(existing: string, added: string) {
    this.pass('link', existing)
    await this.under.link(existing, added)
  }

  async rename(from: string, to: string) {
    this.pass('rename', from)
    await this.under.rename(from, to)
  }

  async unlink(path: string) {
    this.pass('unlink', path)
    await this.under.unlink(path)
  }

  async makeFolder(path: string, options?: { parents?: boolean }) {
    this.pass('makeFolder', path)
    await this.under.makeFolder(path, options)
  }

  async removeFolder(path: string) {
    this.pass('removeFolder', path)
    await this.under.removeFolder(path)
  }

  async syncFolder(path: string) {
    this.pass('syncFolder', path)
    await this.under.syncFolder(path)
  }
}

function failure(errno: string, action: CallName): unknown {
  const error = hostError(Object.assign(new Error(errno), { code: errno }), action)
  return action === 'sync' || action === 'syncFolder' ? flushError(error) : error
}

class FaultFile implements OpenFile {
  readonly path: string
  readonly writable: boolean
  readonly #files: FaultFiles
  readonly #file: OpenFile
  #isOpen = true
  #isLocked = false
  #flushFailed = false

  constructor(files: FaultFiles, file: OpenFile) {
    this.#files = files
    this.#file = file
    this.path = file.path
    this.writable = file.writable
  }

  #pass(name: CallName): void {
    this.#demandOpen(name)
    this.#files.pass(name, this.path)
  }

  #demandOpen(name: CallName): void {
    if (!this.#isOpen) this.#files.sins.push(`${name} of ${this.path} after it was closed`)
  }

  #change(name: CallName): void {
    if (this.#flushFailed) {
      this.#files.sins.push(`${name} of ${this.path} after a flush had failed`)
    }
    this.#demandOpen(name)
  }

  #cut<T extends Uint8Array>(name: 'read' | 'write', bytes: T): Uint8Array {
    const deed = this.#files.deedAt({ name, path: this.path })
    if (deed?.how === 'throw') throw failure(deed.errno, name)
    if (deed?.how !== 'short') return bytes
    return bytes.subarray(0, deed.count(bytes.length))
  }

  async stat() {
    this.#pass('fileStat')
    return this.#file.stat()
  }

  readSync(target: Uint8Array, position: number): number {
    this.#demandOpen('read')
    const part = this.#cut('read', target)
    return part.length === 0 ? 0 : this.#file.readSync(part, position)
  }

  writeSync(source: Uint8Array, position: number): number {
    this.#change('write')
    const part = this.#cut('write', source)
    return part.length === 0 ? 0 : this.#file.writeSync(part, position)
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return this.readSync(target, position)
  }

  async write(source: Uint8Array, position: number): Promise<number> {
    return this.writeSync(source, position)
  }

  async truncate(size: number): Promise<void> {
    this.#demandOpen('truncate')
    this.#pass('truncate')
    await this.#file.truncate(size)
  }

  async sync(options?: { dataOnly?: boolean }): Promise<void> {
    this.#change('sync')
    try {
      this.#pass('sync')
    } catch (error) {
      this.#flushFailed = true
      throw error
    }
    await this.#file.sync(options)
  }

  punchHole(offset: number, length: number): boolean {
    this.#change('space')
    this.#pass('space')
    return this.#file.punchHole(offset, length)
  }

  zeroRange(offset: number, length: number): boolean {
    this.#change('space')
    this.#pass('space')
    return this.#file.zeroRange(offset, length)
  }

  reserve(offset: number, length: number): boolean {
    this.#pass('space')
    return this.#file.reserve(offset, length)
  }

  nextData(offset: number): number | undefined {
    this.#pass('seek')
    return this.#file.nextData(offset)
  }

  nextHole(offset: number): number | undefined {
    this.#pass('seek')
    return this.#file.nextHole(offset)
  }

  async lock(_kind: FileLockKind, _group?: LockGroup): Promise<boolean> {
    this.#pass('lock')
    if (!this.#isLocked) this.#files.lockCount++
    this.#isLocked = true
    return true
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#files.openCount--
    if (this.#isLocked) this.#files.lockCount--
    await this.#file.close()
    this.#files.pass('close', this.path)
  }
}
