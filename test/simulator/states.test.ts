/** The states that a power cut may leave, held against a slow and simple way to find them. */

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { choices, DEFAULT_TIERS, draw } from './choices.ts'
import { CrashDisk } from './crash-disk.ts'
import { randomFrom } from './random.ts'
import { RecordingFiles } from './recording-files.ts'
import { SECTOR_SIZE } from './sector.ts'
import { type NameModel, Timeline } from './timeline.ts'
import type { Trace } from './trace.ts'

const PATH = '/file'

/** What a file can hold after the whole trace: one number for the byte of each sector. */
function contentsAt(trace: Trace, position: number, names: NameModel = 'ordered'): Set<string> {
  const timeline = new Timeline(trace, names)
  while (timeline.position < position) timeline.next()
  const disk = new CrashDisk(trace, new Map())
  disk.moveTo(timeline)
  const found = new Set<string>()
  const tiers = { ...DEFAULT_TIERS, names }
  for (const choice of choices(timeline, disk, { tiers, random: randomFrom(1), fresh: true })) {
    disk.apply(choice)
    found.add(textOf(disk))
  }
  return found
}

function textOf(disk: CrashDisk): string {
  const files = new RecordingFiles(disk.snapshot())
  const parts = [...files.names.keys()].filter((path) => path !== '/').sort()
  return parts
    .map((path) => {
      const bytes = files.bytesOf(path)
      const sectors = Array.from({ length: bytes.length / SECTOR_SIZE }, (_, at) => bytes[at * 512])
      return `${path}=${sectors.join('.')}`
    })
    .join(' ')
}

async function traced(
  act: (files: RecordingFiles, write: (at: number, ...values: number[]) => void) => Promise<void>,
): Promise<Trace> {
  const files = new RecordingFiles()
  files.put(PATH, new Uint8Array(2 * SECTOR_SIZE))
  files.startRecording()
  const file = await files.open(PATH, 'write')
  const write = (at: number, ...values: number[]) => {
    const bytes = new Uint8Array(values.length * SECTOR_SIZE)
    values.forEach((value, index) => {
      bytes.fill(value, index * SECTOR_SIZE, (index + 1) * SECTOR_SIZE)
    })
    file.writeSync(bytes, at * SECTOR_SIZE)
  }
  await act(files, write)
  return files.trace
}

describe('a write', () => {
  test('may be there or not until a flush has ended', async () => {
    const trace = await traced(async (files, write) => {
      write(0, 1)
      write(1, 2)
      await (await files.open(PATH, 'write')).sync()
      write(1, 3)
    })
    expect([...contentsAt(trace, 2)].sort()).toEqual([
      '/file=0.0',
      '/file=0.2',
      '/file=1.0',
      '/file=1.2',
    ])
    // The flush has begun, and has not ended.
    expect(contentsAt(trace, 3).size).toBe(4)
    expect([...contentsAt(trace, 4)]).toEqual(['/file=1.2'])
    expect([...contentsAt(trace, 5)].sort()).toEqual(['/file=1.2', '/file=1.3'])
  })

  test('that was issued during a flush is not covered by it', async () => {
    const trace = await traced(async (files, write) => {
      write(0, 1)
      const flush = (await files.open(PATH, 'write')).sync()
      write(1, 2)
      await flush
    })
    expect([...contentsAt(trace, trace.entries.length)].sort()).toEqual(['/file=1.0', '/file=1.2'])
  })

  test('that others overtake is covered only once it was done', async () => {
    const trace = await traced(async (files) => {
      const file = await files.open(PATH, 'write')
      const slow = file.write(new Uint8Array(SECTOR_SIZE).fill(7), 0)
      await file.sync()
      await slow
    })
    const flushed = trace.entries.findIndex(({ op }) => op === 'flushed')
    expect(contentsAt(trace, flushed + 1).size).toBe(2)
  })

  test('stays uncertain after a flush that failed, whatever succeeds later', async () => {
    const trace = await traced(async (files, write) => {
      write(0, 1)
      files.failingFlush = 0
      const file = await files.open(PATH, 'write')
      await expect(file.sync()).rejects.toMatchObject({ code: 'FLUSH_FAILED' })
      write(1, 2)
      await file.sync()
    })
    expect([...contentsAt(trace, trace.entries.length)].sort()).toEqual(['/file=0.2', '/file=1.2'])
  })

  test('past the end may be there without the length, and the length without it', async () => {
    const trace = await traced(async (_, write) => {
      write(0, 5)
      write(2, 1)
    })
    const found = contentsAt(trace, 2)
    expect([...found].sort()).toEqual([
      '/file=0.0',
      '/file=0.0.0',
      '/file=0.0.1',
      '/file=5.0',
      '/file=5.0.0',
      '/file=5.0.1',
    ])
  })
})

test('what a truncation cut off reads as zeroes once the file has grown again', async () => {
  const trace = await traced(async (files, write) => {
    write(0, 1, 2)
    const file = await files.open(PATH, 'write')
    await file.sync()
    await file.truncate(SECTOR_SIZE)
    await file.truncate(2 * SECTOR_SIZE)
  })
  const found = contentsAt(trace, trace.entries.length)
  expect([...found].sort()).toEqual(['/file=1', '/file=1.0', '/file=1.2'])
})

describe('a name', () => {
  const renamed = () =>
    traced(async (files) => {
      await files.open('/new', 'create-new')
      await files.link(PATH, '/other')
      await files.rename('/new', '/last')
    })

  test('is there if all changes before it are, in ordered directories', async () => {
    const found = contentsAt(await renamed(), 3)
    expect(found.size).toBe(4)
    expect(found).toContain('/file=0.0 /last= /other=0.0')
    expect(found).not.toContain('/file=0.0 /last=')
  })

  test('is there or not by itself in weak ones, until the folder was synced', async () => {
    expect(contentsAt(await renamed(), 3, 'weak')).toContain('/file=0.0 /last=')
    const trace = await traced(async (files) => {
      await files.link(PATH, '/other')
      await files.syncFolder('/')
    })
    expect([...contentsAt(trace, 3, 'weak')]).toEqual(['/file=0.0 /other=0.0'])
  })
})

/** The bytes of a state found the slow way: from the begin, write after write. */
function slowly(
  trace: Trace,
  position: number,
  kept: ReadonlySet<number>,
  length: number,
): number[] {
  const durable = new Set<number>()
  trace.entries.slice(0, position).forEach((entry) => {
    if (entry.op !== 'flushed') return
    for (let at = 0; at < entry.start; at++) durable.add(at)
  })
  const sectors: number[] = []
  trace.entries.slice(0, position).forEach((entry, at) => {
    if (entry.op !== 'write' || !(durable.has(at) || kept.has(at))) return
    for (const { index, sector } of entry.changes) sectors[index] = sector.bytes[0] as number
  })
  return Array.from({ length: length / SECTOR_SIZE }, (_, at) => sectors[at] ?? 0)
}

test('any writes, flushes and choices give what doing them one by one gives', () => {
  const step = fc.oneof(
    fc.record({
      at: fc.nat(6),
      values: fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 4 }),
    }),
    fc.constant('flush' as const),
  )
  return fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.nat(), async (steps, seed) => {
      const trace = await traced(async (files, write) => {
        const file = await files.open(PATH, 'write')
        for (const one of steps) {
          if (one === 'flush') await file.sync()
          else write(one.at, ...one.values)
        }
      })
      const random = randomFrom(seed)
      const timeline = new Timeline(trace, 'ordered')
      const disk = new CrashDisk(trace, new Map())
      disk.moveTo(timeline)
      for (let position = 0; position <= trace.entries.length; position++) {
        const choice = draw(timeline, disk, { tiers: DEFAULT_TIERS, random })
        choice.events.forEach((one, event) => {
          if (typeof one !== 'number') choice.events[event] = 1
        })
        disk.apply(choice)
        const kept = new Set(
          timeline.pending
            .filter((_, event) => choice.events[event] === 1)
            .map((one) => one.position),
        )
        const [file] = disk.files.values()
        const length = file?.length ?? 0
        const found = Array.from({ length: length / SECTOR_SIZE }, (_, at) => {
          return file?.sectors[at]?.bytes[0] ?? 0
        })
        expect(found).toEqual(slowly(trace, position, kept, length))
        timeline.next()
        disk.moveTo(timeline)
      }
    }),
    { numRuns: 200, seed: 7 },
  )
})
