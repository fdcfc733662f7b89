/**
 * The real tools as the other hand on an image: after some steps of ours they write to it, take, apply and delete snapshots, add
 * bitmaps and resize it; at the end they look at all of it.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import {
  imagineRequest,
  playByQemu,
  type ScriptRequest,
  withoutOverwrites,
} from '../interop/engine-script.ts'
import type { MemorySubject } from '../qcow2/model-subject.ts'
import type { Peer, Walk } from '../qcow2/model-walk.ts'
import { picker } from '../support/checkpoint-model.ts'
import { qemuImg, qemuImgOk } from '../support/qemu.ts'
import type { Note } from './kind.ts'

/** What a turn needs. */
interface Turn {
  readonly walk: Walk
  readonly folder: string
  readonly pick: (limit: number) => number
}

type Action = (turn: Turn) => Promise<string>

/** Turns by a seed, on files in `folder`. */
export function qemuPeer(subject: MemorySubject, folder: string, seed: number, note: Note): Peer {
  const pick = picker(seed * 7919 + 13)
  return async (walk) => {
    dump(subject, folder)
    const action = ACTIONS[pick(ACTIONS.length)] ?? write
    note(await action({ walk, folder, pick }))
    for (const name of subject.contents().keys()) {
      if (name !== 'base') await subject.replace(name, readFileSync(join(folder, name)))
    }
  }
}

function dump(subject: MemorySubject, folder: string): void {
  for (const [name, bytes] of subject.contents()) writeFileSync(join(folder, name), bytes)
}

/** qemu-img finds nothing wrong, and reads every view as the model says. */
export async function lookByQemu(subject: MemorySubject, folder: string, walk: Walk) {
  const { model } = walk
  const options = { cwd: folder }
  dump(subject, folder)
  const check = await qemuImg(['check', '-f', 'qcow2', 'disk.qcow2'], options)
  const [first] = check.stdout.split('\n')
  expect([check.status, first, check.stderr]).toEqual([
    ...[0, 'No errors were found on the image.', ''],
  ])
  writeFileSync(join(folder, 'model.raw'), model.contents())
  const words = ['compare', '-f', 'qcow2', '-F', 'raw', 'disk.qcow2', 'model.raw']
  const result = await qemuImg(words, options)
  expect([result.status, result.stdout + result.stderr]).toEqual([0, 'Images are identical.\n'])
  for (const { name, size } of model.snapshots) {
    const which = ['-l', `snapshot.name=${name}`, '-f', 'qcow2', '-O', 'raw']
    await qemuImgOk(['convert', ...which, 'disk.qcow2', 'snapshot.raw'], options)
    // qemu-img gives it the size of the active disk.
    const length = Math.min(size, model.size)
    const bytes = readFileSync(join(folder, 'snapshot.raw')).subarray(0, length)
    expect(bytes.equals(model.readSnapshot(name, 0, length)), `snapshot ${name}`).toBe(true)
  }
}

const write: Action = async ({ walk, folder, pick }) => {
  const script = await requestsOf(walk, pick)
  await playByQemu(folder, 'disk.qcow2', script)
  for (const request of script) imagineRequest(walk.model, request)
  return 'qemu-io'
}

async function requestsOf(walk: Walk, pick: Turn['pick']): Promise<ScriptRequest[]> {
  const { model, shape } = walk
  const { clusterSize } = shape
  const kinds: ScriptRequest['kind'][] = ['write', 'write', 'zero', 'unmap', 'flush']
  // QEMU refuses these otherwise.
  if (shape.version === 3 || shape.backing === 'none') kinds.push('discard')
  if (shape.data === 'inside') kinds.push('compressed')
  const script = Array.from({ length: 1 + pick(5) }, (): ScriptRequest => {
    const kind = kinds[pick(kinds.length)] ?? 'write'
    const unit = kind === 'compressed' || pick(2) === 0 ? clusterSize : 512
    const offset = pick(Math.ceil(model.size / unit)) * unit
    const longest = kind === 'compressed' ? 1 : 1 + pick(Math.max(2, 16_384 / unit))
    return {
      ...{ kind, offset, byte: 1 + pick(255) },
      length: Math.min(model.size - offset, longest * unit),
    }
  })
  return withoutOverwrites(script, clusterSize, await heldClusters(walk))
}

/** Clusters to which QEMU does not write compressed. */
async function heldClusters({ subject, shape, model }: Walk): Promise<Set<number>> {
  const held = new Set<number>()
  const image = await subject.open(false)
  for (const { kind, offset, length } of await image.extents(0, model.size)) {
    if (kind === 'hole') continue
    const end = Math.ceil((offset + length) / shape.clusterSize)
    for (let at = Math.floor(offset / shape.clusterSize); at < end; at++) held.add(at)
  }
  await image.close()
  return held
}

const snapshot: Action = async (turn) => {
  const { walk, folder, pick } = turn
  const { model, shape } = walk
  if (shape.data !== 'inside' || shape.refcountBits <= 2) return write(turn)
  const verb = (...words: string[]) =>
    qemuImgOk(['snapshot', ...words, 'disk.qcow2'], { cwd: folder })
  const { name } = model.snapshots[pick(Math.max(1, model.snapshots.length))] ?? {}
  const isSame = model.snapshots.find((one) => one.name === name)?.size === model.size
  const way = pick(3)
  if (name === undefined || way === 0) {
    const fresh = `s${walk.snapshotCount++}`
    await verb('-c', fresh)
    model.createSnapshot(fresh)
    return 'qemu-img snapshot -c'
  }
  // QEMU's bitmaps do not notice what it changes.
  if (way === 1 && isSame && walk.bitmaps.size === 0) {
    await verb('-a', name)
    model.applySnapshot(name)
    return 'qemu-img snapshot -a'
  }
  await verb('-d', name)
  model.deleteSnapshot(name)
  walk.vmStates.delete(name)
  return 'qemu-img snapshot -d'
}

const grow: Action = async (turn) => {
  const { walk, folder, pick } = turn
  const { model, shape } = walk
  if (shape.version === 2) return write(turn)
  const size = model.size + 512 * (1 + pick(2 * (shape.clusterSize / 512)))
  await qemuImgOk(['resize', '-q', '-f', 'qcow2', 'disk.qcow2', `${size}`], { cwd: folder })
  model.resize(size)
  return 'qemu-img resize'
}

const bitmap: Action = async (turn) => {
  const { walk, folder, pick } = turn
  const { bitmaps, shape } = walk
  if (shape.version === 2) return write(turn)
  const verb = (...words: string[]) =>
    qemuImgOk(['bitmap', ...words.slice(0, -1), 'disk.qcow2', words.at(-1) ?? ''], { cwd: folder })
  const [name] = bitmaps.keys()
  if (name !== undefined && pick(2) === 0) {
    await verb('--clear', name)
    bitmaps.get(name)?.truth.clear()
    return 'qemu-img bitmap --clear'
  }
  const fresh = `q${pick(1000)}`
  if (bitmaps.has(fresh) || bitmaps.size > 3) return write(turn)
  const granularity = 512 * 2 ** pick(6)
  await verb('--add', '-g', `${granularity}`, fresh)
  bitmaps.set(fresh, { enabled: true, granularity, truth: new Set() })
  return 'qemu-img bitmap --add'
}

const ACTIONS: readonly Action[] = [write, write, write, write, snapshot, snapshot, grow, bitmap]
