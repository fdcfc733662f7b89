/**
 * The catalogue of a folder: `.cowpoint` beside the disks, in which `catalogue.json` is only a cache of what the images say, but for
 * descriptions, labels and state files. Reads it, looks at the images, writes it whole or not at all, and holds its lock.
 */

import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { BusyError, CowpointError, IoError, UsageError } from '../base/errors.ts'
import type { LongWork } from '../base/progress.ts'
import { Gate, statOf } from '../chain/index.ts'
import {
  type FileSystem,
  nodeFiles,
  openLocked,
  readSmallFile,
  writeSmallFile,
} from '../storage/index.ts'
import {
  CATALOGUE_SIZE_LIMIT,
  type CheckpointNote,
  decodeManifest,
  EMPTY_MANIFEST,
  encodeManifest,
  type Manifest,
} from './manifest.ts'
import { refuseIncomplete, type Survey, surveyFolders } from './survey.ts'
import { type CheckpointTree, growTrees } from './tree.ts'

/** Where a catalogue is looked for. */
export interface CatalogueOptions {
  /** Disks (paths) that the user named: their files and folders are trusted, and the catalogue lies beside the first. */
  readonly images?: readonly string[]
  /** The folder that `.cowpoint` is in. */
  readonly folder?: string | undefined
  readonly files?: FileSystem | undefined
  /** `raw`: the named disks are raw whatever they look like, since a guest can make such a disk look like an image. */
  readonly format?: 'raw' | 'qcow2' | undefined
  /** Which references of images are followed; those to files in their folders and below where left out. */
  readonly gate?: Gate | undefined
}

/** What the images and the catalogue say together. */
export interface CatalogueView {
  readonly survey: Survey
  readonly manifest: Manifest
  /** One for each set of disks. */
  readonly trees: readonly CheckpointTree[]
}

const FOLDER = '.cowpoint'

/**
 * The catalogue of one folder.
 *
 * ```ts
 * const catalogue = await CheckpointCatalogue.find({ images: ['vm/disk.qcow2'] })
 * for (const tree of await catalogue.trees()) {
 *   for (const { name, time } of tree.nodes.values()) console.log(name, new Date(time))
 * }
 * ```
 */
export class CheckpointCatalogue {
  /** The folder that `.cowpoint` is in; absolute. Paths in the catalogue are relative to it. */
  readonly folder: string
  readonly files: FileSystem
  readonly gate: Gate
  /** The disks that the user named; absolute. */
  readonly images: readonly string[]
  readonly #isRaw: boolean
  /** Why the file could not be used, if that is so: what it said is then taken from the images. */
  problem: CowpointError | undefined

  private constructor(folder: string, images: readonly string[], options: CatalogueOptions) {
    this.folder = folder
    this.images = images
    this.files = options.files ?? nodeFiles
    this.gate = options.gate ?? new Gate()
    this.#isRaw = options.format === 'raw'
  }

  /** The catalogue that goes with `options`: of the folder, of the named disks, or of the present folder. It need not exist yet. */
  static async find(options: CatalogueOptions = {}): Promise<CheckpointCatalogue> {
    const { files = nodeFiles, folder } = options
    const images: string[] = []
    // A disk is the file itself: a symbolic link to it goes on to lead there.
    for (const path of options.images ?? []) images.push(await files.realpath(resolve(path)))
    if (folder !== undefined) return new CheckpointCatalogue(resolve(folder), images, options)
    const folders = images.length === 0 ? [resolve('.')] : images.map((path) => dirname(path))
    for (const one of folders) {
      if ((await statOf(files, join(one, FOLDER)))?.kind === 'folder') {
        return new CheckpointCatalogue(one, images, options)
      }
    }
    return new CheckpointCatalogue(folders[0] ?? resolve('.'), images, options)
  }

  /** A path within `.cowpoint`. */
  inside(...names: readonly string[]): string {
    return join(this.folder, FOLDER, ...names)
  }

  /** Where dropped files go. */
  get trashFolder(): string {
    return this.inside('trash')
  }

  /** Where the copied state files of a checkpoint lie. */
  stateFolder(id: string): string {
    return this.inside('state', id)
  }

  /** An absolute path as the catalogue writes it. */
  toRelative(path: string): string {
    return relative(this.folder, path) || '.'
  }

  /**
   * A path from the catalogue as an absolute one. Rejects with a UsageError, code `CATALOGUE_PATH_REFUSED`, where it leads out of
   * the folder, unless to a folder in which the user named a disk: the catalogue may come from anywhere.
   */
  async toAbsolute(path: string): Promise<string> {
    const wanted = isAbsolute(path) ? path : join(this.folder, path)
    const real = await this.#realFolder(dirname(wanted))
    const allowed = [this.folder, ...this.images.map((image) => dirname(image))]
    for (const folder of allowed) {
      const home = await this.#realFolder(folder)
      if (real === home || real.startsWith(home.endsWith(sep) ? home : home + sep)) return wanted
    }
    throw new UsageError(
      'CATALOGUE_PATH_REFUSED',
      `catalogue names ${path}, which lies outside of its folder: name the disks there too`,
      { context: { path } },
    )
  }

  async #realFolder(folder: string): Promise<string> {
    try {
      return await this.files.realpath(folder)
    } catch (error) {
      if (!(error instanceof CowpointError) || folder === dirname(folder)) throw error
      return join(await this.#realFolder(dirname(folder)), folder.slice(dirname(folder).length))
    }
  }

  /** What `catalogue.json` says; nothing where there is none, or it is damaged (`problem` says so then). */
  async read(): Promise<Manifest> {
    this.problem = undefined
    const path = this.inside('catalogue.json')
    try {
      return decodeManifest(await readSmallFile(this.files, path, CATALOGUE_SIZE_LIMIT))
    } catch (error) {
      if (!(error instanceof CowpointError)) throw error
      if (error.code !== 'FILE_NOT_FOUND') this.problem = error
      return EMPTY_MANIFEST
    }
  }

  /** Looks at the images and the catalogue. Writes nothing. */
  async view(work: Pick<LongWork, 'signal'> = {}): Promise<CatalogueView> {
    return this.#viewWith(await this.read(), work)
  }

  /** What the images say together with `manifest`. */
  async #viewWith(manifest: Manifest, work: Pick<LongWork, 'signal'> = {}): Promise<CatalogueView> {
    const paths = [...this.images]
    for (const { path } of manifest.disks) {
      const known = await this.toAbsolute(path).catch((error: unknown) => {
        if (!(error instanceof UsageError)) throw error
      })
      if (known !== undefined && !paths.includes(known)) paths.push(known)
    }
    const { files, folder } = this
    const raw = this.#isRaw ? this.images : []
    const survey = await surveyFolders({ files, folders: [folder], paths, raw, ...work })
    const trees = growTrees(survey, manifest, { folder, asked: this.images })
    return { survey, manifest, trees }
  }

  /**
   * As `view`, for what must not go by half of it: an image that could not be read may stand on what is about to change. Rejects with
   * an IoError, code `SEARCH_INCOMPLETE`, or that of reading the catalogue.
   */
  async wholeView(work: Pick<LongWork, 'signal'> = {}): Promise<CatalogueView> {
    const view = await this.view(work)
    refuseIncomplete(view.survey)
    this.#refuseUnread()
    return view
  }

  /** What it says of checkpoints is nowhere else, so nobody may write a new one over one that the host could not read. */
  #refuseUnread(): void {
    if (this.problem instanceof IoError) throw this.problem
  }

  /** The trees of all sets of disks, from the images and the catalogue. */
  async trees(work: Pick<LongWork, 'signal'> = {}): Promise<readonly CheckpointTree[]> {
    return (await this.view(work)).trees
  }

  /**
   * Brings `catalogue.json` up to what the images say. `notes` are added to what it knows of checkpoints, and `disks` are where
   * the disks are from now on. What it says of checkpoints that are gone goes, unless not all images could be looked at. The caller
   * holds the lock.
   */
  async rebuild(
    changes: {
      readonly notes?: Readonly<Record<string, CheckpointNote>>
      readonly disks?: readonly { readonly id: string; readonly path: string }[]
    } = {},
  ): Promise<void> {
    const before = await this.read()
    this.#refuseUnread()
    const moved = new Set(changes.disks?.map(({ id }) => id))
    const disks = [...before.disks.filter(({ id }) => !moved.has(id)), ...(changes.disks ?? [])]
    const { trees, survey } = await this.#viewWith({ ...before, disks })
    const known = new Map(before.checkpoints.map((entry) => [entry.id, entry]))
    const checkpoints = new Map<string, Manifest['checkpoints'][number]>()
    for (const { nodes } of trees) {
      for (const node of nodes.values()) {
        const { id, name, parent, time, consistency, diskCount, places } = node
        checkpoints.set(id, {
          ...noteIn(known.get(id)),
          ...noteIn(changes.notes?.[id]),
          ...{ id, name, time, consistency, diskCount },
          ...(parent === undefined ? {} : { parent }),
          places: places.map(({ disk, layer, snapshot }) => ({
            disk,
            path: this.toRelative(layer.path),
            ...(snapshot === undefined ? {} : { snapshot: snapshot.record.id }),
          })),
        })
      }
    }
    const found = new Map<string, Manifest['disks'][number]>()
    for (const { id, path } of trees.flatMap((tree) => tree.disks)) {
      found.set(id, { id, path: this.toRelative(path) })
    }
    if (!survey.isComplete) {
      for (const entry of before.checkpoints) {
        if (!checkpoints.has(entry.id)) checkpoints.set(entry.id, entry)
      }
      for (const disk of disks) if (!found.has(disk.id)) found.set(disk.id, disk)
    }
    await this.#write({
      generation: before.generation + 1,
      disks: [...found.values()],
      checkpoints: [...checkpoints.values()],
    })
  }

  async #write(manifest: Manifest): Promise<void> {
    await this.prepare()
    await writeSmallFile(this.files, this.inside('catalogue.json'), encodeManifest(manifest))
  }

  /** Makes the folder `.cowpoint`. */
  async prepare(): Promise<void> {
    if ((await statOf(this.files, this.inside()))?.kind === 'folder') return
    await this.files.makeFolder(this.inside(), { parents: true })
    await this.files.syncFolder(this.folder)
  }

  /** Takes the catalogue for a verb that changes something. Rejects with a BusyError, code `CATALOGUE_BUSY`, where another one runs. */
  async lock(): Promise<AsyncDisposable> {
    await this.prepare()
    const path = this.inside('lock')
    const mode = (await statOf(this.files, path)) === undefined ? 'replace' : 'write'
    try {
      const file = await openLocked(this.files, path, mode, { kind: 'write' })
      return { [Symbol.asyncDispose]: () => file.close() }
    } catch (error) {
      if (!(error instanceof BusyError)) throw error
      throw new BusyError('CATALOGUE_BUSY', 'another checkpoint verb is at work in this folder', {
        context: { folder: this.folder },
        cause: error,
      })
    }
  }
}

function noteIn(note: CheckpointNote | undefined): CheckpointNote {
  if (note === undefined) return {}
  const { description, labels, stateFiles } = note
  return {
    ...(description === undefined ? {} : { description }),
    ...(labels === undefined ? {} : { labels }),
    ...(stateFiles === undefined ? {} : { stateFiles }),
  }
}
