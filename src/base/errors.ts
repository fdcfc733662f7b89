/**
 * The five errors of the project, told apart by who must act. Whatever came from a file, a socket or a
 * user is thrown as one of these; `assert` is for our own bugs. A message reads noun, verb, value, limit:
 * no path, no full stop; offsets in hex, sizes with their unit. docs/errors.md lists the codes.
 */

/** What an error is about, by name: offsets, counts, names. Never secret, never unbounded. */
export type ErrorContext = Readonly<Record<string, string | number | boolean | readonly string[]>>

/** What an error carries beside its code and message. */
export interface ErrorDetails {
  readonly context?: ErrorContext
  readonly cause?: unknown
}

/** What all five have in common: a stable code, the place as data, and the cause. */
export abstract class CowpointError extends Error {
  readonly code: string
  readonly context: ErrorContext

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = new.target.name
    this.code = code
    this.context = details.context ?? {}
  }
}

/** The caller asked for something that cannot be: wrong option, unknown name, range past the end. */
export class UsageError extends CowpointError {}

/** The image (or another file we were handed) is not what its format demands. */
export class ImageError extends CowpointError {}

/** The host failed: disk full, input/output error, a file that vanished or shrank. */
export class IoError extends CowpointError {}

/** Somebody else holds what is needed; trying again later can work. */
export class BusyError extends CowpointError {}

/** The other side of a connection failed or broke the protocol. */
export class RemoteError extends CowpointError {}
