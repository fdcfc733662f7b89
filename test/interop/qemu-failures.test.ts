/**
 * What qemu-img was measured to do dangerously or not at all, each with its own result beside ours. Where it does better one day,
 * the first half of a test says so.
 */

import { copyFileSync, cpSync, readFileSync, renameSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { imageManifest, unpackImage } from '../support/image-matrix.ts'
import { pokeFile } from '../support/poke.ts'
import { describeWithQemu, qemuImg, qemuImgOk, qemuIo, qemuIoOk } from '../support/qemu.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

type Step = readonly string[]

/** The same files twice: in `theirs` qemu-img works, in `ours` cowpoint. */
async function twice(...steps: readonly (Step | ((folder: string) => unknown))[]) {
  const theirs = tempFolder()
  for (const step of steps) {
    if (typeof step === 'function') await step(theirs)
    else if (step[0] === 'io') await qemuIoOk(join(theirs, step[1] ?? ''), step.slice(2))
    else await qemuImgOk(step, { cwd: theirs })
  }
  const ours = tempFolder()
  cpSync(theirs, ours, { recursive: true })
  return { theirs, ours }
}

const create = (name: string, size: string): Step => ['create', '-q', '-f', 'qcow2', name, size]
const over = (name: string, base: string): Step => [
  ...['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', name],
]

/** Whether the disk has that byte there. */
async function reads(folder: string, image: string, words: string): Promise<boolean> {
  const { stdout } = await qemuIo(join(folder, image), [`read -P ${words}`], { readOnly: true })
  return !/failed|error/i.test(stdout)
}

/** Whether a snapshot has that byte there. */
async function snapshotReads(folder: string, image: string, name: string, words: string) {
  const cwd = { cwd: folder }
  const which = ['-l', `snapshot.name=${name}`, '-f', 'qcow2', '-O', 'raw']
  await qemuImgOk(['convert', ...which, image, 'snapshot.raw'], cwd)
  return reads(folder, 'snapshot.raw', words)
}

const same = (folder: string, name: string) => {
  const before = readFileSync(join(folder, name))
  return () => before.equals(readFileSync(join(folder, name)))
}

describeWithQemu('commit', () => {
  test('into a base with a second overlay: QEMU changes what that reads, we refuse', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      over('first.qcow2', 'base.qcow2'),
      over('second.qcow2', 'base.qcow2'),
      ['io', 'first.qcow2', 'write -P 2 0 64k'],
    )
    const words = ['commit', '-f', 'qcow2', 'first.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    expect(await reads(theirs, 'second.qcow2', '1 0 64k')).toBe(false)
    const isSame = same(ours, 'base.qcow2')
    const result = await runCli(words, { cwd: ours })
    expect(result.status).toBe(1)
    expect(result.stderr).toMatch(/second\.qcow2 \[BASE_HAS_OVERLAYS\]/)
    expect(result.stderr).toContain("hint: 'cowpoint rebase -b '' second.qcow2'")
    expect(isSame()).toBe(true)
    expect(await reads(ours, 'second.qcow2', '1 0 1M')).toBe(true)
  })

  test('of an overlay with a snapshot: QEMU changes what that reads, we refuse', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      over('top.qcow2', 'base.qcow2'),
      ['snapshot', '-c', 'then', 'top.qcow2'],
      ['io', 'top.qcow2', 'write -P 2 0 64k'],
    )
    const words = ['commit', '-f', 'qcow2', 'top.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    expect(await snapshotReads(theirs, 'top.qcow2', 'then', '1 0 64k')).toBe(false)
    const result = await runCli(words, { cwd: ours })
    expect(result).toMatchObject({
      status: 1,
      stderr: expect.stringMatching('LAYER_HAS_SNAPSHOTS'),
    })
    expect(await snapshotReads(ours, 'top.qcow2', 'then', '1 0 1M')).toBe(true)
  })

  test('past a layer with a snapshot: QEMU changes what that reads, we refuse', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      over('mid.qcow2', 'base.qcow2'),
      ['snapshot', '-c', 'then', 'mid.qcow2'],
      over('top.qcow2', 'mid.qcow2'),
      ['io', 'top.qcow2', 'write -P 2 0 64k'],
    )
    const words = ['commit', '-f', 'qcow2', '-b', 'base.qcow2', 'top.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    expect(await snapshotReads(theirs, 'mid.qcow2', 'then', '1 0 64k')).toBe(false)
    const result = await runCli(words, { cwd: ours })
    expect(result).toMatchObject({
      status: 1,
      stderr: expect.stringMatching('LAYER_HAS_SNAPSHOTS'),
    })
    expect(await snapshotReads(ours, 'mid.qcow2', 'then', '1 0 1M')).toBe(true)
  })

  test('that was killed leaves a tail: QEMU calls the file clean, we name the bytes and give them back', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '4M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      (folder) => {
        // Clusters that were written and never counted, as after kill -9.
        const path = join(folder, 'base.qcow2')
        truncateSync(path, statSync(path).size + 3 * 1024 * 1024)
      },
    )
    const check = ['check', '-f', 'qcow2', 'base.qcow2']
    const theirCheck = await qemuImg(check, { cwd: theirs })
    expect(theirCheck).toMatchObject({ status: 0, stderr: '' })
    const ourCheck = await runCli(check, { cwd: ours })
    expect(ourCheck).toMatchObject({ status: 0, stdout: theirCheck.stdout })
    expect(ourCheck.stderr).toMatch(/warning: 3\d{6} bytes from 0x\w+ on lie behind the last/)
    const long = statSync(join(ours, 'base.qcow2')).size
    expect(await runCli(['compact', '-q', 'base.qcow2'], { cwd: ours })).toMatchObject({
      status: 0,
    })
    expect(statSync(join(ours, 'base.qcow2')).size).toBeLessThan(long - 3 * 1024 * 1024 + 65536)
    expect((await runCli(check, { cwd: ours })).stderr).toBe('')
    expect(await reads(ours, 'base.qcow2', '1 0 1M')).toBe(true)
  })
})

describeWithQemu('rebase', () => {
  test('to nothing with a snapshot: QEMU changes what that reads, we refuse', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      over('top.qcow2', 'base.qcow2'),
      ['io', 'top.qcow2', 'write -P 2 0 64k'],
      ['snapshot', '-c', 'then', 'top.qcow2'],
    )
    const words = ['rebase', '-f', 'qcow2', '-b', '', 'top.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    expect(await snapshotReads(theirs, 'top.qcow2', 'then', '1 64k 64k')).toBe(false)
    const result = await runCli(words, { cwd: ours })
    expect(result).toMatchObject({
      status: 1,
      stderr: expect.stringMatching('LAYER_HAS_SNAPSHOTS'),
    })
    expect(await snapshotReads(ours, 'top.qcow2', 'then', '1 64k 64k')).toBe(true)
  })

  test('-u to a base that reads otherwise: QEMU does it, we refuse and say where', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      ['io', 'base.qcow2', 'write -P 1 0 1M'],
      create('wrong.qcow2', '1M'),
      over('top.qcow2', 'base.qcow2'),
    )
    const words = ['rebase', '-u', '-f', 'qcow2', '-b', 'wrong.qcow2', '-F', 'qcow2', 'top.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    expect(await reads(theirs, 'top.qcow2', '1 0 1M')).toBe(false)
    const result = await runCli(words, { cwd: ours })
    expect(result.status).toBe(1)
    expect(result.stderr).toMatch(/from 0x0 on.*\[BASE_DIFFERS\]/)
    expect(await reads(ours, 'top.qcow2', '1 0 1M')).toBe(true)
  })

  test('-u into a loop: QEMU does it and can no longer open the image, we refuse', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      over('mid.qcow2', 'base.qcow2'),
      over('top.qcow2', 'mid.qcow2'),
    )
    const words = ['rebase', '-u', '-f', 'qcow2', '-b', 'top.qcow2', '-F', 'qcow2', 'mid.qcow2']
    expect(await qemuImg(words, { cwd: theirs })).toMatchObject({ status: 0, stderr: '' })
    const info = ['info', '--backing-chain', 'top.qcow2']
    expect((await qemuImg(info, { cwd: theirs })).status).toBe(1)
    const result = await runCli(words, { cwd: ours })
    expect(result).toMatchObject({ status: 1, stderr: expect.stringMatching('CHAIN_LOOP') })
    expect((await qemuImg(info, { cwd: ours })).status).toBe(0)
  })
})

describeWithQemu('a missing base', () => {
  test('stops QEMU from showing and checking what is there; we do both and name what is missing', async () => {
    const { theirs, ours } = await twice(
      create('base.qcow2', '1M'),
      over('mid.qcow2', 'base.qcow2'),
      over('top.qcow2', 'mid.qcow2'),
      ['io', 'top.qcow2', 'write -P 2 0 64k'],
      (folder) => renameSync(join(folder, 'base.qcow2'), join(folder, 'elsewhere')),
    )
    for (const words of [
      ['info', '--backing-chain', 'top.qcow2'],
      ['check', 'top.qcow2'],
    ]) {
      const failure = await qemuImg(words, { cwd: theirs })
      expect(failure).toMatchObject({ status: 1, stdout: '' })
    }
    const info = await runCli(['info', '--backing-chain', 'top.qcow2'], { cwd: ours })
    expect(info.stdout).toMatch(/image: top\.qcow2[\s\S]*image: mid\.qcow2/)
    expect(info).toMatchObject({ status: 1, stderr: expect.stringMatching("'base.qcow2'") })
    const check = await runCli(['check', 'top.qcow2'], { cwd: ours })
    expect(check).toMatchObject({ status: 0, stderr: '' })
    expect(check.stdout).toMatch(/^No errors were found on the image\.\n1\/16 = /)
  })
})

describeWithQemu('a base that was changed', () => {
  test('goes unnoticed by QEMU; we say so wherever the overlay is opened', async () => {
    const folder = tempFolder()
    const cwd = { cwd: folder }
    await qemuImgOk(create('base.qcow2', '1M'), cwd)
    await runCli(over('top.qcow2', 'base.qcow2'), cwd)
    await qemuIoOk(join(folder, 'base.qcow2'), ['write -P 1 0 64k'])
    for (const words of [
      ['check', 'top.qcow2'],
      ['map', 'top.qcow2'],
    ]) {
      expect(await qemuImg(words, cwd)).toMatchObject({ status: 0, stderr: '' })
      const result = await runCli(words, cwd)
      expect(result.status).toBe(0)
      expect(result.stderr).toMatch(/backing file 'base\.qcow2' is not as it was/)
    }
  })
})

describeWithQemu('check -r', () => {
  test('after a lost L1 entry: QEMU destroys the data and reports success, we keep it', async () => {
    const entries: Buffer[] = []
    const { theirs, ours } = await twice(
      create('a.qcow2', '4M'),
      ['io', 'a.qcow2', 'write -P 7 0 4M'],
      (folder) => {
        // The L1 table of such an image lies in cluster 3.
        entries.push(readFileSync(join(folder, 'a.qcow2')).subarray(0x30000, 0x30008))
        pokeFile(join(folder, 'a.qcow2'), [{ l1: 0, value: 0 }])
      },
    )
    const restored = (folder: string) => {
      const value = `0x${entries[0]?.toString('hex')}`
      pokeFile(join(folder, 'a.qcow2'), [{ l1: 0, value }])
      return reads(folder, 'a.qcow2', '7 0 4M')
    }
    const words = ['check', '-f', 'qcow2', '-r', 'leaks', 'a.qcow2']
    const theirResult = await qemuImg(words, { cwd: theirs })
    expect(theirResult.status).toBe(0)
    expect(theirResult.stdout).toContain('No errors were found on the image.')
    const isSame = same(ours, 'a.qcow2')
    for (const word of ['leaks', 'all']) {
      const result = await runCli(['check', '-f', 'qcow2', '-r', word, 'a.qcow2'], { cwd: ours })
      expect(result.status).toBe(3)
      expect(result.stderr).toMatch(/warning: leaked clusters are kept: /)
    }
    expect(isSame()).toBe(true)
    expect(await restored(theirs)).toBe(false)
    expect(await restored(ours)).toBe(true)
  })

  test('of a snapshot entry with a wrong length: QEMU loses snapshots, we keep them', async () => {
    const { theirs, ours } = await twice(
      create('a.qcow2', '1M'),
      ['io', 'a.qcow2', 'write -P 1 0 64k'],
      ['snapshot', '-c', 'first', 'a.qcow2'],
      ['io', 'a.qcow2', 'write -P 2 0 64k'],
      ['snapshot', '-c', 'second', 'a.qcow2'],
      (folder) =>
        pokeFile(join(folder, 'a.qcow2'), [
          { snapshot: 0, field: 'extra_data_size', value: 0x10000000 },
        ]),
    )
    const words = ['check', '-f', 'qcow2', '-r', 'all', 'a.qcow2']
    expect((await qemuImg(['snapshot', '-l', 'a.qcow2'], { cwd: ours })).status).toBe(1)
    expect((await qemuImg(words, { cwd: theirs })).status).toBe(0)
    expect(await qemuImgOk(['snapshot', '-l', 'a.qcow2'], { cwd: theirs })).not.toContain('first')
    expect((await runCli(words, { cwd: ours })).status).toBe(0)
    expect(await snapshotReads(ours, 'a.qcow2', 'first', '1 0 64k')).toBe(true)
    expect(await snapshotReads(ours, 'a.qcow2', 'second', '2 0 64k')).toBe(true)
  })

  test('of too many snapshots: QEMU leaves an image that nothing opens, we mend it', async () => {
    const image = imageManifest().broken.find(({ name }) => name === 'nb-snapshots-max')
    if (image === undefined) throw new Error('no such broken image')
    const folder = tempFolder()
    const path = unpackImage(image, folder)
    copyFileSync(path, join(folder, 'theirs.qcow2'))
    const words = ['check', '-f', 'qcow2', '-r', 'all']
    // Some versions of it never end, or crash.
    await qemuImg([...words, 'theirs.qcow2'], { cwd: folder, timeoutMs: 3000 })
    const snapshots = ['snapshot', '-l']
    expect((await qemuImg([...snapshots, 'theirs.qcow2'], { cwd: folder })).status).not.toBe(0)
    const result = await runCli([...words, path])
    expect(result.status).toBe(0)
    expect(result.stderr).toContain('Discarding 4294967295 overhanging snapshots')
    expect(await qemuImgOk([...snapshots, path])).toBe('')
    expect(await qemuImgOk(['check', path])).toContain('No errors were found on the image.')
  })
})

describeWithQemu('a broken bitmap directory', () => {
  test('keeps QEMU from opening the image at all; we read it, and drop what is broken', async () => {
    const { ours } = await twice(
      create('a.qcow2', '1M'),
      ['io', 'a.qcow2', 'write -P 1 0 1M'],
      ['bitmap', '--add', 'a.qcow2', 'b0'],
      (folder) => pokeFile(join(folder, 'a.qcow2'), [{ bitmap: 0, field: 'type', value: 99 }]),
    )
    const cwd = { cwd: ours }
    for (const words of [
      ['info', 'a.qcow2'],
      ['convert', '-O', 'raw', 'a.qcow2', 'theirs.raw'],
      ['check', '-r', 'all', 'a.qcow2'],
    ]) {
      expect((await qemuImg(words, cwd)).status, words.join(' ')).toBe(1)
    }
    expect(await runCli(['convert', '-O', 'raw', 'a.qcow2', 'ours.raw'], cwd)).toMatchObject({
      status: 0,
    })
    expect(await reads(ours, 'ours.raw', '1 0 1M')).toBe(true)
    const repair = ['check', '-r', 'all', '--drop-bitmaps', 'a.qcow2']
    expect((await runCli(repair, cwd)).status).toBe(0)
    expect(await qemuImgOk(['check', 'a.qcow2'], cwd)).toContain('No errors were found')
    expect(await reads(ours, 'a.qcow2', '1 0 1M')).toBe(true)
  })
})

describeWithQemu('space that a snapshot held', () => {
  test('QEMU keeps the length of the file, we cut it off', async () => {
    const { theirs, ours } = await twice(
      create('a.qcow2', '8M'),
      ['io', 'a.qcow2', 'write -P 1 0 8M'],
      ['snapshot', '-c', 'then', 'a.qcow2'],
      ['io', 'a.qcow2', 'write -P 2 0 8M'],
    )
    const words = ['snapshot', '-d', 'then', 'a.qcow2']
    const size = (folder: string) => statSync(join(folder, 'a.qcow2')).size
    const before = size(theirs)
    await qemuImgOk(words, { cwd: theirs })
    expect(size(theirs)).toBeGreaterThanOrEqual(before)
    expect(await runCli(words, { cwd: ours })).toMatchObject({ status: 0 })
    expect(await runCli(['compact', '-q', 'a.qcow2'], { cwd: ours })).toMatchObject({ status: 0 })
    expect(size(ours)).toBeLessThan(before - 7 * 1024 * 1024)
    expect(await reads(ours, 'a.qcow2', '2 0 8M')).toBe(true)
  })

  test('QEMU makes a file shorter only by a copy without its snapshots, ours keeps them', async () => {
    const { theirs, ours } = await twice(
      create('a.qcow2', '8M'),
      ['io', 'a.qcow2', 'write -P 1 0 4M'],
      ['snapshot', '-c', 'then', 'a.qcow2'],
      ['io', 'a.qcow2', 'write -P 2 4M 4M', 'discard 4M 3M'],
    )
    await qemuImgOk(['convert', '-O', 'qcow2', 'a.qcow2', 'b.qcow2'], { cwd: theirs })
    expect(await qemuImgOk(['snapshot', '-l', 'b.qcow2'], { cwd: theirs })).toBe('')
    const before = statSync(join(ours, 'a.qcow2')).size
    await runCli(['compact', '-q', 'a.qcow2'], { cwd: ours })
    expect(statSync(join(ours, 'a.qcow2')).size).toBeLessThan(before - 2 * 1024 * 1024)
    expect(await snapshotReads(ours, 'a.qcow2', 'then', '1 0 4M')).toBe(true)
    expect(await reads(ours, 'a.qcow2', '2 7M 1M')).toBe(true)
  })
})
