import { describe, expect, it } from 'vitest'
import { createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'
import { pattern } from '../support/device-contract.ts'

const CLUSTER = 65536
const COUNT = 40

/** Clusters that take very different times to pack, and some that do not get smaller. */
function cluster(index: number): Uint8Array {
  const bytes = new Uint8Array(CLUSTER)
  const noise = pattern(CLUSTER, index + 1)
  bytes.set(noise.subarray(0, index % 5 === 4 ? CLUSTER : (index % 4) * 9000 + 10))
  return bytes
}

async function packed(compressionType: 'zlib' | 'zstd') {
  const file = new MemoryDevice(0, { growable: true })
  await createQcow2(file, { size: COUNT * CLUSTER, compressionType })
  const image = await Qcow2Image.open(file, { writable: true })
  const all = Array.from({ length: COUNT }, (_, index) => index)
  await Promise.all(all.map((index) => image.writeCompressed(index * CLUSTER, cluster(index))))
  const places: number[] = []
  for (const index of all) {
    const mapping = await image.map(index * CLUSTER, CLUSTER)
    if (mapping.kind === 'compressed') places.push(mapping.hostOffset)
    const bytes = new Uint8Array(CLUSTER)
    await image.read(index * CLUSTER, bytes)
    expect(Buffer.compare(bytes, cluster(index))).toBe(0)
  }
  await image.flush()
  const bytes = new Uint8Array(file.size)
  await file.read(0, bytes)
  await image.close()
  return { places, bytes }
}

describe('clusters that are packed at the same time', () => {
  it.each(['zlib', 'zstd'] as const)('lie in the order of the calls, by %s', async (type) => {
    const { places } = await packed(type)
    expect(places.length).toBeGreaterThan(COUNT / 2)
    expect(places).toEqual([...places].sort((a, b) => a - b))
  })

  it('make the same file each time', async () => {
    const [one, other] = [await packed('zlib'), await packed('zlib')]
    expect(Buffer.compare(one.bytes, other.bytes)).toBe(0)
  })
})
