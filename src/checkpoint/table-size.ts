/** How much a change of all tables of a layer can take. */

import type { SurveyedLayer } from './survey.ts'

/** At most so many bytes of tables are read and written anew. */
export function tableSize({ header, stat }: SurveyedLayer): number {
  if (header === undefined) return 0
  const clusterSize = 2 ** header.clusterBits
  const reach = clusterSize * (clusterSize / 8)
  const tableCount = Math.min(Math.ceil(header.size / reach), Math.ceil(stat.size / clusterSize))
  return (tableCount + 4) * clusterSize + 2 * header.l1Size * 8
}
