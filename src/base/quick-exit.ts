/**
 * A way to end the process at once, for the one who ends it: offered by whoever reaches the C library, without either knowing the
 * other.
 */

/** Ends the process with a status, and runs nothing more. */
type Exit = (status: number) => void

let offered: Exit | undefined

/** Offers a way; the last one counts. */
export function offerQuickExit(exit: Exit): void {
  offered = exit
}

/** Ends the process at once; returns where there is no way. Nothing that waits to be written or closed is. */
export function quickExit(status: number): void {
  offered?.(status)
}
