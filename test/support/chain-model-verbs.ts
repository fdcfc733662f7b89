/** The verbs of the chain model: each chooses by the numbers of a step, does its work in the engine, and says what it means. */

import { dirname } from 'node:path'
import {
  commitLayer,
  convertToNew,
  openChain,
  planRelocation,
  pullLayer,
  pushLayer,
  rebaseLayer,
  relocate,
  settlePushed,
  streamLayer,
} from '../../src/chain/index.ts'
import type { AmendOptions, BitmapChange, Qcow2Image } from '../../src/qcow2/index.ts'
import { ModelFile, resized } from './chain-model.ts'
import { type ChainStep, requestsOf } from './chain-model-steps.ts'
import { type ChainWalk, DEPTH, FOLDERS } from './chain-model-walk.ts'

const FILE_LIMIT = 10

function choose<T>(list: readonly T[], number: number): T | undefined {
  return list[number % Math.max(1, list.length)]
}

type Verb = (walk: ChainWalk, file: ModelFile, step: ChainStep) => Promise<void>

/** Does one step. */
export async function doStep(walk: ChainWalk, step: ChainStep): Promise<void> {
  const files = candidates(walk, step)
  // The files that were made last stand uppermost.
  const file = files[files.length - 1 - Math.floor((step.file / 10_000) ** 1.5 * files.length)]
  if (file !== undefined) await DO[step.verb](walk, file, step)
}

/** The files with which a step can do something; now and then those too which must refuse. */
function candidates({ tree }: ChainWalk, { verb, a, c }: ChainStep): readonly ModelFile[] {
  const images = tree.files.filter(({ format }) => format === 'qcow2' || FOR_RAW.has(verb))
  if (verb === 'apply' || verb === 'delete') return images.filter((one) => one.snapshots.size > 0)
  const found = images.filter((one) =>
    verb === 'bitmap'
      ? one.bitmaps.size > 0 || a % 4 === 0
      : !IN_PLACE.has(verb) || c % 5 === 0 || tree.above(one).length === 0,
  )
  return found.length > 0 ? found : images
}

/** Verbs that change what a file reads as. */
const IN_PLACE: ReadonlySet<ChainStep['verb']> = new Set(['session', 'shrink'])

const FOR_RAW: ReadonlySet<ChainStep['verb']> = new Set([
  ...(['session', 'grow', 'shrink', 'relocate', 'convert', 'overlay'] as const),
])

const session: Verb = async (walk, file, step) => {
  if (!(await walk.mayChange(file))) return
  await walk.open(file, async (chain) => {
    const clusterSize = chain.active.image?.geometry.clusterSize ?? 4096
    for (const request of requestsOf(step, { size: file.content.length, clusterSize })) {
      await walk.request(file, chain, request)
    }
  })
}

/** Few bits of a refcount may not hold one reference more. */
function overflow({ header }: Qcow2Image): string[] {
  return header.refcountOrder <= 2 ? ['REFCOUNT_OVERFLOW'] : []
}

const snapshot: Verb = async (walk, file, { a }) => {
  const name = `s${a}`
  if (file.snapshots.has(name) || file.snapshots.size > 3) return
  const isOutside = file.dataPath !== undefined
  const isDone = await walk.image(file, async (image) => {
    const codes = isOutside ? ['EXTERNAL_DATA'] : overflow(image)
    return walk.attempt('snapshot', codes, () => image.createSnapshot({ name }), isOutside)
  })
  if (isDone) file.snapshots.set(name, file.content)
}

const apply: Verb = async (walk, file, { a }) => {
  const name = choose([...file.snapshots.keys()], a)
  if (name === undefined || !(await walk.mayChange(file))) return
  const isDone = await walk.image(file, async (image) => {
    const codes = overflow(image)
    const record = image.snapshots.find((one) => one.name === name)
    return walk.attempt('apply', codes, () => image.applySnapshot(record!))
  })
  if (isDone) file.become(file.snapshots.get(name) ?? new Uint8Array(0))
}

const remove: Verb = async (walk, file, { a }) => {
  const name = choose([...file.snapshots.keys()], a)
  if (name === undefined) return
  await walk.image(file, async (image) => {
    const record = image.snapshots.find((one) => one.name === name)
    await walk.attempt('delete', [], () => image.deleteSnapshot(record!))
  })
  file.snapshots.delete(name)
}

const commit: Verb = async (walk, top, { a, b, c }) => {
  const { tree, scope } = walk
  const isDeep = c % 3 === 0
  const base = isDeep ? choose(top.chain.slice(1), a) : top.base
  if (base === undefined) {
    await walk.attempt('commit', ['NO_BACKING'], () => commitLayer(top.path, scope), true)
    return
  }
  const merged = top.chain.slice(0, top.chain.indexOf(base))
  const mustRefuse = tree.siblings(base, merged).length > 0
  const codes = mustRefuse ? ['BASE_HAS_OVERLAYS'] : []
  if (!mustRefuse && merged.some(({ snapshots }) => snapshots.size > 0)) {
    codes.push('LAYER_HAS_SNAPSHOTS')
  }
  // Such a layer may hold nothing of what goes past it.
  if (!mustRefuse && merged.length > 1) codes.push('LAYERS_BETWEEN')
  if (base.snapshots.size > 0 && base.content.length < top.content.length) {
    codes.push('RESIZE_SNAPSHOTS')
  }
  const options = {
    ...scope,
    ...(isDeep ? { base: base.path } : {}),
    drop: b % 3 === 0,
  }
  const isDone = await walk.attempt(
    'commit',
    codes,
    () => commitLayer(top.path, options),
    mustRefuse,
  )
  if (!isDone) return
  const size = Math.max(base.content.length, top.content.length)
  const after = resized(base.content, size)
  after.set(top.content)
  base.become(after)
}

const rebase: Verb = async (walk, file, { a, b, c }) => {
  const { tree, use } = walk
  const above = tree.above(file)
  if (c % 12 === 0) {
    const target = choose([file, ...above], a) ?? file
    const name = walk.nameFrom(file.path, target)
    const loop = () => rebaseLayer(file.path, { name, format: target.format }, use)
    await walk.attempt('rebase', ['CHAIN_LOOP'], loop, true)
    return
  }
  const height = tree.heightAbove(file)
  const fits = (one: ModelFile) =>
    one !== file && !above.includes(one) && one.chain.length + 1 + height <= DEPTH
  const base = a % 4 === 0 ? undefined : choose(tree.files.filter(fits), b)
  const wanted = base && { name: walk.nameFrom(file.path, base), format: base.format }
  const codes = file.snapshots.size > 0 ? ['LAYER_HAS_SNAPSHOTS'] : []
  if (file.dataPath !== undefined && file.base === undefined) codes.push('DATA_FILE_RAW')
  const options = { ...use, compress: c % 4 === 1 }
  const isDone = await walk.attempt('rebase', codes, () => rebaseLayer(file.path, wanted, options))
  if (isDone) file.base = base
}

/** Only the name changes: fine where the new base reads the same, refused where it would show. */
const rename: Verb = async (walk, file, { b }) => {
  const { tree, use } = walk
  const above = tree.above(file)
  const height = tree.heightAbove(file)
  const fits = (one: ModelFile) =>
    one !== file && !above.includes(one) && one.chain.length + 1 + height <= DEPTH
  const base = choose(tree.files.filter(fits), b)
  if (base === undefined || file.base === undefined) return
  const codes = ['BASE_DIFFERS', ...(file.snapshots.size > 0 ? ['LAYER_HAS_SNAPSHOTS'] : [])]
  const wanted = { name: walk.nameFrom(file.path, base), format: base.format }
  const options = { ...use, namesOnly: true }
  const isDone = await walk.attempt('rename', codes, () => rebaseLayer(file.path, wanted, options))
  if (isDone) file.base = base
}

const stream: Verb = async (walk, file, { a, c }) => {
  const base = a % 2 === 0 ? undefined : choose(file.chain.slice(1), c)
  const codes = file.snapshots.size > 0 ? ['LAYER_HAS_SNAPSHOTS'] : []
  const options = { ...walk.use, base: base?.path, compress: c % 4 === 0 }
  const isDone = await walk.attempt('stream', codes, () => streamLayer(file.path, options))
  if (isDone) file.base = base
}

/** Takes the layer below out of the chain, for all views of this image. */
const pull: Verb = async (walk, file) => {
  const { base } = file
  const codes = base === undefined ? ['NO_BACKING'] : ['REFCOUNT_OVERFLOW']
  const work = () => pullLayer(file.path, walk.use)
  if (await walk.attempt('pull', codes, work, base === undefined)) file.base = base?.base
}

/** Makes the layer below what this image is; only where nobody else would notice. */
const push: Verb = async (walk, file) => {
  const { tree, use } = walk
  const { base } = file
  const others = base === undefined ? [] : tree.above(base).filter((one) => one.base === base)
  if (base === undefined || others.length !== 1) return
  const codes = ['PUSH_IMPOSSIBLE', 'REFCOUNT_OVERFLOW']
  const work = async () => {
    await pushLayer(file.path, use)
    await settlePushed(file.path, use)
  }
  if (!(await walk.attempt('push', codes, work))) return
  base.become(file.content)
  for (const [name, { enabled, granularity, truth }] of file.bitmaps) {
    const there = base.bitmaps.get(name)
    const united = truth.map((bit, at) => bit | (there?.truth[at] ?? 0))
    const isFine = there !== undefined
    base.bitmaps.set(name, {
      ...{ enabled, truth: united },
      granularity: isFine ? there.granularity : granularity,
    })
  }
}

const compact: Verb = async (walk, file, { a, b }) => {
  const maxMove = a % 3 === 0 ? { maxMove: 512 * (1 + (b % 200)) } : {}
  const options = { zero: b % 2 === 0, ...maxMove }
  await walk.image(file, (image) => walk.attempt('compact', [], () => image.compact(options)))
}

const resize =
  (isShrinking: boolean): Verb =>
  async (walk, file, { a, b }) => {
    const old = file.content.length
    const change = 512 * (1 + (isShrinking ? a % Math.max(1, old / 512 - 1) : a % 300))
    const size = isShrinking ? old - change : old + change
    if (size < 512) return
    if (isShrinking && !(await walk.mayChange(file))) return
    const isDone = await walk.open(file, async (chain) => {
      const { image } = chain.active
      if (image === undefined) {
        await chain.device.resize(size)
        return true
      }
      const mustRefuse = image.header.version === 2 && image.snapshots.length > 0
      const codes = mustRefuse ? ['RESIZE_SNAPSHOTS'] : []
      const wantsSpace = !isShrinking && chain.layers.length === 1 && b % 3 === 0
      const preallocation = wantsSpace ? 'metadata' : 'off'
      const options = { shrink: isShrinking, preallocation } as const
      const work = () => image.resizeDisk(size, options)
      return walk.attempt(isShrinking ? 'shrink' : 'grow', codes, work, mustRefuse)
    })
    if (isDone) file.resize(size)
  }

const amend: Verb = async (walk, file, { a, b }) => {
  await walk.image(file, (image) => {
    const { header } = image
    const options = choose<AmendOptions>(
      [
        { version: 2 },
        { version: 3 },
        { refcountBits: 2 ** (b % 7) },
        { refcountBits: 16 },
        { lazyRefcounts: b % 2 === 0 },
        { version: 3, refcountBits: 2 ** (b % 7), lazyRefcounts: true },
      ],
      a,
    ) as AmendOptions
    const codes: string[] = []
    if (options.version === 2) codes.push('DOWNGRADE')
    if ((options.version ?? header.version) === 2) codes.push('VERSION_2')
    if (options.refcountBits !== undefined) codes.push('REFCOUNT_WIDTH')
    return walk.attempt('amend', codes, () => image.amend(options))
  })
}

const bitmap: Verb = async (walk, file, { a, b, c }) => {
  const names = [...file.bitmaps.keys()]
  const action = a % 2 === 0 && names.length < 3 ? 'add' : (ACTIONS[b % ACTIONS.length] ?? 'clear')
  const name = action === 'add' ? `b${c % 5}` : choose(names, c)
  if (name === undefined) return
  const source = choose(names, b) ?? name
  const granularity = 512 * 2 ** (b % 6)
  const change: BitmapChange =
    action === 'add'
      ? { action, name, granularity, enabled: c % 4 !== 0 }
      : action === 'merge'
        ? { action, name, source }
        : { action, name }
  const isDone = await walk.image(file, (image) => {
    const isOld = image.header.version === 2
    const isTaken = action === 'add' && file.bitmaps.has(name)
    const codes = [
      ...(isOld ? ['BITMAPS_NOT_SUPPORTED'] : []),
      ...(isTaken ? ['BITMAP_EXISTS'] : []),
    ]
    const work = () => image.changeBitmaps([change])
    return walk.attempt(`bitmap ${action}`, codes, work, isTaken)
  })
  if (!isDone) return
  if (action === 'add') return file.addBitmap(name, granularity, c % 4 !== 0)
  const known = file.bitmaps.get(name)
  if (known === undefined) return
  if (action === 'remove') file.bitmaps.delete(name)
  else if (action === 'clear') known.truth.fill(0)
  else if (action === 'merge') {
    const other = file.bitmaps.get(source)
    known.truth = known.truth.map((bit, at) => bit | (other?.truth[at] ?? 0))
  } else known.enabled = action === 'enable'
}

const ACTIONS = ['remove', 'clear', 'merge', 'merge', 'enable', 'disable'] as const

const move: Verb = async (walk, file, { a }) => {
  const { files } = walk
  const extension = file.format === 'raw' ? 'raw' : 'qcow2'
  const name = walk.freshPath(extension).split('/').at(-1)
  const to = `${FOLDERS[a % FOLDERS.length]}/${name}`
  const planning = planRelocation(file.path, to, { files, folders: FOLDERS })
  if (file.dataPath !== undefined && dirname(to) !== dirname(file.path)) {
    // The name of a data file is not rewritten.
    const error = await planning.then(
      () => undefined,
      (reason) => reason,
    )
    if (error?.code !== 'NAME_NOT_REWRITABLE') throw error ?? new Error('model: it was to refuse')
    return
  }
  const plan = await planning
  await walk.attempt('relocate', [], () => relocate(plan, { files }))
  file.path = to
}

const convert: Verb = async (walk, file, { a, b, c }) => {
  const { tree } = walk
  if (tree.files.length >= FILE_LIMIT) return removeLeaf(walk, a)
  const isRaw = c % 4 === 0
  const path = walk.freshPath(isRaw ? 'raw' : 'qcow2')
  const options = { clusterSize: [512, 4096, 65536][b % 3] ?? 4096, lazyRefcounts: b % 2 === 0 }
  const layout = isRaw ? ({ format: 'raw' } as const) : ({ format: 'qcow2', options } as const)
  await using chain = await openChain(file.path, { ...walk.use, format: file.format })
  const name = b % 2 === 0 ? undefined : choose([...file.snapshots.keys()], a)
  const record = chain.active.image?.snapshots.find((one) => one.name === name)
  const source = record ? await chain.active.image?.openSnapshot(record) : chain.device
  const target = { location: path, layout, files: walk.files }
  await walk.attempt('convert', [], () =>
    convertToNew(source ?? chain.device, target, { compress: !isRaw && c % 3 === 0 }),
  )
  const bytes = name === undefined ? file.content : file.snapshots.get(name)
  tree.files.push(new ModelFile(path, isRaw ? 'raw' : 'qcow2', bytes ?? file.content))
}

async function removeLeaf(walk: ChainWalk, number: number): Promise<void> {
  const { tree, files } = walk
  const leaf = choose(
    tree.files.filter((one) => tree.above(one).length === 0),
    number,
  )
  if (leaf === undefined || tree.files.length < 2) return
  await files.unlink(leaf.path)
  if (leaf.dataPath !== undefined) await files.unlink(leaf.dataPath)
  tree.files.splice(tree.files.indexOf(leaf), 1)
}

const overlay: Verb = async (walk, file, { a, b, c }) => {
  const { tree } = walk
  if (tree.files.length >= FILE_LIMIT) return removeLeaf(walk, a)
  if (file.chain.length >= DEPTH) return
  const clusterSize = [512, 1024, 4096, 16384, 65536][b % 5] ?? 4096
  const options = { clusterSize, extendedL2: clusterSize >= 16384 && a % 2 === 0 }
  const size = a % 3 === 0 ? file.content.length : 512 * (40 + (a % 400))
  const data = c % 8 === 0 ? 'external' : 'inside'
  await walk.createOverlay(file, { options, size, data })
}

const DO: Readonly<Record<ChainStep['verb'], Verb>> = {
  ...{
    session,
    snapshot,
    apply,
    delete: remove,
    commit,
    rebase,
    rename,
    stream,
    pull,
    push,
    compact,
  },
  ...{ grow: resize(false), shrink: resize(true), amend, bitmap, relocate: move, convert, overlay },
}
