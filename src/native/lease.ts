/**
 * Whether a descriptor is the only one that its file is open through, as the kernel knows it: for all processes of all users, and
 * for what none of them shows, such as memory that a file is mapped to. Asked by taking a write lease, which nobody else gets then.
 */

import { libc } from './libc.ts'

const SET_SIGNAL = 10
const SET_LEASE = 1024
const WRITE = 1
const NONE = 2
/** SIGURG is ignored unless a program asks for it. SIGIO, which tells of an opener otherwise, would end this process. */
const HARMLESS_SIGNAL = 23

/**
 * True where nobody else has the file open; false where somebody has, or nobody can tell: for files of other users, and on file
 * systems without leases. Whoever opens the file meanwhile waits for some microseconds.
 */
export function isOnlyOpener(fd: number): boolean {
  const library = libc()
  if (library === undefined || library.fcntl(fd, SET_SIGNAL, HARMLESS_SIGNAL) < 0) return false
  const isTaken = library.fcntl(fd, SET_LEASE, WRITE) === 0
  if (isTaken) library.fcntl(fd, SET_LEASE, NONE)
  return isTaken
}
