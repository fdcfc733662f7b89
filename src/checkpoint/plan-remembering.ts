/** Which overlays have to remember their bases anew because a verb changes those, and the steps for it. */

import { compareNamedBase } from '../chain/index.ts'
import { EXTENSION } from '../qcow2/index.ts'
import type { Step } from './journal-schema.ts'
import type { PlanDraft } from './plan-draft.ts'
import type { Survey, SurveyedLayer } from './survey.ts'

/**
 * Adds steps for all that stands on layers that change, and on what changes for that reason; each after what it stands on. Who does
 * not remember its base as it is now is left alone, so that it still tells. `pathOf` says where a file is then.
 */
export async function planRemembering(
  draft: PlanDraft,
  survey: Survey,
  changed: readonly SurveyedLayer[],
  pathOf: (layer: SurveyedLayer) => string | undefined,
): Promise<void> {
  const { files } = draft.catalogue
  const seen = new Set<string>()
  const steps: Step[] = []
  let level = changed
  while (level.length > 0) {
    const next: SurveyedLayer[] = []
    for (const overlay of level.flatMap(({ key }) => survey.overlays.get(key) ?? [])) {
      const { header, path: present } = overlay
      if (header === undefined || seen.has(overlay.key)) continue
      seen.add(overlay.key)
      const remembers = header.extensions.some(({ type }) => type === EXTENSION.baseFingerprint)
      const path = pathOf(overlay)
      if (!remembers || path === undefined) continue
      if ((await compareNamedBase(files, present, header)) !== undefined) continue
      steps.push({ do: 'remember', path: draft.relative(path) })
      next.push(overlay)
    }
    level = next
  }
  // What is taken back was written to as well, if only at its end.
  for (const [index, step] of steps.entries()) draft.count(step, '', index === 0 ? steps : [])
}
