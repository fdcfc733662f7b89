/** All broken images: which whole one is damaged, where, and how. */

import type { Breakage } from './breakage.ts'
import { fileBreakages } from './breakages-file.ts'
import { headerBreakages } from './breakages-header.ts'
import { tableBreakages } from './breakages-tables.ts'
import { viewBreakages } from './breakages-views.ts'

export const breakages: readonly Breakage[] = [
  ...headerBreakages,
  ...fileBreakages,
  ...tableBreakages,
  ...viewBreakages,
]
