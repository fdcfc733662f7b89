import { expect, test } from 'vitest'
import { checkImage, createQcow2, Qcow2Image } from '../../src/qcow2/index.ts'
import { MemoryDevice } from '../../src/storage/index.ts'

function rng(seed: number) {
  let s = seed >>> 0
  return () => {
    s = (s * 1664525 + 1013904223) >>> 0
    return s / 2 ** 32
  }
}
async function digest(d: any) {
  const b = new Uint8Array(d.size)
  await d.read(0, b)
  return Buffer.from(b).toString('base64').length + ':' + require('node:crypto').createHash('sha1').update(b).digest('hex')
}
async function views(image: Qcow2Image) {
  const all: string[] = [await digest(image)]
  for (const s of image.snapshots) {
    const v = await image.openSnapshot(s)
    all.push(s.name + (await digest(v)))
    if (s.vmStateSize > 0) {
      const b = new Uint8Array(s.vmStateSize)
      await image.readVmState(0, b, s)
      all.push('vm' + require('node:crypto').createHash('sha1').update(b).digest('hex'))
    }
  }
  return all
}
const shapes: any[] = [
  { clusterSize: 512 }, { clusterSize: 512, refcountBits: 64 }, { clusterSize: 512, refcountBits: 1 },
  { clusterSize: 4096, refcountBits: 8 }, { clusterSize: 4096, version: 2 }, { clusterSize: 65536 },
  { clusterSize: 16384, extendedL2: true }, { clusterSize: 4096, compressionType: 'zstd' },
]
const N = Number(process.env.FUZZ ?? 40)
const S0 = Number(process.env.SEED ?? 1)
for (const shape of shapes) {
  test(JSON.stringify(shape), async () => {
    let worse = 0, slack = 0, total = 0, gain = 0
    for (let seed = S0; seed < S0 + N; seed++) {
      const r = rng(seed * 7919 + shape.clusterSize)
      for (let i = 0; i < 10; i++) r()
      const cs = shape.clusterSize
      const size = Math.floor(cs * (40 + r() * 400) / 512) * 512
      const dev = new MemoryDevice(0, { growable: true })
      const useCompressed = r() < 0.5
      const useSnap = shape.refcountBits !== 1 && r() < 0.6
      await createQcow2(dev, { size, ...shape })
      let image = await Qcow2Image.open(dev, { writable: true, discard: r() < 0.5 ? 'keep' : 'punch' })
      const ops = 20 + Math.floor(r() * 60)
      for (let i = 0; i < ops; i++) {
        const k = r()
        const off = Math.floor(r() * size)
        const len = Math.min(size - off, Math.floor(r() * r() * 20 * cs) + 1)
        if (k < 0.45) {
          const b = new Uint8Array(len); const v = Math.floor(r()*255)+1
          if (r() < 0.8) for (let j = 0; j < len; j++) b[j] = (j * 7 + v) & 0xff
          await image.write(off, b)
        } else if (k < 0.55) await image.writeZeroes(off, len, { mayDiscard: r() < 0.5 })
        else if (k < 0.75) await image.discard(off, len)
        else if (k < 0.85 && useCompressed) {
          for (let n = 0; n < 6; n++) {
            const c = Math.floor(off / cs) + n
            if ((c + 1) * cs > size) break
            const b = new Uint8Array(cs)
            const rand = Math.floor(cs * r())
            for (let j = 0; j < rand; j++) b[j] = Math.floor(r() * 256)
            await image.writeCompressed(c * cs, b)
          }
        } else if (k < 0.92 && useSnap) {
          let vm = 0
          if (r() < 0.3) { vm = Math.floor(r() * 5 * cs) + 1; await image.writeVmState(0, new Uint8Array(vm).fill(9)) }
          await image.createSnapshot({ name: 's' + i, vmStateSize: vm })
        } else if (useSnap && image.snapshots.length) {
          const s = image.snapshots[Math.floor(r() * image.snapshots.length)]!
          if (r() < 0.7) await image.deleteSnapshot(s); else await image.applySnapshot(s)
        }
        if (r() < 0.2) await image.flush()
      }
      await image.flush()
      await image.flush()
      const before = await views(image)
      const opts = { zero: r() < 0.3, ...(r() < 0.2 ? { maxMove: Math.floor(r() * 30 * cs) } : {}) }
      const rep0 = await checkImage(dev)
      expect([rep0.corruptions, rep0.checkErrors]).toEqual([0, 0])
      const plan = await image.planCompaction(opts)
      const old = dev.size
      const done = await image.compact(opts)
      const info = JSON.stringify({ seed, ops, useCompressed, useSnap, opts, old, plan, done })
      const rep = await checkImage(dev)
      expect([rep.corruptions, rep.checkErrors], info).toEqual([0, 0])
      expect(rep.leaks, info).toBe(rep0.leaks)
      expect(done, info).toEqual(plan)
      expect(done.fileSize, info).toBe(dev.size)
      expect(await views(image), info).toEqual(before)
      if (dev.size > old) { worse++; console.log('WORSE', info) }
      if (!('maxMove' in opts)) { total++; if (done.freeSize > 0) { slack++; if (process.env.V) console.log('SLACK', done.freeSize / cs, info) } }
      gain += old - dev.size
      // still usable
      await image.write(0, new Uint8Array(cs).fill(3))
      const again = await image.planCompaction({})
      await image.close()
    }
    console.log(JSON.stringify(shape), { worse, slack, total, gain })
  }, 600000)
}
