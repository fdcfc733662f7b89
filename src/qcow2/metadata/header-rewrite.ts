/** Changes what the header says outside of a structural verb: the backing reference, extensions, feature bits. */

import { UsageError } from '../../base/errors.ts'
import { extensionsField, type HeaderNotes } from '../layout/extension-change.ts'
import { commit } from './commit.ts'
import type { BackingName, HeaderChange } from './header-switch.ts'
import { dataFileIsRaw, type Qcow2State } from './state.ts'

/**
 * Makes `change` true in one switch of sector 0 (O12 in docs/ordering.md): in a power cut the header reads as
 * before or as after, its name never mixed. What was written before is durable first. The caller holds the
 * mutex. Throws a UsageError, code `HEADER_FULL`, where it does not fit; then nothing has changed.
 */
export async function rewriteHeader(state: Qcow2State, change: HeaderChange): Promise<void> {
  await commit(state)
  const { backing } = change
  try {
    await state.switchHeader(change)
  } catch (error) {
    // A header without room for a fingerprint does without; nothing was written yet.
    const isFull = error instanceof UsageError && error.code === 'HEADER_FULL'
    if (!isFull || !backing?.fingerprint) throw error
    await state.switchHeader({ ...change, backing: { ...backing, fingerprint: undefined } })
  }
}

/** Gives the image another backing reference, or none; as `rewriteHeader`. Nothing is known about what the names lead to. */
export async function rewriteBacking(
  state: Qcow2State,
  reference: BackingName | undefined,
  notes: HeaderNotes = {},
): Promise<void> {
  if (reference !== undefined && dataFileIsRaw(state)) {
    throw new UsageError('DATA_FILE_RAW', 'image with a raw data file cannot have a backing file')
  }
  const extensions = extensionsField(state.header.extensions, notes)
  await rewriteHeader(state, { ...extensions, backing: reference ?? null })
}

/** Changes header extensions that are the caller's own; as `rewriteHeader`. */
export async function rewriteExtensions(state: Qcow2State, notes: HeaderNotes): Promise<void> {
  await rewriteHeader(state, extensionsField(state.header.extensions, notes))
}
