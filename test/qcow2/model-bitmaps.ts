/** What the bitmaps of a model must have noticed: each sector that reads differently since the bitmap was made, or cleared. */

import { expect } from 'vitest'
import type { DirtyRange, Qcow2Image } from '../../src/qcow2/index.ts'
import type { ModelDisk } from '../support/model-disk.ts'

const SECTOR = 512

/** One bitmap. */
export interface ModelBitmap {
  enabled: boolean
  readonly granularity: number
  /** Sectors that must be dirty; more may be. */
  readonly truth: Set<number>
}

/** The bitmaps of an image, by name. */
export class ModelBitmaps extends Map<string, ModelBitmap> {
  /** Takes note of what a step changed. */
  follow(before: ModelDisk, after: ModelDisk): void {
    const enabled = [...this.values()].filter((bitmap) => bitmap.enabled)
    if (enabled.length > 0) {
      after.visitChanges(before, (sector) => {
        for (const { truth } of enabled) truth.add(sector)
      })
    }
    if (after.size >= before.size) return
    for (const { truth } of this.values()) {
      for (const sector of truth) if (sector * SECTOR >= after.size) truth.delete(sector)
    }
  }

  /** Compares with those of the image, which may say too much and never too little. */
  async compare(image: Qcow2Image): Promise<void> {
    const found = this.size === 0 && image.header.version === 2 ? [] : await image.bitmaps()
    expect(found.map(({ name }) => name).sort()).toEqual([...this.keys()].sort())
    for (const { name, auto, granularityBits } of found) {
      const { enabled, granularity, truth } = this.get(name) as ModelBitmap
      expect([name, auto, 2 ** granularityBits]).toEqual([name, enabled, granularity])
      const dirty = new Set<number>()
      await image.readBitmap(name, (list) => noteSectors(list, dirty))
      const missed = [...truth].find((sector) => !dirty.has(sector))
      if (missed !== undefined) expect.fail(`bitmap ${name} does not know of sector ${missed}`)
    }
  }
}

function noteSectors(list: readonly DirtyRange[], dirty: Set<number>): void {
  for (const { offset, length } of list) {
    const end = Math.ceil((offset + length) / SECTOR)
    for (let sector = Math.floor(offset / SECTOR); sector < end; sector++) dirty.add(sector)
  }
}
