/** Real disks in a folder of their own for tests of checkpoints, and what is asked of them again and again. */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { Gate } from '../../src/chain/index.ts'
import {
  CheckpointCatalogue,
  type CheckpointNode,
  type CheckpointTree,
} from '../../src/checkpoint/index.ts'
import { qemuImg, qemuImgOk, qemuIoOk } from './qemu.ts'
import { tempFolder } from './temp.ts'

/** Lets every reference through. */
export const gate = new Gate({ allowAll: true })

/** A folder with disks. */
export interface Place {
  readonly folder: string
  readonly images: readonly string[]
  readonly at: (name: string) => string
  readonly find: (images?: readonly string[]) => Promise<CheckpointCatalogue>
}

/** Makes disks of 4 MiB; the first 256 KiB of each hold its number, from 1. */
export async function disks(count = 1, options: readonly string[] = []): Promise<Place> {
  const folder = tempFolder()
  const at = (name: string) => join(folder, name)
  const images = Array.from({ length: count }, (_, index) => at(`disk${index}.qcow2`))
  for (const [index, image] of images.entries()) {
    await qemuImgOk(['create', '-q', '-f', 'qcow2', ...options, image, '4M'])
    await qemuIoOk(image, [`write -P ${index + 1} 0 256k`])
  }
  const find = (named: readonly string[] = images) =>
    CheckpointCatalogue.find({ images: named, gate })
  return { folder, images, at, find }
}

/** The only tree that there is. */
export async function treeOf(catalogue: CheckpointCatalogue): Promise<CheckpointTree> {
  const [tree, ...others] = await catalogue.trees()
  expect(others).toEqual([])
  return tree as CheckpointTree
}

/** The checkpoint of that name. */
export async function nodeCalled(place: Place, name: string): Promise<CheckpointNode> {
  const tree = await treeOf(await place.find())
  const found = [...tree.nodes.values()].find((node) => node.name === name)
  if (found === undefined) throw new Error(`no checkpoint ${name}`)
  return found
}

/** Has qemu-img check every image. */
export async function checkAll({ folder }: Place): Promise<void> {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.qcow2')) continue
    const { status, stdout } = await qemuImg(['check', join(folder, name)])
    expect(`${name} ${status} ${status === 0 ? '' : stdout}`).toBe(`${name} 0 `)
  }
}

/** Has qemu-io read a pattern. */
export function reads(image: string, pattern: number, at = '0', length = '64k') {
  return qemuIoOk(image, [`read -P ${pattern} ${at} ${length}`], { readOnly: true })
}
