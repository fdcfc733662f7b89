/** A plan as text and as JSON. */

import { formatSize } from '../../../base/units.ts'
import { type Plan, shortId } from '../../../checkpoint/index.ts'

/** What a dry run prints. */
export function planLines(plan: Plan): string[] {
  const { verb, checkpoint, steps, touches, views, alternatives = [] } = plan
  const about = checkpoint === undefined ? '' : ` ${checkpoint.name} ${shortId(checkpoint.id)}`
  const section = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? [] : [title, ...lines.map((line) => `  ${line}`)]
  return [
    `${verb}${about}`,
    ...section('steps', steps.length === 0 ? ['nothing is to be done'] : steps),
    ...section(
      'files',
      touches.map(({ path, action }) => `${action.padEnd(8)}${path}`),
    ),
    ...section(
      'views',
      views.map(({ name, effect }) => `${name}: ${effect}`),
    ),
    ...section(
      'alternatives',
      alternatives.map(({ name, bytesWritten, why }) =>
        [`${name}: ${formatSize(bytesWritten)} written`, ...(why === undefined ? [] : [why])].join(
          ', ',
        ),
      ),
    ),
    `reads ${formatSize(plan.bytesRead)}, writes ${formatSize(plan.bytesWritten)}, needs ${formatSize(plan.peakSpace)} of space`,
  ]
}

/** The fields of a plan in JSON. */
export function planObject(plan: Plan): object {
  const { verb, checkpoint, steps, touches, views, alternatives } = plan
  return {
    verb,
    ...(checkpoint === undefined ? {} : { checkpoint }),
    steps,
    files: touches,
    'bytes-read': plan.bytesRead,
    'bytes-written': plan.bytesWritten,
    'peak-space': plan.peakSpace,
    views,
    ...(alternatives === undefined
      ? {}
      : {
          alternatives: alternatives.map(({ name, bytesWritten, why }) => ({
            name,
            'bytes-written': bytesWritten,
            why,
          })),
        }),
  }
}
