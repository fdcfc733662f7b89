/** The fast check is held against the engine's check, on images that are sound and on images with one thing broken. */

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { checkImage, Qcow2Image } from '../../src/qcow2/index.ts'
import { FileDevice } from '../../src/storage/index.ts'
import { CrashDisk } from './crash-disk.ts'
import { geometryNamed, open } from './geometry.ts'
import { randomFrom } from './random.ts'
import { RecordingFiles } from './recording-files.ts'
import { clusterSectorsOf, contentsOf } from './session.ts'
import { ViewCollector, type ViewSet } from './view-set.ts'
import { workloadNamed } from './workloads/index.ts'
import { DISK } from './workloads/worn-disk.ts'

const collector = () => new ViewCollector([{ name: 'disk', paths: [DISK] }])

function seenIn(files: RecordingFiles): ViewSet {
  const snapshot = files.snapshot()
  return collector().collect(CrashDisk.of(snapshot, clusterSectorsOf(snapshot)))
}

async function verdict(files: RecordingFiles): Promise<string> {
  const report = await checkImage(await FileDevice.open(files, DISK)).catch(() => undefined)
  if (report === undefined || report.failure !== undefined) return 'refused'
  if (report.corruptions + report.checkErrors > 0) return 'corrupt'
  return report.leaks > 0 ? 'leak' : 'clean'
}

function fastVerdict({ problems, leaks }: ViewSet): string {
  return problems.length > 0 ? 'corrupt' : leaks > 0 ? 'leak' : 'clean'
}

const folder = join(import.meta.dirname, '../images')
/** Sound, by themselves, and of a kind that the simulator makes. */
const images = readdirSync(folder, { withFileTypes: true })
  .filter(
    (entry) =>
      entry.isDirectory() &&
      !/chain|backing|base|data-file|luks|aes|zstd|corrupt|leak|dirty|breakage/.test(entry.name),
  )
  .map(({ name }) => name)

describe.each(images)('%s', (name) => {
  test('is found sound, and every view is read as the engine reads it', async () => {
    const files = new RecordingFiles()
    files.put(DISK, gunzipSync(readFileSync(join(folder, name, 'disk.qcow2.gz'))))
    const image = await Qcow2Image.open(await FileDevice.open(files, DISK))
    if (image.backingReference !== undefined || image.size > 64 * 1024 * 1024) return
    const seen = seenIn(files)
    expect(fastVerdict(seen)).toBe(await verdict(files))
    const views = [
      image,
      ...(await Promise.all(image.snapshots.map((one) => image.openSnapshot(one)))),
    ]
    for (const [at, view] of views.entries()) {
      expect(await contentsOf(view)).toEqual(seen.views[at]?.contents)
    }
  })
})

describe.each(['512', '4k', '4k-r8', '16k-ext'])('on %s', (name) => {
  test('one changed byte of metadata is seen by both checks or by none', async () => {
    const geometry = geometryNamed(name)
    const files = new RecordingFiles()
    const context = { files, geometry, random: randomFrom(1) }
    await workloadNamed('snapshot-create').setup(context)
    const bytes = files.bytesOf(DISK)
    const image = await open(files, DISK, false)
    const { l1TableOffset, refcountTableOffset } = image.header
    const view = new DataView(bytes.buffer)
    const block = view.getUint32(refcountTableOffset + 4)
    const table = view.getUint32(l1TableOffset + 4) & 0xfffffe00
    const random = randomFrom(9)
    const tally: Record<string, number> = {}
    for (let round = 0; round < 150; round++) {
      const changed = bytes.slice()
      const base = [block, table, l1TableOffset][round % 3] as number
      const reach = [48, 256, 8][round % 3] as number
      const at = base + random(reach)
      changed[at] = (changed[at] as number) ^ (1 << random(8))
      const broken = new RecordingFiles()
      broken.put(DISK, changed)
      const [slow, fast] = [await verdict(broken), fastVerdict(seenIn(broken))]
      tally[slow] = (tally[slow] ?? 0) + 1
      expect(slow === 'refused' ? 'corrupt' : slow, `byte ${at}`).toBe(fast)
    }
    expect(Object.keys(tally).length).toBeGreaterThan(1)
  })
})
