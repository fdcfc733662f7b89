/**
 * Works out what it takes to move a file, or a folder with all in it, that images name: which names in which images change, and
 * to what. Changes nothing; relocate.ts carries it out.
 */

import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { CowpointError, IoError, UsageError } from '../base/errors.ts'
import { type FileSystem, isSameFile, nodeFiles } from '../storage/index.ts'
import { fileKey } from './dependents.ts'
import {
  FolderScan,
  type ScanLimits,
  type ScannedImage,
  type ScannedReference,
  type SkippedFile,
} from './folder-scan.ts'
import { protocolOf } from './location.ts'
import { statOf } from './new-image.ts'

/** Where images that name the files are looked for. */
export interface RelocateOptions extends Partial<ScanLimits> {
  /** Folders to look through besides the old and the new one; not those in them. */
  readonly folders?: readonly string[]
}

/** A file that gets another place; absolute paths without symbolic links. */
export interface Move {
  readonly from: string
  readonly to: string
}

/** A name in an image that changes. */
export interface NameChange {
  /** Where the image is now, and, if it moves itself, will be. */
  readonly path: string
  readonly move: Move | undefined
  readonly oldName: string
  readonly newName: string
  /** The same file by its whole new path: what holds from both places while the image has two. */
  readonly wholeName: string
}

/** What is going to happen. */
export interface RelocationPlan {
  readonly moves: readonly Move[]
  /** Folders that move with their files, each after the one that it lies in. */
  readonly folderMoves: readonly Move[]
  readonly changes: readonly NameChange[]
  /** Every image that was looked at. */
  readonly images: readonly ScannedImage[]
  readonly skipped: readonly SkippedFile[]
}

const ENTRY_LIMIT = 10_000

/**
 * Plans to move `from` to `to`, or into `to` where that is a folder. Rejects with a UsageError where that cannot be done so that
 * every image goes on to read the same: `FILE_EXISTS`, `IS_A_LINK`, `NAME_NOT_REWRITABLE` (a `json:` name, or that of a data
 * file), `SEARCH_INCOMPLETE` (not every image in question could be looked at).
 */
export async function planRelocation(
  from: string,
  to: string,
  options: RelocateOptions = {},
): Promise<RelocationPlan> {
  const files = options.files ?? nodeFiles
  const top = await topMove(files, from, to)
  const { moves, folderMoves } = await listMoves(files, top)
  const scan = new FolderScan({ ...options, files })
  const folders = new Set([
    dirname(top.from),
    ...folderMoves.map((move) => move.from),
    await files.realpath(dirname(top.to)),
  ])
  for (const folder of options.folders ?? []) folders.add(await files.realpath(folder))
  for (const folder of folders) {
    await scan.addFolder(folder, { devices: !folder.startsWith('/dev') })
  }
  if (!scan.isComplete) {
    const { path = '', reason = '' } = scan.skipped.at(-1) ?? {}
    throw new UsageError(
      'SEARCH_INCOMPLETE',
      `images that name the file may have been missed in ${path}: ${reason}`,
      { context: { folder: path } },
    )
  }
  const changes = await findChanges(files, moves, scan.images)
  return { moves, folderMoves, changes, images: scan.images, skipped: scan.skipped }
}

async function topMove(files: FileSystem, from: string, to: string): Promise<Move> {
  const source = join(await files.realpath(dirname(resolve(from))), basename(resolve(from)))
  await refuseLink(files, source)
  let wanted = resolve(to)
  const there = await statOf(files, wanted)
  if (there?.kind === 'folder' && !(await isContinued(files, source, wanted))) {
    wanted = join(wanted, basename(source))
  }
  const target = join(await files.realpath(dirname(wanted)), basename(wanted))
  if (target === source) throw new UsageError('FILE_EXISTS', 'the file is there already')
  if (target.startsWith(source + sep)) {
    throw new UsageError('INVALID_PATH', 'a folder cannot move into itself')
  }
  const taken = await statOf(files, target)
  // The same file under both names is what an interrupted move leaves; it goes on from there.
  if (taken !== undefined && !(await isContinued(files, source, target))) {
    throw new UsageError('FILE_EXISTS', 'something has the new name already', {
      context: { path: target },
    })
  }
  return { from: source, to: target }
}

/** Whether an interrupted move has left files under both names: the same file, or a folder in which there is one. */
async function isContinued(files: FileSystem, from: string, to: string): Promise<boolean> {
  const [old, there] = [await statOf(files, from), await statOf(files, to)]
  if (old === undefined || there === undefined || old.kind !== there.kind) return false
  if (old.kind !== 'folder') return isSameFile(old, there)
  if (isSameFile(old, there)) return false
  for (const name of await files.list(to)) {
    const [one, other] = [join(from, name), join(to, name)]
    if ((await isLink(files, one)) || (await isLink(files, other))) continue
    if (await isContinued(files, one, other)) return true
  }
  return false
}

async function isLink(files: FileSystem, path: string): Promise<boolean> {
  try {
    return (await files.realpath(path)) !== path
  } catch (error) {
    if (error instanceof CowpointError) return true
    throw error
  }
}

/** Refuses a symbolic link: to move it would move neither the file nor what its relative target means. */
async function refuseLink(files: FileSystem, path: string): Promise<void> {
  const real = await files.realpath(path)
  if (real === path) return
  throw new UsageError('IS_A_LINK', `a symbolic link cannot be relocated, only what it leads to`, {
    context: { path, target: real },
  })
}

async function listMoves(
  files: FileSystem,
  top: Move,
): Promise<Pick<RelocationPlan, 'moves' | 'folderMoves'>> {
  const moves: Move[] = []
  const folderMoves: Move[] = []
  const waiting = [top]
  for (let move = waiting.shift(); move !== undefined; move = waiting.shift()) {
    if (moves.length + folderMoves.length > ENTRY_LIMIT) {
      throw new UsageError('TOO_MANY_FILES', `folder holds more than ${ENTRY_LIMIT} files`)
    }
    const { from, to } = move
    await refuseLink(files, from)
    const { kind } = await files.stat(from)
    if (kind === 'file') moves.push(move)
    else if (kind === 'folder') {
      folderMoves.push(move)
      const names = await files.list(from)
      waiting.push(...names.map((name) => ({ from: join(from, name), to: join(to, name) })))
    } else {
      throw new UsageError('NOT_A_FILE', `${from} is neither a file nor a folder`, {
        context: { path: from },
      })
    }
  }
  return { moves, folderMoves }
}

async function findChanges(
  files: FileSystem,
  moves: readonly Move[],
  images: readonly ScannedImage[],
): Promise<NameChange[]> {
  const byPath = new Map(moves.map((move) => [move.from, move]))
  const newPaths = new Set(moves.map((move) => move.to))
  const groups = new Map<string, ScannedImage[]>()
  for (const image of images) {
    // The second name of a file whose move was interrupted.
    if (newPaths.has(image.path)) continue
    const key = fileKey(image.stat)
    groups.set(key, [...(groups.get(key) ?? []), image])
  }
  const changes: NameChange[] = []
  for (const names of groups.values()) {
    const image = names.find((one) => byPath.has(one.path)) ?? (names[0] as ScannedImage)
    const move = byPath.get(image.path)
    const inManyFolders = new Set(names.map(({ path }) => dirname(path))).size > 1
    for (const reference of image.references) {
      const target = await targetOf(files, reference, byPath)
      if (target === undefined) continue
      const newName = nameFor(reference, target, { image, move, inManyFolders })
      if (newName === undefined) continue
      refuseFixed(image, reference)
      const { path } = image
      changes.push({ path, move, oldName: reference.name, newName, wholeName: target.to })
    }
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1))
}

interface Target {
  readonly isMoved: boolean
  /** The real path of what the reference leads to, then. */
  readonly to: string
}

/** Undefined for what is no file of this host. */
async function targetOf(
  files: FileSystem,
  { name, path, stat }: ScannedReference,
  byPath: ReadonlyMap<string, Move>,
): Promise<Target | undefined> {
  if (stat === undefined) {
    return protocolOf(name) === undefined ? { isMoved: false, to: resolve(path) } : undefined
  }
  try {
    const real = await files.realpath(path)
    const move = byPath.get(real)
    return { isMoved: move !== undefined, to: move?.to ?? real }
  } catch (error) {
    if (error instanceof CowpointError && !(error instanceof IoError)) return undefined
    throw error
  }
}

/** The name that leads to the target then; undefined where the present one will do. */
function nameFor(
  { name, kind }: ScannedReference,
  { isMoved, to }: Target,
  from: {
    readonly image: ScannedImage
    readonly move: Move | undefined
    readonly inManyFolders: boolean
  },
): string | undefined {
  const { image, move, inManyFolders } = from
  if (move === undefined && !isMoved) return undefined
  const folder = dirname(move?.to ?? image.path)
  const isWhole = isAbsolute(name)
  const isPlain = kind === 'data-file' || protocolOf(name) === undefined
  if (isPlain && resolve(folder, name) === to) return undefined
  const staysBeside = move === undefined || folder === dirname(move.from)
  if (!isMoved && (isWhole || staysBeside)) return undefined
  if (isWhole || inManyFolders) return to
  const short = relative(folder, to)
  return protocolOf(short) === undefined ? short : `./${short}`
}

function refuseFixed(image: ScannedImage, { kind, name, nested }: ScannedReference): void {
  const isPlain = kind === 'backing' && !nested && protocolOf(name) === undefined
  if (isPlain) return
  const what = kind === 'data-file' ? 'the name of its data file' : `the name '${name}'`
  throw new UsageError(
    'NAME_NOT_REWRITABLE',
    `${image.path} would lead astray: ${what} cannot be rewritten`,
    { context: { path: image.path, reference: name } },
  )
}

/** The moves, each file after those among them that stand on it. */
export function overlaysFirst({ moves, images }: RelocationPlan): readonly Move[] {
  const imageAt = new Map(images.map((image) => [image.path, image]))
  const pathOf = new Map<string, string>()
  for (const { from } of moves) {
    const image = imageAt.get(from)
    if (image !== undefined) pathOf.set(fileKey(image.stat), from)
  }
  const heights = new Map<string, number>()
  const heightOf = (path: string): number => {
    const known = heights.get(path)
    if (known !== undefined) return known
    // A loop ends where it is met again.
    heights.set(path, 0)
    let height = 0
    for (const { stat } of imageAt.get(path)?.references ?? []) {
      const below = stat === undefined ? undefined : pathOf.get(fileKey(stat))
      height = Math.max(height, 1 + (below === undefined ? 0 : heightOf(below)))
    }
    heights.set(path, height)
    return height
  }
  return moves.toSorted((a, b) => heightOf(b.from) - heightOf(a.from))
}
