/**
 * The main job on a real disk, step by step in plain words: checkpoints are taken, the disk changes, goes back, branches; one in the
 * middle is deleted, and nothing that another view reads is lost. After each step the tree is drawn and every view is verified.
 * `--keep` leaves the files.
 */

import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatSize } from '../src/base/units.ts'
import {
  type BlockDevice,
  CheckpointCatalogue,
  type CheckpointNode,
  checkImage,
  contentDigest,
  convertToNew,
  createCheckpoint,
  FileDevice,
  findSet,
  nodeFiles,
  openChain,
  type Plan,
  planRemoval,
  type Qcow2Image,
  removeCheckpoint,
  revertTo,
  treeLines,
} from '../src/index.ts'
import { makeDisk, readNote, tool, useDisk } from './demo-disk.ts'

const folder = mkdtempSync(join(tmpdir(), 'cowpoint-demo-'))
const raw = join(folder, 'disk.raw')
const disk = join(folder, 'disk.qcow2')
/** What each view must read as, by the name of its checkpoint; `now` is the disk. */
const expected = new Map<string, string>()
let stepCount = 0

function say(text: string): void {
  console.log(text)
}

function step(text: string): void {
  say(`\n${++stepCount}. ${text}`)
}

/** Opens what a checkpoint reads as. */
async function withView<T>(
  { places }: CheckpointNode,
  action: (device: BlockDevice) => Promise<T>,
): Promise<T> {
  const [place] = places
  if (place === undefined) throw new Error('a checkpoint without a disk')
  await using chain = await openChain(place.layer.path)
  const { image } = chain.active
  const snapshot = image?.snapshots.find(({ id }) => id === place.snapshot?.record.id)
  if (image === undefined || snapshot === undefined) return await action(chain.device)
  await using view = await image.openSnapshot(snapshot)
  return await action(view)
}

async function digestOf(path: string): Promise<string> {
  await using chain = await openChain(path)
  return await contentDigest(chain.device)
}

/** Remembers what the disk reads as now. */
async function noteNow(name: string): Promise<void> {
  expected.set(name, await digestOf(disk))
}

/** Draws the tree, compares every view with what it must be, and checks every file. */
async function verify(): Promise<void> {
  const catalogue = await CheckpointCatalogue.find({ images: [disk] })
  const tree = findSet(await catalogue.trees())
  const [, ...branches] = treeLines(tree, ({ name, kind, isHidden }) =>
    isHidden ? `(a layer that was ${name})` : `${name} (${kind})`,
  )
  for (const line of branches) say(`   ${line}`)
  const views = [...tree.nodes.values()].filter(({ isHidden }) => !isHidden)
  for (const node of views) {
    const digest = await withView(node, (device) => contentDigest(device))
    if (digest !== expected.get(node.name)) throw new Error(`${node.name} reads otherwise`)
  }
  if ((await digestOf(disk)) !== expected.get('now')) throw new Error('the disk reads otherwise')
  if (views.length + 1 !== expected.size) throw new Error('a view is missing')
  const files = readdirSync(folder).filter((name) => name.endsWith('.qcow2'))
  for (const name of files) await check(join(folder, name))
  const agreed = tool('qemu-img', ['--version']) === undefined ? '' : ', and qemu-img agrees'
  const space = files.reduce((sum, name) => sum + statSync(join(folder, name)).blocks * 512, 0)
  say(
    `   ${views.length + 1} views read as they must; ${files.length} files without errors or leaks${agreed}: ${formatSize(space)} on disk`,
  )
}

/** Our own check, and qemu-img's where it is there. */
async function check(path: string): Promise<void> {
  await using device = await FileDevice.open(nodeFiles, path)
  const { corruptions, leaks, checkErrors, findings } = await checkImage(device)
  if (corruptions + leaks + checkErrors > 0) {
    throw new Error(`check found ${JSON.stringify(findings.slice(0, 3))}`)
  }
  tool('qemu-img', ['check', '-q', path])
}

async function checkpoint(name: string, kind: 'internal' | 'external'): Promise<void> {
  step(`cowpoint checkpoint create --${kind} ${name} disk.qcow2`)
  const catalogue = await CheckpointCatalogue.find({ images: [disk] })
  await createCheckpoint(catalogue, { name, kind })
  await noteNow(name)
  await verify()
}

async function change(note: string, fill: string | undefined, words: string): Promise<void> {
  step(`The guest works on: it writes another note and ${words}.`)
  await useDisk(disk, note, fill)
  await noteNow('now')
  await using chain = await openChain(disk)
  say(`   the note on the disk says "${await readNote(chain.device)}"`)
  await verify()
}

async function restore(name: string, keepAs: string): Promise<void> {
  step(`cowpoint checkpoint restore ${name} --keep-as ${keepAs} disk.qcow2`)
  const catalogue = await CheckpointCatalogue.find({ images: [disk] })
  await revertTo(catalogue, { checkpoint: name, keepAs })
  expected.set(keepAs, expected.get('now') as string)
  expected.set('now', expected.get(name) as string)
  await using chain = await openChain(disk)
  say(`   the note on the disk says "${await readNote(chain.device)}" again`)
  await verify()
}

function planText({ bytesWritten, alternatives = [] }: Plan): string {
  const others = alternatives.map(
    ({ name, bytesWritten: bytes, why }) => `${name}: ${why ?? formatSize(bytes)}`,
  )
  const rest = others.length === 0 ? '' : ` (the other way: ${others.join(', ')})`
  return `it moves ${formatSize(bytesWritten)}${rest}`
}

async function remove(name: string, words: string): Promise<void> {
  step(`cowpoint checkpoint delete --purge ${name} disk.qcow2   # ${words}`)
  const catalogue = await CheckpointCatalogue.find({ images: [disk] })
  say(`   planned: ${planText(await planRemoval(catalogue, name))}`)
  await removeCheckpoint(catalogue, name, { purge: true })
  expected.delete(name)
  await verify()
}

async function main(): Promise<void> {
  step(`A real disk: ${makeDisk(folder, raw, 'as delivered')}.`)
  {
    await using source = await openChain(raw)
    await convertToNew(source.device, { location: disk, layout: { format: 'qcow2', options: {} } })
  }
  await noteNow('now')
  say(`   converted to qcow2; its content has the SHA-256 ${expected.get('now')?.slice(0, 16)}…`)
  await checkpoint('delivered', 'internal')
  await change('first update', 'after the first update ', 'rewrites its scratch file')
  await checkpoint('updated', 'external')
  await change('second update, which went wrong', undefined, 'discards its scratch file')
  await restore('updated', 'failed')
  await change('second update, done right', 'after the right update ', 'rewrites its scratch file')
  await checkpoint('fixed', 'external')
  await change('working on', 'and what came later ', 'rewrites its scratch file')
  await remove('updated', 'in the middle: two branches read it')
  await remove('failed', 'a branch that nobody needs')
  await remove('fixed', 'the layer under the disk')
  await restore('delivered', 'latest')
  await remove('latest', 'what came after')

  step('cowpoint compact disk.qcow2, and the end.')
  {
    await using chain = await openChain(disk, { writable: true, format: 'qcow2' })
    const image = chain.active.image as Qcow2Image
    const { oldFileSize, fileSize } = await image.compact()
    say(`   the file is ${formatSize(fileSize)} long, and was ${formatSize(oldFileSize)}`)
  }
  await verify()
  const compared = tool('qemu-img', ['compare', '-F', 'raw', disk, raw])
  if (compared !== undefined) say(`   qemu-img compare with the delivered disk: ${compared}`)
  say('\nAll of it held.')
}

try {
  await main()
} finally {
  if (process.argv.includes('--keep')) say(`The files are in ${folder}`)
  else rmSync(folder, { recursive: true, force: true })
}
