/** What the real tools say of a tree of images: no fault in any of them, and the content of the model in every view. */

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect } from 'vitest'
import type { ModelFile } from './chain-model.ts'
import type { ChainWalk } from './chain-model-walk.ts'
import { qemuImg, qemuImgOk } from './qemu.ts'
import { withTempFolder } from './temp.ts'

/**
 * A folder in `folder` for QEMU to run in, with links to all data files: it looks for those where it runs, and not beside the
 * image.
 */
export function placeToRun(folder: string, paths: readonly string[]): string {
  const cwd = join(folder, 'cwd')
  mkdirSync(cwd)
  for (const path of paths) {
    if (path.endsWith('.data')) symlinkSync(join(folder, path), join(cwd, basename(path)))
  }
  return cwd
}

/** Copies the tree into a folder of the host and has qemu-img look at all of it. */
export async function verifyByQemu(walk: ChainWalk): Promise<void> {
  await withTempFolder(async (folder) => {
    walk.files.dump(folder)
    const cwd = placeToRun(folder, walk.files.paths)
    for (const file of walk.tree.files) {
      if (file.format === 'qcow2') await check(folder, cwd, file)
      await compare(folder, cwd, file)
    }
  })
}

async function check(folder: string, cwd: string, { path }: ModelFile): Promise<void> {
  const words = ['check', '-f', 'qcow2', join(folder, path)]
  const { status, stdout, stderr } = await qemuImg(words, { cwd })
  const first = stdout.split('\n')[0]
  expect([path, status, first, stderr]).toEqual([
    ...[path, 0],
    ...['No errors were found on the image.', ''],
  ])
}

async function compare(
  folder: string,
  cwd: string,
  { path, format, content, snapshots }: ModelFile,
) {
  const model = join(folder, 'model.raw')
  writeFileSync(model, content)
  const words = ['compare', '-f', format, '-F', 'raw', join(folder, path), model]
  const { status, stdout, stderr } = await qemuImg(words, { cwd })
  const same = [path, 0, 'Images are identical.\n', '']
  expect([path, status, stdout, stderr]).toEqual(same)
  const copy = join(dirname(model), 'snapshot.raw')
  for (const [name, bytes] of snapshots) {
    const which = ['-l', `snapshot.name=${name}`, '-f', 'qcow2', '-O', 'raw']
    await qemuImgOk(['convert', ...which, join(folder, path), copy], { cwd })
    // qemu-img gives it the size of the active disk.
    const length = Math.min(bytes.length, content.length)
    const isSame = readFileSync(copy).subarray(0, length).equals(bytes.subarray(0, length))
    expect(isSame, `snapshot ${name} of ${path}`).toBe(true)
  }
}
