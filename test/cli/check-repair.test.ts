/** `check -r` on the command line: what makes it safe, and that qemu-img has none of. */

import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkFile } from '../qcow2/check-oracle.ts'
import { imageManifest, unpackImage, wholeImage } from '../support/image-matrix.ts'
import { pokeFile } from '../support/poke.ts'
import { runCli } from '../support/run-cli.ts'
import { tempFolder } from '../support/temp.ts'

/** An image with a refcount of zero, in a folder of its own. */
function damaged(): { readonly cwd: string; readonly path: string } {
  const cwd = tempFolder()
  const path = unpackImage(wholeImage('v3-64k'), cwd)
  pokeFile(path, [{ refcount: 5, value: 0 }])
  return { cwd, path }
}

const run = (path: string, ...words: string[]) =>
  runCli(['check', ...words, basename(path)], { cwd: dirname(path) })

describe('check -r', () => {
  test('writes an undo file beside the image, and --restore brings the image back', async () => {
    const { path } = damaged()
    const old = readFileSync(path)
    const { status, stderr } = await run(path, '-r', 'all')
    expect(status).toBe(0)
    expect(stderr).toContain(`'${basename(path)}.undo' takes this repair back`)
    expect(old.equals(readFileSync(path))).toBe(false)
    expect(await run(path, '--restore', `${path}.undo`)).toMatchObject({ status: 0, stderr: '' })
    expect(old.equals(readFileSync(path))).toBe(true)
    // A restore that was cut off is done again.
    expect(await run(path, '--restore', `${path}.undo`)).toMatchObject({ status: 0 })
    expect(old.equals(readFileSync(path))).toBe(true)
    await run(path, '-r', 'all')
    expect(existsSync(`${path}.undo.1`)).toBe(true)
  })

  test('writes no undo file where there is nothing to repair', async () => {
    const path = unpackImage(wholeImage('v3-64k'), tempFolder())
    expect(await run(path, '-r', 'all')).toMatchObject({ status: 0, stderr: '' })
    expect(existsSync(`${path}.undo`)).toBe(false)
  })

  test('replaces no file by the undo file that was asked for', async () => {
    const { cwd, path } = damaged()
    const old = readFileSync(path)
    const { status, stderr } = await run(path, '-r', 'all', '--undo', path)
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringMatching('FILE_EXISTS'),
    })
    expect(old.equals(readFileSync(path))).toBe(true)
    expect(await run(path, '-r', 'all', '--undo', join(cwd, 'mine'))).toMatchObject({ status: 0 })
    expect(existsSync(join(cwd, 'mine'))).toBe(true)
  })

  test('--dry-run says what would be repaired, and writes nothing', async () => {
    const { path } = damaged()
    const old = readFileSync(path)
    const { status, stdout } = await run(path, '-r', 'all', '--dry-run')
    expect(status).toBe(2)
    expect(stdout).toMatch(/would be repaired:\n\n {4}0 leaked clusters\n {4}1 corruptions\n/)
    expect(old.equals(readFileSync(path))).toBe(true)
    expect(existsSync(`${path}.undo`)).toBe(false)
  })

  test('keeps leaks that look like lost data and says so; --force frees them', async () => {
    const path = unpackImage(wholeImage('v3-64k'), tempFolder())
    pokeFile(path, [{ l1: 0, value: 0 }])
    const { status, stderr } = await run(path, '-r', 'leaks')
    expect(status).toBe(3)
    expect(stderr).toContain('leaked clusters are kept: ')
    expect(await run(path, '-r', 'leaks', '--force')).toMatchObject({ status: 0 })
  })

  test.each([
    [['--dry-run']],
    [['--force']],
    [['-r', 'leaks', '--drop-bitmaps']],
    [['-r', 'all', '--restore', 'x']],
  ])('%j is refused', async (words) => {
    const { path } = damaged()
    const { status, stderr } = await run(path, ...words)
    expect({ status, stderr }).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('[CONFLICTING_OPTIONS]'),
    })
  })
})

describe('a broken bitmap directory', () => {
  // The length of an extension is wrong for all that follow it too, not for bitmaps alone.
  const broken = imageManifest().broken.filter(
    ({ name, check }) =>
      name.startsWith('bitmap') && check.status === 1 && name !== 'bitmaps-length',
  )

  test.each(broken)('$name goes with --drop-bitmaps, and only then', async (image) => {
    const path = unpackImage(image, tempFolder())
    const old = readFileSync(path)
    const refused = await run(path, '-r', 'all')
    expect(refused.status).toBe(1)
    expect(old.equals(readFileSync(path))).toBe(true)
    const { status } = await run(path, '-r', 'all', '--drop-bitmaps', '--force')
    expect(status).toBe(0)
    expect(await checkFile(path)).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 })
  })
})
