/** What happens before the first write of a session, once: writer's tables, autoclear bits, bitmaps in use. */

import { KNOWN_AUTOCLEAR } from '../layout/constants.ts'
import { openBitmaps } from './bitmap-host.ts'
import { ensureWriter } from './open-state.ts'
import type { Qcow2State } from './state.ts'

/**
 * Gets the image ready for a change of its metadata. Autoclear bits that we do not know announce data that we
 * do not keep up to date, so they go first (I7). The caller holds the mutex.
 */
export async function beginChange(state: Qcow2State): Promise<void> {
  state.host.checkUsable()
  await ensureWriter(state)
  const { autoclearFeatures } = state.header
  if ((autoclearFeatures & ~KNOWN_AUTOCLEAR) !== 0n) {
    await state.switchHeader({ autoclearFeatures: autoclearFeatures & KNOWN_AUTOCLEAR })
  }
}

/** As `beginChange`, for a change of guest data: every enabled bitmap is marked in use first (I8). */
export async function beginGuestWrite(state: Qcow2State): Promise<void> {
  state.host.checkUsable()
  if (state.readyForGuest) return
  await state.mutex.run(async () => {
    if (state.readyForGuest) return
    await beginChange(state)
    await openBitmaps(state)
    await state.bitmaps?.markInUse()
    state.readyForGuest = true
  })
}
