/**
 * `compare -s`: besides the content, the size and the allocation must be the same, as QEMU tells allocation: what kind a byte
 * is of in the layer that decides it, and whether it has a place of its own there.
 */

import { breathe } from '../../base/breathe.ts'
import { roundDown } from '../../base/bytes.ts'
import type { LongWork } from '../../base/progress.ts'
import { type BlockDevice, compare, SliceDevice } from '../../block/index.ts'
import { type Chain, type MapExtent, mapChain } from '../../chain/index.ts'

const SECTOR_SIZE = 512

/** One side: the layers that decide the allocation, and the device that is read. */
export interface StrictSide {
  readonly chain: Chain
  readonly device: BlockDevice
}

/** Compares and says the first difference; the exit status. */
export async function compareStrictly(
  a: StrictSide,
  b: StrictSide,
  say: (line: string) => Promise<void>,
  work: LongWork,
): Promise<number> {
  const total = a.device.size
  if (total !== b.device.size) {
    await say('Strict mode: Image size mismatch!')
    return 1
  }
  const [runsA, runsB] = [new Runs(a.chain, work), new Runs(b.chain, work)]
  for (let offset = 0; offset < total; ) {
    work.onProgress?.({ done: offset, total })
    const [runA, runB] = [await runsA.at(offset), await runsB.at(offset)]
    if (kindOf(a.chain, runA, total) !== kindOf(b.chain, runB, total)) {
      await say(`Strict mode: Offset ${offset} block status mismatch!`)
      return 1
    }
    const length = Math.min(runA.start + runA.length, runB.start + runB.length) - offset
    const differs = runA.zero ? -1 : await firstDifference(a, b, offset, length, work)
    if (differs >= 0) {
      await say(`Content mismatch at offset ${roundDown(differs, SECTOR_SIZE)}!`)
      return 1
    }
    offset += length
    await breathe(work.signal)
  }
  await say('Images are identical.')
  return 0
}

/** The map of a chain, run by run, as it is asked for in rising order. */
class Runs {
  readonly #map: AsyncGenerator<MapExtent, void>
  #current: MapExtent | undefined

  constructor(chain: Chain, { signal }: LongWork) {
    this.#map = mapChain(chain, 0, chain.device.size, { signal })
  }

  /** The run in which `offset` lies, which is inside the chain. */
  async at(offset: number): Promise<MapExtent> {
    while (this.#current === undefined || this.#current.start + this.#current.length <= offset) {
      this.#current = (await this.#map.next()).value ?? undefined
      if (this.#current === undefined) throw new Error(`internal: map ends before ${offset}`)
    }
    return this.#current
  }
}

/** Two runs are the same to QEMU if these words are; whether a run goes on to the end is part of it. */
function kindOf(chain: Chain, run: MapExtent, total: number): string {
  const { data, zero, depth } = run
  // Where a backing file ends early QEMU takes what follows for zeroes that are there.
  const present = run.present || depth < chain.layers.length - 1
  const placed = run.offset !== undefined
  const toEnd = run.start + run.length === total
  return [data, zero, present, placed, toEnd].join()
}

/** The first byte that differs; -1 where none does. */
async function firstDifference(
  a: StrictSide,
  b: StrictSide,
  offset: number,
  size: number,
  { signal }: LongWork,
): Promise<number> {
  const slice = { offset, size }
  const found = await compare(new SliceDevice(a.device, slice), new SliceDevice(b.device, slice), {
    signal,
  })
  return found.identical ? -1 : offset + found.offset
}
