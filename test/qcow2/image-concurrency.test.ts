/** Requests and verbs at the same time: whoever must wait for another does, and what waited meets the disk as it then is. */

import { describe, expect, test } from 'vitest'
import { Qcow2Image } from '../../src/qcow2/index.ts'
import type { MemoryDevice } from '../../src/storage/index.ts'
import {
  bytesOf,
  CLUSTER,
  during,
  expectSound,
  filled,
  newBench,
  readAt,
  reopened,
  SIZE,
} from './image-bench.ts'
import { Barrier, holdUp, jitter, settle } from './image-devices.ts'

describe('an image that is opened', () => {
  test('knows one active L1 table, whoever asks for it first', async () => {
    // One L2 table holds 2 MiB: the write needs another, and so an entry of its own in the L1 table.
    const size = 8 * 1024 * 1024
    const bench = await newBench({ size })
    await bench.image.write(0, filled(1))
    await bench.image.close()
    const image = await reopened(bench)
    const { l1TableOffset } = image.header
    const again = { ...bench, memory: bench.device.target as MemoryDevice, image }
    // The first look-up reads the table, and comes back with it after a write has changed it.
    const bytes = await during(
      again,
      readAt(l1TableOffset),
      () => bytesOf(image, 0),
      async () => {
        const written = image.write(size - CLUSTER, filled(9))
        await settle()
        void written.catch(() => {})
      },
    )
    expect(bytes).toEqual(filled(1))
    await image.write(CLUSTER, filled(8))
    expect(await bytesOf(image, size - CLUSTER)).toEqual(filled(9))
    await expectSound(again)
    const last = await reopened(again)
    expect(await bytesOf(last, size - CLUSTER)).toEqual(filled(9))
    expect(await bytesOf(last, CLUSTER)).toEqual(filled(8))
    await last.close()
  })
})

describe('writes', () => {
  test('keep their order within a cluster whose first one waits for the file, and others pass', async () => {
    const bench = await newBench()
    const { image, device } = bench
    await image.write(0, filled(1, 2 * CLUSTER))
    const barrier = new Barrier()
    device.hook = holdUp(barrier, ({ op }) => op === 'write')
    const first = image.write(0, filled(2))
    await barrier.reached
    device.hook = undefined
    let isWritten = false
    const second = image.write(100, filled(3, 200)).then(() => {
      isWritten = true
    })
    await image.write(CLUSTER, filled(4))
    await settle()
    expect(isWritten).toBe(false)
    barrier.letGo()
    await Promise.all([first, second])
    const expected = filled(2)
    expected.fill(3, 100, 300)
    expect(await bytesOf(image, 0)).toEqual(expected)
    expect(await bytesOf(image, CLUSTER)).toEqual(filled(4))
    await expectSound(bench)
  })

  test.each([['at once', undefined] as const, ['late', jitter(7)] as const])(
    'that are asked for together are all there, on a file that answers %s',
    async (_when, hook) => {
      const bench = await newBench()
      const { image, device } = bench
      const expected = new Uint8Array(SIZE)
      device.hook = hook
      // Neighbours share clusters, and meet commits under way.
      const length = 3000
      const asked: Promise<void>[] = []
      for (let index = 0; (index + 1) * length <= SIZE && index < 96; index++) {
        const offset = ((index * 37) % 96) * length
        if (offset + length > SIZE) continue
        expected.fill(index + 1, offset, offset + length)
        asked.push(image.write(offset, filled(index + 1, length)))
        if (index % 3 === 0) asked.push(image.flush())
      }
      await Promise.all(asked)
      expect(await bytesOf(image, 0, SIZE)).toEqual(expected)
      await expectSound(bench)
    },
  )
})

describe('structural verbs', () => {
  test('wait for writes in flight, which their result then holds whole', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1, 4 * CLUSTER))
    const barrier = new Barrier()
    bench.device.hook = holdUp(barrier, ({ op, length }) => op === 'write' && length > 2 * CLUSTER)
    const written = image.write(CLUSTER / 2, filled(2, 3 * CLUSTER))
    await barrier.reached
    let isTaken = false
    const taken = image.createSnapshot({ name: 'after' }).then((snapshot) => {
      isTaken = true
      return snapshot
    })
    await settle()
    expect(isTaken).toBe(false)
    barrier.letGo()
    await written
    const view = await image.openSnapshot(await taken)
    expect(await bytesOf(view, CLUSTER / 2, 3 * CLUSTER)).toEqual(filled(2, 3 * CLUSTER))
    await expectSound(bench)
  })

  test('hold up writes, which go to the disk as it is afterwards', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    await image.flush()
    const barrier = new Barrier()
    bench.device.hook = holdUp(barrier, ({ op, offset }) => op === 'write' && offset === 0)
    const taken = image.createSnapshot({ name: 'before' })
    await barrier.reached
    const written = image.write(0, filled(2))
    await settle()
    barrier.letGo()
    await written
    const view = await image.openSnapshot(await taken)
    expect(await bytesOf(view, 0)).toEqual(filled(1))
    expect(await bytesOf(image, 0)).toEqual(filled(2))
    await expectSound(bench)
  })

  test('say that a snapshot is gone when another call deleted it meanwhile', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    const snapshot = await image.createSnapshot({ name: 'once' })
    const results = await Promise.allSettled([
      image.deleteSnapshot(snapshot),
      image.deleteSnapshot(snapshot),
      image.applySnapshot(snapshot),
      image.readVmState(0, new Uint8Array(0), snapshot),
    ])
    expect(results[0]).toMatchObject({ status: 'fulfilled' })
    for (const result of results.slice(1, 3)) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { name: 'UsageError', code: 'SNAPSHOT_NOT_FOUND' },
      })
    }
    await expectSound(bench)
  })

  test('never shrink the disk, also when two calls let it grow at the same time', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(SIZE - CLUSTER, filled(1))
    const results = await Promise.allSettled([
      image.resize(SIZE + 9 * CLUSTER),
      image.resize(SIZE + CLUSTER),
      image.resize(SIZE + 9 * CLUSTER),
    ])
    expect(image.size).toBe(SIZE + 9 * CLUSTER)
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(results[1]).toMatchObject({ reason: { code: 'SHRINK_NOT_ALLOWED' } })
    await expectSound(bench)
  })

  test.each(['write', 'writeZeroes', 'discard', 'writeCompressed'] as const)(
    'that make the disk smaller leave a %s that waited outside it',
    async (request) => {
      // One L2 table holds 2 MiB: what lies behind the small disk has no L1 entry there.
      const bench = await newBench({ size: 2 * 1024 * 1024 })
      const { image } = bench
      const small = await image.createSnapshot({ name: 'small' })
      await image.resize(16 * 1024 * 1024)
      const offset = 12 * 1024 * 1024
      await image.write(offset, filled(1))
      const barrier = new Barrier()
      bench.device.hook = holdUp(barrier, ({ op, offset }) => op === 'write' && offset === 0)
      const applied = image.applySnapshot(small)
      await barrier.reached
      const late =
        request === 'write' || request === 'writeCompressed'
          ? image[request](offset, filled(2))
          : image[request](offset, CLUSTER)
      barrier.letGo()
      await expect(late).rejects.toMatchObject({ name: 'UsageError', code: 'OUT_OF_RANGE' })
      await applied
      expect(image.size).toBe(2 * 1024 * 1024)
      await expectSound(bench)
    },
  )

  test('take the room for VM state away only between its writes', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    await image.writeVmState(0, filled(3, 3 * CLUSTER))
    const results = await Promise.allSettled([
      image.writeVmState(0, filled(4, 3 * CLUSTER)),
      image.createSnapshot({ name: 'without' }),
      image.writeVmState(CLUSTER, filled(5, 3 * CLUSTER)),
      image.createSnapshot({ name: 'with', vmStateSize: 4 * CLUSTER }),
    ])
    expect(results.map(({ status }) => status)).toEqual(Array(4).fill('fulfilled'))
    // Which of the two writes a snapshot has is a matter of order; that it is whole is not.
    for (const snapshot of image.snapshots.filter(({ vmStateSize }) => vmStateSize > 0)) {
      const bytes = new Uint8Array(3 * CLUSTER)
      await image.readVmState(CLUSTER, bytes, snapshot)
      expect([0, 4, 5]).toContain(bytes[0])
      expect(new Set(bytes.subarray(0, CLUSTER)).size).toBe(1)
    }
    await expectSound(bench)
  })

  test('come to an end before close does, and none begins after it', async () => {
    const bench = await newBench()
    const { image, memory } = bench
    await image.write(0, filled(1))
    const taken = image.createSnapshot({ name: 'last' })
    const written = image.write(CLUSTER, filled(2))
    const closed = image.close()
    await expect(image.createSnapshot({ name: 'late' })).rejects.toMatchObject({
      code: 'DEVICE_CLOSED',
    })
    await Promise.all([taken, written, closed])
    const again = await Qcow2Image.open(memory.clone())
    expect(again.snapshots.map(({ name }) => name)).toEqual(['last'])
    expect(await bytesOf(again, CLUSTER)).toEqual(filled(2))
    await again.close()
  })
})
