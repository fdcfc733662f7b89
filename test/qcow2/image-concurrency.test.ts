/**
 * Requests and verbs at the same time, with a device below that holds up single calls: a read in flight never
 * sees bytes that were never its own, and whoever must wait for another does.
 */

import { describe, expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { Barrier, type Call, HookedDevice, holdUp, settle } from './image-devices.ts'

const CLUSTER = 4096
const SIZE = 64 * CLUSTER

interface Bench {
  readonly memory: MemoryDevice
  readonly device: HookedDevice
  readonly image: Qcow2Image
}

async function newBench(options: { size?: number; extendedL2?: boolean } = {}): Promise<Bench> {
  const memory = new MemoryDevice(0, { growable: true })
  const clusterSize = options.extendedL2 === true ? 16_384 : CLUSTER
  await createQcow2(memory, { size: SIZE, clusterSize, ...options })
  const device = new HookedDevice(memory)
  return { memory, device, image: await Qcow2Image.open(device, { writable: true }) }
}

function filled(byte: number, length = CLUSTER): Uint8Array {
  return new Uint8Array(length).fill(byte)
}

async function bytesOf(view: Pick<Qcow2Image, 'read'>, offset: number, length = CLUSTER) {
  const bytes = new Uint8Array(length)
  await view.read(offset, bytes)
  return bytes
}

/** The calls that read whole clusters of data, not tables: those go in other lengths or places. */
function readAt(offset: number): (call: Call) => boolean {
  return (call) => call.op === 'read' && call.offset === offset
}

async function hostOf(image: Qcow2Image, offset: number): Promise<number> {
  const mapping = await image.map(offset, 1)
  if (mapping.kind !== 'normal' && mapping.kind !== 'compressed') throw new Error('no data there')
  return mapping.hostOffset
}

async function expectSound({ memory, image }: Bench, leaks = 0): Promise<void> {
  await image.close()
  const report = await checkImage(memory.clone())
  expect([report.corruptions, report.checkErrors, report.leaks]).toEqual([0, 0, leaks])
}

/** Holds up the first call that `which` picks while `meanwhile` goes on. */
async function during<T>(
  { device }: Bench,
  which: (call: Call) => boolean,
  held: () => Promise<T>,
  meanwhile: () => Promise<unknown>,
): Promise<T> {
  const barrier = new Barrier()
  device.hook = holdUp(barrier, which)
  const result = held()
  await barrier.reached
  device.hook = undefined
  try {
    await meanwhile()
  } finally {
    barrier.letGo()
  }
  return result
}

/** Writes other bytes until the whole free space has been handed out again, durably. */
async function reuse({ image }: Bench): Promise<void> {
  for (let round = 0; round < 3; round++) {
    for (let cluster = 20; cluster < 50; cluster++) {
      await image.write(cluster * CLUSTER, filled(200 + round))
    }
    await image.flush()
    await image.discard(20 * CLUSTER, 10 * CLUSTER)
    await image.flush()
  }
}

describe('a read in flight', () => {
  const losses: Record<string, (bench: Bench) => Promise<unknown>> = {
    'is discarded': ({ image }) => image.discard(0, 2 * CLUSTER),
    'is unmapped': ({ image }) => image.writeZeroes(0, 2 * CLUSTER, { mayDiscard: true }),
    'is written compressed': ({ image }) => image.writeCompressed(0, filled(3)),
  }

  test.each(Object.keys(losses))(
    'of a range that %s and whose clusters are taken again sees no foreign byte',
    async (loss) => {
      const bench = await newBench()
      const { image } = bench
      await image.write(0, filled(1, 2 * CLUSTER))
      await image.flush()
      const host = await hostOf(image, 0)
      const bytes = await during(
        bench,
        readAt(host),
        () => bytesOf(image, 0),
        async () => {
          await losses[loss]!(bench)
          await image.flush()
          await reuse(bench)
        },
      )
      expect(bytes).toEqual(filled(1))
      await expectSound(bench)
    },
  )

  test('of compressed data that is written over sees no foreign byte', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.writeCompressed(0, filled(7))
    await image.flush()
    const host = await hostOf(image, 0)
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0),
      async () => {
        await image.write(0, filled(1))
        await image.flush()
        await reuse(bench)
        for (let cluster = 50; cluster < 60; cluster++) {
          await image.writeCompressed(cluster * CLUSTER, filled(cluster))
        }
      },
    )
    expect(bytes).toEqual(filled(7))
    expect(await bytesOf(image, 0)).toEqual(filled(1))
    expect(await bytesOf(image, 55 * CLUSTER)).toEqual(filled(55))
    await expectSound(bench)
  })

  test('that goes on after a discard goes through the clusters that it began with', async () => {
    const bench = await newBench()
    const { image } = bench
    // Two runs: the second is looked up only when the first was read.
    await image.write(CLUSTER, filled(2))
    await image.write(0, filled(1))
    await image.flush()
    const host = await hostOf(image, 0)
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0, 2 * CLUSTER),
      async () => {
        await image.discard(0, 2 * CLUSTER)
        await image.flush()
        await reuse(bench)
      },
    )
    expect(bytes.subarray(0, CLUSTER)).toEqual(filled(1))
    expect([0, 2]).toContain(bytes[CLUSTER])
    expect(new Set(bytes.subarray(CLUSTER)).size).toBe(1)
    await expectSound(bench)
  })

  test('of the active disk outlives the apply that replaces it', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    const snapshot = await image.createSnapshot({ name: 'old' })
    await image.write(0, filled(2))
    await image.flush()
    const host = await hostOf(image, 0)
    let applied: Promise<void> = Promise.resolve()
    const bytes = await during(
      bench,
      readAt(host),
      () => bytesOf(image, 0),
      async () => {
        applied = image.applySnapshot(snapshot)
        await settle()
      },
    )
    await applied
    expect(bytes).toEqual(filled(2))
    expect(await bytesOf(image, 0)).toEqual(filled(1))
    await expectSound(bench)
  })

  test('of a snapshot outlives its deletion; the next one says that it is gone', async () => {
    const bench = await newBench()
    const { image } = bench
    await image.write(0, filled(1))
    const snapshot = await image.createSnapshot({ name: 'old' })
    await image.write(0, filled(2))
    await image.flush()
    const view = await image.openSnapshot(snapshot)
    const mapping = await view.map(0, 1)
    if (mapping.kind !== 'normal') throw new Error('no data there')
    let deleted: Promise<void> = Promise.resolve()
    const bytes = await during(
      bench,
      readAt(mapping.hostOffset),
      () => bytesOf(view, 0),
      async () => {
        deleted = image.deleteSnapshot(snapshot)
        await settle()
      },
    )
    await deleted
    expect(bytes).toEqual(filled(1))
    await expect(bytesOf(view, 0)).rejects.toMatchObject({ code: 'SNAPSHOT_NOT_FOUND' })
    await expectSound(bench)
  })

  test.each(['extents', 'map'] as const)(
    'of tables, for %s, outlives the table',
    async (question) => {
      const bench = await newBench()
      const { image } = bench
      await image.write(0, filled(1))
      await image.createSnapshot({ name: 'shares the table' })
      await image.write(CLUSTER, filled(1))
      await image.close()
      const again = { ...bench, image: await reopened(bench) }
      // The table of the active disk goes with the apply, and data may come to lie there.
      const answer = await during(
        again,
        ({ op, length, offset }) => op === 'read' && length === CLUSTER && offset > 0,
        async () => (question === 'map' ? again.image.map(0, SIZE) : again.image.extents(0, SIZE)),
        async () => {
          const applied = again.image.applySnapshot(again.image.snapshots[0]!)
          await settle()
          applied.then(() => {})
        },
      )
      const first = Array.isArray(answer) ? answer[0] : answer
      expect(first).toMatchObject({ kind: question === 'map' ? 'normal' : 'data' })
      await again.image.flush()
      await expectSound(again)
    },
  )
})

async function reopened(bench: Bench): Promise<Qcow2Image> {
  const memory = bench.memory.clone()
  Object.assign(bench, { memory })
  Object.assign(bench.device, { target: memory })
  return Qcow2Image.open(bench.device, { writable: true })
}

describe('an image that is opened', () => {
  test('knows one active L1 table, whoever asks for it first', async () => {
    const bench = await newBench()
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
        const written = image.write(SIZE - CLUSTER, filled(9))
        await settle()
        void written.catch(() => {})
      },
    )
    expect(bytes).toEqual(filled(1))
    await image.write(CLUSTER, filled(8))
    expect(await bytesOf(image, SIZE - CLUSTER)).toEqual(filled(9))
    await expectSound(again)
    const last = await reopened(again)
    expect(await bytesOf(last, SIZE - CLUSTER)).toEqual(filled(9))
    expect(await bytesOf(last, CLUSTER)).toEqual(filled(8))
    await last.close()
  })
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
      const applied = image.applySnapshot(small)
      const late =
        request === 'write' || request === 'writeCompressed'
          ? image[request](offset, filled(2))
          : image[request](offset, CLUSTER)
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
