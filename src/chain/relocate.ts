/**
 * Moves files that images name, and rewrites the names, all or nothing. A file has both names while the images switch over, one
 * header sector at a time, so that at every instant each image that stays where it is opens with the same content, and a moved
 * one does by its old name or its new one. What fails before the first old name goes is undone.
 */

import { dirname } from 'node:path'
import { CowpointError, IoError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { copy } from '../block/index.ts'
import { type Header, Qcow2Image, readHeader } from '../qcow2/index.ts'
import {
  FileDevice,
  type FileSystem,
  isSameFile,
  nodeFiles,
  openLocked,
  temporaryPath,
} from '../storage/index.ts'
import { type LockOptions, lockRequest } from './chain-locks.ts'
import { fileKey } from './dependents.ts'
import { compareNamedBase, currentFingerprint, renamedFingerprint } from './fingerprint.ts'
import type { ScannedImage } from './folder-scan.ts'
import { statOf } from './new-image.ts'
import { type Move, type NameChange, overlaysFirst, type RelocationPlan } from './relocate-plan.ts'

/** What carrying out a plan takes. */
export interface RelocateWork extends LongWork, LockOptions {
  readonly files?: FileSystem
}

/**
 * Carries out a plan that was just made. Files go to another file system as copies. Rejects with everything as it was, unless
 * undoing failed too, or it got as far as removing old names; either way every image opens, and the same call can be made again.
 */
export async function relocate(plan: RelocationPlan, work: RelocateWork = {}): Promise<void> {
  await new Relocation(plan, work).run()
}

/** How a link cannot be made where a copy can. */
const NO_LINK = new Set(['EXDEV', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS'])

class Relocation {
  readonly #plan: RelocationPlan
  readonly #work: RelocateWork
  readonly #files: FileSystem
  readonly #undo: (() => Promise<void>)[] = []
  readonly #copied = new Set<Move>()
  /** Files that were copied, kept from being written until they are gone. */
  readonly #held: FileDevice[] = []

  constructor(plan: RelocationPlan, work: RelocateWork) {
    this.#plan = plan
    this.#work = work
    this.#files = work.files ?? nodeFiles
  }

  async run(): Promise<void> {
    const remembered = await this.#rememberedBases()
    try {
      await this.#refuseUsed()
      await this.#prepare()
      await this.#finish()
    } finally {
      for (const file of this.#held) await file.close()
    }
    // Each round can change what stands above; a chain of so many layers has settled after so many rounds.
    for (let rounds = remembered.length; rounds > 0; rounds--) {
      let isSettled = true
      for (const path of remembered) if (await this.#remember(path)) isSettled = false
      if (isSettled) break
    }
  }

  /** Refuses files that somebody writes: a running machine knows them by the old name. */
  async #refuseUsed(): Promise<void> {
    const lock = lockRequest('read', this.#work)
    for (const { from } of this.#plan.moves) {
      if (lock === undefined || (await statOf(this.#files, from))?.kind !== 'file') continue
      try {
        await (await openLocked(this.#files, from, 'read', lock)).close()
      } catch (error) {
        if (!(error instanceof CowpointError) || error.code !== 'ACCESS_DENIED') throw error
      }
    }
  }

  /** Does all that can be undone, and undoes it where it fails. */
  async #prepare(): Promise<void> {
    try {
      await this.#makeReady()
    } catch (error) {
      // Stops where undoing fails: then both names still lead to the file.
      for (const step of this.#undo.toReversed()) await step()
      throw error
    }
  }

  /** Everything up to where all images are ready to do without the old names. */
  async #makeReady(): Promise<void> {
    const { moves, folderMoves, changes } = this.#plan
    const { signal } = this.#work
    for (const { to } of folderMoves) {
      if ((await statOf(this.#files, to))?.kind === 'folder') continue
      await this.#files.makeFolder(to)
      this.#undo.push(() => this.#files.removeFolder(to))
    }
    for (const move of moves) {
      signal?.throwIfAborted()
      await this.#place(move)
    }
    await this.#syncFolders([...moves, ...folderMoves].map(({ to }) => to))
    // What moves comes first: its new place must lead on before anybody uses it.
    const isMoved = (change: NameChange) => change.move !== undefined
    const inTurn = [...changes.filter(isMoved), ...changes.filter((one) => !isMoved(one))]
    for (const change of inTurn) {
      signal?.throwIfAborted()
      const { move, oldName, newName, wholeName } = change
      const isCopy = move !== undefined && this.#copied.has(move)
      if (isCopy) {
        await this.#rename(move.to, newName)
        continue
      }
      // Noted first: what fails at its last flush may have changed the name.
      this.#undo.push(() => this.#renameBack(change.path, oldName))
      await this.#rename(change.path, move === undefined ? newName : wholeName)
    }
    signal?.throwIfAborted()
  }

  async #finish(): Promise<void> {
    const { moves, folderMoves, changes } = this.#plan
    // What is left under the old names where this is cut off has what it stands on beside it.
    for (const { from } of overlaysFirst(this.#plan)) await this.#files.unlink(from)
    const touched = new Set(moves.map(({ from }) => dirname(from)))
    for (const { from } of folderMoves.toReversed()) {
      touched.delete(from)
      await this.#files.removeFolder(from)
      touched.add(dirname(from))
    }
    for (const { from } of folderMoves) touched.delete(from)
    for (const folder of touched) await this.#files.syncFolder(folder)
    for (const { move, newName, wholeName } of changes) {
      if (move === undefined || this.#copied.has(move) || newName === wholeName) continue
      await this.#rename(move.to, newName)
    }
  }

  /** Gives a file its second name, or a copy that has it. */
  async #place(move: Move): Promise<void> {
    const { from, to } = move
    const there = await statOf(this.#files, to)
    if (there !== undefined && isSameFile(there, await this.#files.stat(from))) {
      // Left by a move that was interrupted: images may use the name already.
      return
    }
    try {
      await this.#files.link(from, to)
    } catch (error) {
      const errno = error instanceof CowpointError ? error.context.errno : undefined
      if (typeof errno !== 'string' || !NO_LINK.has(errno)) throw error
      await this.#copy(move)
      this.#copied.add(move)
    }
    this.#undo.push(() => this.#files.unlink(to))
  }

  async #copy({ from, to }: Move): Promise<void> {
    const part = temporaryPath(to)
    const { signal, onProgress } = this.#work
    const before = await this.#files.stat(from)
    // Whoever writes it would go on with the file that is about to lose its name.
    const lock = lockRequest('read', this.#work)
    const source = await FileDevice.open(this.#files, from, { lock })
    this.#held.push(source)
    try {
      const target = await FileDevice.open(this.#files, part, {
        create: 'new',
        lock: lockRequest('write', this.#work),
      })
      try {
        await target.resize(source.size)
        await copy(source, target, { targetIsZero: true, signal, onProgress })
        await target.flush()
      } finally {
        await target.close()
      }
      const after = await this.#files.stat(from)
      if (after.mtimeNs !== before.mtimeNs || after.size !== before.size) {
        throw new IoError('FILE_CHANGED', 'file was written to while it was copied')
      }
      await this.#files.rename(part, to)
    } catch (error) {
      await this.#files.unlink(part).catch(() => {})
      throw error
    }
  }

  async #syncFolders(paths: readonly string[]): Promise<void> {
    for (const folder of new Set(paths.map((path) => dirname(path)))) {
      await this.#files.syncFolder(folder)
    }
  }

  /** Another name for the same base; what the image remembers of it stays. */
  async #rename(path: string, name: string): Promise<void> {
    await this.#setBacking(path, name, (header) => renamedFingerprint(header, name))
  }

  async #renameBack(path: string, name: string): Promise<void> {
    await using file = await FileDevice.open(this.#files, path)
    const { backingName } = (await readHeader(file)).header
    if (backingName !== name) await this.#rename(path, name)
  }

  async #setBacking(
    path: string,
    name: string | undefined,
    remember: (header: Header) => ReturnType<typeof renamedFingerprint>,
  ): Promise<void> {
    const lock = lockRequest('write', this.#work)
    const file = await FileDevice.open(this.#files, path, { writable: true, growable: true, lock })
    let image: Qcow2Image
    try {
      image = await Qcow2Image.open(file, { writable: true, name: path })
    } catch (error) {
      await file.close()
      throw error
    }
    try {
      const { backingReference: old, header } = image
      if (old === undefined) return
      const fingerprint = remember(header)
      await image.setBacking({ name: name ?? old.name, format: old.format, fingerprint })
    } finally {
      await image.close()
    }
  }

  /**
   * Where images will be that remember a base which the rewriting of names touches, and remember it as it is: they have to be
   * told that it was us.
   */
  async #rememberedBases(): Promise<string[]> {
    const { changes, images, moves } = this.#plan
    const byPath = new Map(images.map((image) => [image.path, image]))
    const moveOf = new Map(moves.map((move) => [move.from, move]))
    const keys = new Set<string>()
    for (const path of [...changes.map((change) => change.path), ...moveOf.keys()]) {
      const stat = byPath.get(path)?.stat ?? (await this.#files.stat(path))
      keys.add(fileKey(stat))
    }
    const found: string[] = []
    const seen = new Set<string>()
    for (let isGrowing = true; isGrowing; ) {
      isGrowing = false
      for (const image of images) {
        const key = fileKey(image.stat)
        if (seen.has(key) || !standsOn(image, keys)) continue
        seen.add(key)
        keys.add(key)
        isGrowing = true
        if (renamedFingerprint(image.header, '') === undefined) continue
        const change = await compareNamedBase(this.#files, image.path, image.header)
        if (change === undefined) found.push(moveOf.get(image.path)?.to ?? image.path)
      }
    }
    return found
  }

  /** Brings what an image remembers up to date; false where it was. */
  async #remember(path: string): Promise<boolean> {
    await using file = await FileDevice.open(this.#files, path)
    const { header } = await readHeader(file)
    if ((await compareNamedBase(this.#files, path, header)) === undefined) return false
    const fingerprint = await currentFingerprint(this.#files, path, header)
    if (fingerprint === undefined) return false
    await this.#setBacking(path, undefined, () => fingerprint)
    return true
  }
}

function standsOn({ references }: ScannedImage, keys: ReadonlySet<string>): boolean {
  return references.some(({ stat }) => stat !== undefined && keys.has(fileKey(stat)))
}

/** The steps of a plan in words, in the order in which they are done. */
export function relocationSteps({ moves, folderMoves, changes }: RelocationPlan): string[] {
  const place = ({ path, move }: NameChange): string => move?.to ?? path
  return [
    ...folderMoves.map(({ to }) => `make folder ${to}`),
    ...moves.map(({ from, to }) => `link ${from} as ${to}`),
    ...changes.map(
      (change) => `rewrite in ${place(change)}: ${change.oldName} -> ${change.newName}`,
    ),
    ...moves.map(({ from }) => `remove ${from}`),
    ...folderMoves.toReversed().map(({ from }) => `remove folder ${from}`),
  ]
}
