/** What to try next, for the codes where there is something to try. The library only says what is wrong. */

import type { CowpointError } from '../base/errors.ts'

const HINTS: Readonly<Record<string, (context: CowpointError['context']) => string>> = {
  MISSING_COMMAND: usage,
  UNKNOWN_COMMAND: usage,
  UNKNOWN_OPTION: usage,
  MISSING_OPTION_VALUE: usage,
  MISSING_ARGUMENT: usage,
  EXTRA_ARGUMENT: usage,
  IMAGE_LOCKED: held,
  OPEN_ELSEWHERE: () =>
    '--ignore-writers writes all the same; both writing at a time destroys the image',
  LOCK_UNAVAILABLE: () => '--no-lock writes all the same, if nobody else uses the image',
  SNAPSHOT_NOT_FOUND: () => "'cowpoint snapshot -l' lists the snapshots of an image",
  BASE_HAS_OVERLAYS: ({ next }) =>
    `'${next}' makes the first of them independent; --unsafe changes them all`,
  SEARCH_INCOMPLETE: ({ path, folder }) =>
    `what cannot be looked at at ${path ?? folder} has to be mended or moved away; where the verb has --unsafe, that does not look`,
  LAYERS_BETWEEN: ({ next }) =>
    `'${next}' goes one layer down and can be followed by the next; --unsafe leaves them reading something else`,
  LAYER_HAS_SNAPSHOTS: ({ next }) =>
    `'${next}' saves the first of them, which can then be deleted; --unsafe changes what they read`,
  CONTENT_UNKNOWN: () =>
    "'cowpoint create -b … --fingerprint content' makes an image that remembers it",
  BASE_DIFFERS: () =>
    'without -u what differs is copied and the image reads as before; --unsafe changes the name anyway',
  BITMAP_INCONSISTENT: () => "'cowpoint bitmap --remove' deletes the bitmap from the image",
  REFERENCES_PAST_END: () =>
    "the file was probably cut off: give it its old length (truncate -s), and what is missing reads as zeroes; 'cowpoint convert --salvage' saves the rest",
  BITMAP_DIRECTORY: () =>
    "'cowpoint check -r all --drop-bitmaps' drops the bitmaps, after which the image opens",
  UNKNOWN_FEATURE: () =>
    'the image was made by something newer; another program may know the feature',
}

/** Who has the image, as far as that can be seen. */
function held({ holders, lock }: CowpointError['context']): string {
  const known = Array.isArray(holders) && holders.length > 0 ? holders.slice(0, 4).join(', ') : ''
  const who = known === '' ? 'held by a process that cannot be seen from here' : `held by ${known}`
  return lock === 'read' ? `${who}; -U reads all the same, where the verb has it` : who
}

function usage({ verb }: CowpointError['context']): string {
  return verb === undefined
    ? "'cowpoint --help' lists the commands"
    : `'cowpoint ${verb} --help' shows how it is used`
}

/** The hint for an error, if there is one. */
export function hintFor(error: CowpointError): string | undefined {
  return Object.hasOwn(HINTS, error.code) ? HINTS[error.code]?.(error.context) : undefined
}
