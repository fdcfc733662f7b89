/** The model agrees with the real qemu-io on random stories, so that it can judge the engine. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { noise } from '../images/pattern.ts'
import { ModelDisk, type ModelGeometry } from './model-disk.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk } from './qemu.ts'
import { tempFolder } from './temp.ts'

const v3: ModelGeometry = { version: 3, clusterSize: 4096 }

describe('the model disk', () => {
  it('reads what was written, zeroes elsewhere, and the backing below', () => {
    const disk = new ModelDisk(2048, v3, new Uint8Array(700).fill(7))
    disk.write(600, new Uint8Array(8).fill(1))
    const expected = Buffer.alloc(2048).fill(7, 0, 700).fill(1, 600, 608)
    expect(Buffer.from(disk.contents()).equals(expected)).toBe(true)
  })

  it('discards whole clusters only, and the cut cluster at the end', () => {
    const disk = new ModelDisk(10_000, v3)
    disk.write(0, new Uint8Array(10_000).fill(1))
    disk.discard(100, 8000)
    expect(disk.contents().indexOf(0)).toBe(-1)
    disk.discard(4000, 6000)
    expect(Buffer.from(disk.contents()).equals(Buffer.alloc(10_000).fill(1, 0, 4096))).toBe(true)
  })

  it('lets no old backing data reappear: version 2 over a backing ignores discard', () => {
    const disk = new ModelDisk(8192, { ...v3, version: 2 }, new Uint8Array(8192).fill(9))
    disk.write(0, new Uint8Array(4096).fill(1))
    disk.discard(0, 8192)
    const expected = Buffer.alloc(8192).fill(1, 0, 4096).fill(9, 4096)
    expect(Buffer.from(disk.contents()).equals(expected)).toBe(true)
  })

  it('reads zeroes where a disk grew over a longer backing, and where it was cut before', () => {
    const disk = new ModelDisk(4096, v3, new Uint8Array(8192).fill(9))
    disk.resize(1000)
    disk.resize(8192)
    expect(Buffer.from(disk.contents()).equals(Buffer.alloc(8192).fill(9, 0, 1000))).toBe(true)
  })

  it('returns to content and size of a snapshot, as often as asked', () => {
    const disk = new ModelDisk(4096, v3)
    disk.write(0, new Uint8Array(512).fill(1))
    disk.createSnapshot('one')
    disk.resize(1024)
    for (const byte of [2, 3]) {
      disk.write(0, new Uint8Array(512).fill(byte))
      disk.applySnapshot('one')
      expect([disk.size, disk.read(0, 1)[0]]).toEqual([4096, 1])
    }
    expect(disk.snapshots).toEqual([{ name: 'one', size: 4096 }])
    disk.deleteSnapshot('one')
    expect(() => disk.applySnapshot('one')).toThrow('no snapshot one')
  })

  it('throws for a range that leaves the disk', () => {
    const disk = new ModelDisk(512, v3)
    expect(() => disk.read(1, 512)).toThrow('leaves the disk')
    expect(() => disk.write(512, new Uint8Array(1))).toThrow('leaves the disk')
  })
})

interface Setting {
  readonly options: string
  readonly geometry: ModelGeometry
  readonly backing: boolean
}

const settings: readonly Setting[] = [
  { options: 'cluster_size=512', geometry: { version: 3, clusterSize: 512 }, backing: false },
  { options: 'cluster_size=4k', geometry: { version: 3, clusterSize: 4096 }, backing: true },
  {
    options: 'extended_l2=on,cluster_size=16k',
    geometry: { version: 3, clusterSize: 16384 },
    backing: true,
  },
  {
    options: 'compat=0.10,cluster_size=4k',
    geometry: { version: 2, clusterSize: 4096 },
    backing: true,
  },
  {
    options: 'compat=0.10,cluster_size=512',
    geometry: { version: 2, clusterSize: 512 },
    backing: false,
  },
]

describeWithQemu('the model disk beside qemu-io', () => {
  it.each(settings.map((setting, seed) => [setting.options, setting, seed] as const))(
    'holds the same bytes after a random story (%s)',
    async (_options, setting, seed) => {
      const cwd = tempFolder()
      const next = numbers(seed + 1)
      const backing = noise(seed, 50_000)
      let size = 128 * 512 + 512 * (seed % 7)
      writeFileSync(join(cwd, 'base.raw'), backing)
      const base = setting.backing ? ['-b', 'base.raw', '-F', 'raw'] : []
      const create = ['create', '-f', 'qcow2', '-o', setting.options, ...base, 'disk.qcow2']
      await qemuImgOk([...create, String(size)], { cwd })
      const model = new ModelDisk(size, setting.geometry, setting.backing ? backing : undefined)
      for (let round = 0; round < 12; round++) {
        await qemuIoOk('disk.qcow2', randomRequests(model, next), { cwd })
        const name = `s${round}`
        if (round % 3 === 0) {
          model.createSnapshot(name)
          await qemuImgOk(['snapshot', '-c', name, 'disk.qcow2'], { cwd })
        }
        if (round === 7) {
          model.applySnapshot('s3')
          await qemuImgOk(['snapshot', '-a', 's3', 'disk.qcow2'], { cwd })
        }
        if (round % 4 === 1 && setting.geometry.version === 3) {
          size = 512 * (100 + (next() % 80))
          model.resize(size)
          await qemuImgOk(['resize', '-q', '--shrink', 'disk.qcow2', String(size)], { cwd })
        }
        await expectEqual(cwd, model.contents(), `round ${round}`)
      }
      for (const { name } of model.snapshots) {
        await qemuImgOk(['snapshot', '-a', name, 'disk.qcow2'], { cwd })
        await expectEqual(cwd, model.snapshotContents(name), name)
      }
    },
  )

  /** Applies a few random requests to the model and returns them as qemu-io commands. */
  function randomRequests(model: ModelDisk, next: () => number): string[] {
    return Array.from({ length: 8 }, () => {
      const offset = 512 * (next() % (model.size / 512))
      const length = Math.min(model.size - offset, 512 * (1 + (next() % 60)))
      const byte = 1 + (next() % 255)
      switch (next() % 4) {
        case 0:
          model.zero(offset, length)
          return `write -z ${offset} ${length}`
        case 1:
          model.discard(offset, length)
          return `discard ${offset} ${length}`
        default:
          model.write(offset, new Uint8Array(length).fill(byte))
          return `write -P ${byte} ${offset} ${length}`
      }
    })
  }

  async function expectEqual(cwd: string, expected: Uint8Array, when: string) {
    await qemuImgOk(['convert', '-f', 'qcow2', '-O', 'raw', 'disk.qcow2', 'out.raw'], {
      cwd,
    })
    expect(readFileSync(join(cwd, 'out.raw')).equals(expected), when).toBe(true)
  }
})

function numbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 8
  }
}
