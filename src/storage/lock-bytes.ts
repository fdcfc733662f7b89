/**
 * Which bytes of a file stand for what in QEMU's image locks, so that its tools and ours keep out of each other's way
 * (docs/locking.md). All of QEMU's locks are read locks: byte 100 + i says "I do i", byte 200 + i says "others must not do i";
 * whoever comes then tests whether somebody said what does not go with its own wish.
 */

import type { LockCall } from '../native/index.ts'

/**
 * What an open file is locked for. `write`: to change it, alone; `read`: to read it while nobody changes it; `share`: to look at
 * it while others may change it.
 */
export type FileLockKind = 'write' | 'read' | 'share'

/** What can be done to an image, by QEMU's number for it. */
const ACTS = { 0: 'consistent read', 1: 'write', 3: 'resize' } as const
type Act = keyof typeof ACTS

const DOES = 100
const FORBIDS = 200
/** Ours alone: says at once who of several of our own processes was first. */
const OURS = 300

interface Wish {
  readonly does: readonly Act[]
  readonly forbids: readonly Act[]
  readonly ours: 'read' | 'write' | undefined
}

const WISHES: Readonly<Record<FileLockKind, Wish>> = {
  write: { does: [0, 1, 3], forbids: [1, 3], ours: 'write' },
  read: { does: [0], forbids: [1, 3], ours: 'read' },
  share: { does: [0], forbids: [], ours: undefined },
}

/** Kinds by strength: what has the stronger one needs no weaker one. */
export const LOCK_STRENGTH: Readonly<Record<FileLockKind, number>> = { share: 0, read: 1, write: 2 }

function at(kind: LockCall['kind'], call: LockCall['call'], offset: number): LockCall {
  return { call, kind, offset, length: 1 }
}

/** The call that says, among our own processes, who was first; none where it does not matter. */
export function ownCalls(kind: FileLockKind): readonly LockCall[] {
  const { ours } = WISHES[kind]
  return ours === undefined ? [] : [at(ours, 'set', OURS)]
}

/** The calls that say what we do and forbid. Others who say the same do not stand in their way. */
export function sayingCalls(kind: FileLockKind): readonly LockCall[] {
  const { does, forbids } = WISHES[kind]
  return [
    ...does.map((act) => at('read', 'set', DOES + act)),
    ...forbids.map((act) => at('read', 'set', FORBIDS + act)),
  ]
}

/** The calls that ask whether somebody forbids what we do, or does what we forbid; in QEMU's order. */
export function askingCalls(kind: FileLockKind): readonly LockCall[] {
  const { does, forbids } = WISHES[kind]
  return [
    ...does.map((act) => at('write', 'test', FORBIDS + act)),
    ...forbids.map((act) => at('write', 'test', DOES + act)),
  ]
}

/**
 * The call that says no more than that somebody is here who keeps to locks; it is in nobody's way. Who has the file open for
 * writing and says not even this may write at any time.
 */
export const PRESENCE_CALL: LockCall = at('read', 'set', DOES)

/** The call that frees all of our bytes. */
export const FREEING_CALL: LockCall = {
  call: 'set',
  kind: 'none',
  offset: DOES,
  length: OURS + 1 - DOES,
}

/** The call that frees all but our presence. */
export const STANDING_BACK_CALL: LockCall = {
  call: 'set',
  kind: 'none',
  offset: DOES + 1,
  length: OURS - DOES,
}

/** What QEMU says when the byte at `offset` stands in the way. */
export function obstacleWords(kind: FileLockKind, offset: number): string {
  const isForbidden = offset >= FORBIDS && offset < OURS
  const act = ACTS[((offset - DOES) % 100) as Act] ?? 'write'
  if (offset >= OURS) return kind === 'write' ? 'Failed to get "write" lock' : SHARED_WRITE
  return isForbidden ? `Failed to get "${act}" lock` : `Failed to get shared "${act}" lock`
}

const SHARED_WRITE = 'Failed to get shared "write" lock'

/** Whether a lock on bytes `first` to `last` is part of an image lock. */
export function isLockByte(first: number, last: number): boolean {
  return last >= DOES && first <= OURS
}
