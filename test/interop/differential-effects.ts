/** Compares what two tools did to copies of the same files, with the real qemu-img as the reader of both. */

import { createHash } from 'node:crypto'
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { qemuImg, qemuImgOk } from '../support/qemu.ts'
import { type Differential, maskDates, maskSpace } from './differential-case.ts'

/** Two folders after the verbs, and what lay in both before. */
export interface Folders {
  readonly theirs: string
  readonly ours: string
  /** Name to digest. */
  readonly before: ReadonlyMap<string, string>
}

/** Name (relative, sorted) to digest of the content, for all files below. */
export function digestFolder(folder: string): Map<string, string> {
  const digests = new Map<string, string>()
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
  for (const name of names) {
    const path = join(folder, name)
    if (!lstatSync(path).isFile()) continue
    digests.set(name, createHash('sha256').update(readFileSync(path)).digest('hex'))
  }
  return digests
}

/** Expects the same files with the same meaning in both folders, and ours without leaks and errors. */
export async function compareFiles(folders: Folders, one: Differential): Promise<void> {
  const [theirs, ours] = [digestFolder(folders.theirs), digestFolder(folders.ours)]
  for (const name of one.ignore ?? []) {
    theirs.delete(name)
    ours.delete(name)
  }
  expect([...ours.keys()]).toEqual([...theirs.keys()])
  for (const [name, digest] of ours) {
    if (digest === theirs.get(name)) continue
    expect(theirs.get(name), `${name} was changed by cowpoint only`).not.toBe(
      folders.before.get(name),
    )
    await compareImage(folders, name, one)
  }
}

async function compareImage(folders: Folders, name: string, one: Differential): Promise<void> {
  if (!isQcow2(join(folders.ours, name))) {
    expect(lstatSync(join(folders.ours, name)).size).toBe(
      lstatSync(join(folders.theirs, name)).size,
    )
    expect.fail(`${name} differs, and it is no qcow2`)
  }
  const inBoth = async <T>(look: (cwd: string) => Promise<T>): Promise<[T, T]> => [
    await look(folders.ours),
    await look(folders.theirs),
  ]
  const check = await qemuImg(['check', '-q', name], { cwd: folders.ours })
  expect({ status: check.status, stderr: check.stderr }, `check of ${name}`).toEqual({
    status: 0,
    stderr: '',
  })
  const [ourInfo, theirInfo] = await inBoth((cwd) => infoText(cwd, name))
  if (one.anyInfo !== true) expect(ourInfo, `info of ${name}`).toBe(theirInfo)
  const snapshots = await inBoth((cwd) => snapshotDigests(cwd, name))
  expect(snapshots[0], `content of the snapshots of ${name}`).toEqual(snapshots[1])
  const content = await inBoth((cwd) => contentDigest(cwd, name))
  expect(content[0], `content of ${name}`).toBe(content[1])
  if (one.allocation?.includes(name)) {
    const [ourMap, theirMap] = await inBoth((cwd) => allocationOf(cwd, name))
    expect(ourMap, `allocation of ${name}`).toEqual(theirMap)
  }
}

function isQcow2(path: string): boolean {
  const magic = Buffer.alloc(4)
  const file = openSync(path, 'r')
  readSync(file, magic, 0, 4, 0)
  closeSync(file)
  return magic.toString('latin1') === 'QFI\xfb'
}

async function infoText(cwd: string, name: string): Promise<string> {
  return maskSpace(maskDates(await qemuImgOk(['info', '--output=json', name], { cwd })))
}

/** The guest's view, through qemu-img convert into a raw file that is removed with the folder. */
async function contentDigest(cwd: string, name: string, ...more: string[]): Promise<string> {
  const raw = join(cwd, '..', `content-${sequence++}.raw`)
  await qemuImgOk(['convert', '-O', 'raw', ...more, name, raw], { cwd })
  return createHash('sha256').update(readFileSync(raw)).digest('hex')
}

let sequence = 0

async function snapshotDigests(cwd: string, name: string): Promise<string[]> {
  const info = JSON.parse(await qemuImgOk(['info', '--output=json', name], { cwd }))
  const digests: string[] = []
  for (const { id } of info.snapshots ?? []) {
    digests.push(`${id} ${await contentDigest(cwd, name, '-l', `snapshot.id=${id}`)}`)
  }
  return digests
}

interface MapEntry {
  readonly start: number
  readonly length: number
  readonly offset?: number
}

async function allocationOf(cwd: string, name: string): Promise<unknown[]> {
  const entries: MapEntry[] = JSON.parse(await qemuImgOk(['map', '--output=json', name], { cwd }))
  const kindOf = (entry: MapEntry): string => JSON.stringify({ ...entry, start: 0, length: 0 })
  // Where clusters lie is free; runs that differ only in that are joined.
  const runs: MapEntry[] = []
  for (const { offset: _where, ...entry } of entries) {
    const last = runs.at(-1)
    if (last !== undefined && kindOf(last) === kindOf(entry)) {
      runs[runs.length - 1] = { ...last, length: last.length + entry.length }
    } else runs.push(entry)
  }
  return runs
}
