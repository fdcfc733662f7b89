/**
 * The real tools as the other hand on trees of images and on disks with checkpoints: they write to what is uppermost, merge and
 * rebase layers, take snapshots; at the end they look at every view.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { ModelFile } from '../support/chain-model.ts'
import { placeToRun } from '../support/chain-model-qemu.ts'
import type { ChainWalk } from '../support/chain-model-walk.ts'
import { type CheckpointModel, openActive, picker } from '../support/checkpoint-model.ts'
import type { DiskFiles } from '../support/disk-files.ts'
import { qemuImg, qemuImgOk, qemuIoOk } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'

type Pick = (limit: number) => number

/** Does `work` on a copy of all files, and brings back what it changed of those at `paths`. */
async function onHost(
  files: DiskFiles,
  paths: readonly string[],
  work: (at: (path: string) => string, options: { readonly cwd: string }) => Promise<unknown>,
): Promise<void> {
  await withTempFolder(async (folder) => {
    files.dump(folder)
    const cwd = placeToRun(folder, files.paths)
    await work((path) => join(folder, path), { cwd })
    for (const path of paths) files.put(path, readFileSync(join(folder, path)))
    for (const path of paths) files.changed.add(path)
  })
}

function requestTo(content: Uint8Array, pick: Pick): { words: string; after: Uint8Array } {
  const after = content.slice()
  const offset = 512 * pick(content.length / 512)
  const length = Math.min(content.length - offset, 512 * (1 + pick(24)))
  const byte = 1 + pick(255)
  const isZero = pick(4) === 0
  after.fill(isZero ? 0 : byte, offset, offset + length)
  return { words: `write ${isZero ? '-z' : `-P ${byte}`} ${offset} ${length}`, after }
}

/** A turn of the real tools with a tree; says what was done. */
export async function treeTurn(walk: ChainWalk, seed: number): Promise<string> {
  const pick = picker(seed * 7919 + 13)
  const { tree, files } = walk
  const leaves = tree.files.filter((one) => tree.above(one).length === 0)
  const file = leaves[pick(leaves.length)] as ModelFile
  const { base } = file
  const isPlain = file.format === 'qcow2' && file.snapshots.size === 0
  const way = pick(4)
  if (base !== undefined && isPlain && way === 0 && mayCommit(walk, file, base)) {
    await onHost(files, pathsOf(file, base), (at, options) =>
      qemuImgOk(['commit', '-q', '-f', 'qcow2', at(file.path)], options),
    )
    base.become(file.content)
    return 'qemu-img commit'
  }
  if (base !== undefined && isPlain && way === 1) {
    await onHost(files, pathsOf(file), (at, options) =>
      qemuImgOk(['rebase', '-q', '-f', 'qcow2', '-b', '', at(file.path)], options),
    )
    file.base = undefined
    return 'qemu-img rebase'
  }
  const { words, after } = requestTo(file.content, pick)
  await onHost(files, pathsOf(file), (at, options) =>
    qemuIoOk(at(file.path), [words], { ...options, format: file.format }),
  )
  file.become(after)
  return 'qemu-io'
}

function pathsOf(...list: readonly ModelFile[]): string[] {
  return list.flatMap(({ path, dataPath }) => (dataPath === undefined ? [path] : [path, dataPath]))
}

/** Where QEMU commits to what a user could mean: nobody else reads the base, and it holds no older views. */
function mayCommit({ tree }: ChainWalk, file: ModelFile, base: ModelFile): boolean {
  return (
    tree.above(base).length === 1 &&
    base.snapshots.size === 0 &&
    base.content.length === file.content.length
  )
}

/** A turn of the real tools with disks that have checkpoints: a write to what is current. */
export async function checkpointTurn(model: CheckpointModel, seed: number): Promise<string> {
  const pick = picker(seed * 7919 + 13)
  const disk = pick(model.images.length)
  const path = model.images[disk] as string
  const { words, after } = requestTo(model.current[disk] as Uint8Array, pick)
  await onHost(model.files, [path], (at) => qemuIoOk(at(path), [words], { format: 'qcow2' }))
  model.current[disk] = after
  return 'qemu-io'
}

/** qemu-img finds no error and no leak in any file of disks with checkpoints, and reads every view as the model says. */
export async function lookAtCheckpoints(model: CheckpointModel): Promise<void> {
  const { files, images, current, checkpoints } = model
  const nodes = await model.nodes()
  await onHost(files, [], async (at) => {
    for (const name of await files.list('/vm')) {
      if (!name.endsWith('.qcow2')) continue
      const { status, stdout } = await qemuImg(['check', at(`/vm/${name}`)])
      expect([status, stdout], name).toEqual([0, expect.stringContaining('No errors were found')])
    }
    const output = at('/read.raw')
    const reads = async (words: readonly string[], wanted: Uint8Array, what: string) => {
      await qemuImgOk(['convert', '-O', 'raw', ...words, output])
      expect(readFileSync(output).equals(wanted), what).toBe(true)
    }
    for (const [disk, path] of images.entries()) {
      await reads(['-f', 'qcow2', at(path)], current[disk] as Uint8Array, path)
    }
    for (const [name, contents] of checkpoints) {
      for (const { layer, snapshot } of nodes.get(name)?.places ?? []) {
        const which = snapshot === undefined ? [] : ['-l', `snapshot.id=${snapshot.record.id}`]
        const disk = images.findIndex((one) => layer.path.startsWith(one.slice(0, -6)))
        const words = [...which, '-f', layer.format === 'raw' ? 'raw' : 'qcow2', at(layer.path)]
        await reads(words, contents[disk] as Uint8Array, `checkpoint ${name}`)
      }
    }
  })
  // What QEMU wrote in between is no reason to warn of anything but of that.
  for (const path of images) await (await openActive(files, path, false)).close()
}
