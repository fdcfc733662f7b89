/** Copies of a disk into another format: uncompressed, so that reading, writing and finding zeroes is what is measured. */

import { join } from 'node:path'
import { type Bench, type Setting, scaled, sizeText } from './bench.ts'
import { cowpoint, otherTool, qemuImg, verifySame } from './commands.ts'
import { CONTENT_TEXTS, type Content, SHARES, settle, warmMemory, writeRawDisk } from './inputs.ts'
import type { Comparison } from './pairs.ts'

/** What each row may be slowed by; `cached` is what the others differ from. */
type Medium = 'cached' | 'flushed' | 'cold'

const MEDIUM_TEXTS: Readonly<Record<Medium, string>> = {
  cached: 'source cached; target not flushed',
  flushed: 'source cached; target flushed',
  cold: 'source not in the page cache; target not flushed',
}

/** The job `convert`. */
export const convertBench: Bench = {
  name: 'convert',
  async *comparisons(setting) {
    const size = scaled(setting, 2048)
    for (const content of ['mixed', 'data', 'sparse'] as const) {
      writeRawDisk(join(setting.folder, 'disk.raw'), size, content)
      setting.tools.qemuImg('convert -f raw -O qcow2 disk.raw disk.qcow2')
      settle(setting)
      const row = (from: string, to: string, medium: Medium = 'cached') =>
        comparison(setting, { from, to, size, content, medium })
      yield row('raw', 'qcow2')
      yield row('qcow2', 'raw')
      yield row('qcow2', 'qcow2')
      if (content !== 'mixed') continue
      yield row('raw', 'qcow2', 'flushed')
      yield row('qcow2', 'raw', 'cold')
    }
  },
}

interface Row {
  readonly from: string
  readonly to: string
  readonly size: number
  readonly content: Content
  readonly medium: Medium
}

function comparison(setting: Setting, row: Row): Comparison {
  const { from, to, size, content, medium } = row
  const flags = medium === 'flushed' ? '-t writeback ' : ''
  const line = (out: string) => `convert ${flags}-f ${from} -O ${to} disk.${from} ${out}`
  const prepare = () => {
    // Drops what the page cache holds of the file.
    if (medium === 'cold')
      setting.tools.tool(`dd if=disk.${from} iflag=nocache count=0 status=none`)
    // What a cold source is read into is wanted too.
    warmMemory(setting, size * SHARES[content].data * (medium === 'cold' ? 2 : 1))
  }
  const around = (out: string) => ({
    ...{ prepare, leaves: [out] },
    verify: () => verifySame(setting, 'disk.raw', out, to),
  })
  const theirs = (more: string) =>
    qemuImg(setting, line('theirs').replace('convert', `convert${more}`), around('theirs'))
  return {
    job: `convert ${from} to ${to}, ${content}${medium === 'cached' ? '' : `, ${medium}`}`,
    conditions: `${sizeText(size)}, ${CONTENT_TEXTS[content]}; ${MEDIUM_TEXTS[medium]}; whole process; their best of -W and -m`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, line('ours'), around('ours')),
    theirs: [theirs(''), theirs(' -W'), theirs(' -W -m 16')],
    limit: otherTool(setting, `cp --sparse=always --reflink=never disk.${from} limit`, {
      ...{ prepare, leaves: ['limit'] },
    }),
  }
}
