/**
 * Follows the references of an image down to its base, before any image is opened: every file is found, let through by the gate
 * and looked at, so that a chain that loops, is too deep or has a link missing is refused while nothing has been touched.
 */

import { CowpointError, ImageError } from '../base/errors.ts'
import type { BlockDevice } from '../block/index.ts'
import { FileDevice, type FileSystem } from '../storage/index.ts'
import type { BrokenLink } from './chain.ts'
import { closeAll } from './chain.ts'
import type { ChainLocks } from './chain-locks.ts'
import { type FoundLayer, findLayer, type UntrustedOptions } from './find-layer.ts'
import type { Gate } from './gate.ts'
import { type Link, linkError, linkWords } from './link-error.ts'
import { checkName, type Location, parseLocation, withFormat } from './location.ts'
import { locationFailure } from './location-error.ts'
import { findReference, folderOf } from './reference.ts'

/** How a chain is followed. */
export interface FindOptions {
  readonly files: FileSystem
  readonly gate: Gate
  readonly writable: boolean
  readonly backing: boolean
  readonly dataFiles: boolean
  /** How many layers may lie below the active one. */
  readonly depthLimit: number
  /** Whether a link that cannot be followed is told in `broken` instead of thrown. */
  readonly report: boolean
  readonly locks: ChainLocks
  /** How the image is inspected first; undefined where its origin is trusted. */
  readonly untrusted: UntrustedOptions | undefined
}

/** A layer with its external data file. */
export interface LinkedLayer extends FoundLayer {
  readonly data?: { readonly device: BlockDevice; readonly filename: string }
}

/** What was found, active layer first. */
export interface FoundChain {
  readonly layers: readonly LinkedLayer[]
  readonly broken: readonly BrokenLink[]
}

/** Follows the chain that begins at `location`. All files that were opened are closed where this rejects. */
export async function findChain(location: Location, options: FindOptions): Promise<FoundChain> {
  const search = new Search(options)
  try {
    await search.run(location)
    return { layers: search.layers, broken: search.broken }
  } catch (error) {
    await closeAll(openDevices(search.layers)).catch(() => {})
    throw error
  }
}

/** What the layers hold open, in the order in which it is closed. */
export function openDevices(layers: readonly LinkedLayer[]): BlockDevice[] {
  return layers.flatMap(({ file, data }) => (data === undefined ? [file] : [file, data.device]))
}

class Search {
  readonly layers: LinkedLayer[] = []
  readonly broken: BrokenLink[] = []
  readonly #options: FindOptions
  /** Who holds which file, to find loops by what a file is rather than by what it is called. */
  readonly #holders = new Map<string, string>()
  #homeFolder = ''

  constructor(options: FindOptions) {
    this.#options = options
  }

  async run(location: Location): Promise<void> {
    const { files, writable, backing, untrusted, locks } = this.#options
    const { path } = location
    this.#homeFolder = folderOf(path) || '.'
    const active = await findLayer({
      files,
      location,
      path,
      openPath: path,
      writable,
      origin: 'caller',
      untrusted,
      lock: locks.request({ writable, layerIndex: 0, filename: path }),
    })
    let layer: LinkedLayer | undefined = await this.#add(active)
    while (layer !== undefined && backing) layer = await this.#below(layer)
  }

  /** Takes a layer over, and opens its data file. */
  async #add(found: FoundLayer): Promise<LinkedLayer> {
    const index = this.layers.push(found) - 1
    this.#holders.set(found.identity, found.filename)
    const reference = found.dataFile
    if (reference === undefined || !this.#options.dataFiles) return found
    const link = {
      kind: 'data-file',
      reference,
      overlay: found.filename,
      layerIndex: index,
    } as const
    const data = await this.#follow(link, () => this.#openData(link, found))
    const linked = data === undefined ? found : { ...found, data }
    this.layers[index] = linked
    return linked
  }

  /** The layer below, undefined where there is none or it cannot be opened. */
  async #below(layer: LinkedLayer): Promise<LinkedLayer | undefined> {
    const replaced = layer.location.backing
    if (replaced === null) return undefined
    const reference = replaced?.text ?? layer.backing?.name
    if (reference === undefined) return undefined
    const link: Link = {
      kind: 'backing',
      reference,
      overlay: layer.filename,
      layerIndex: this.layers.length - 1,
    }
    const found = await this.#follow(link, async () => {
      this.#checkDepth()
      return this.#openBacking(link, layer, replaced ?? backingLocation(layer))
    })
    return found === undefined ? undefined : this.#add(found)
  }

  async #follow<T>(link: Link, open: () => Promise<T>): Promise<T | undefined> {
    try {
      return await open()
    } catch (cause) {
      const error = linkError(link, cause)
      if (!this.#options.report || !(error instanceof CowpointError)) throw error
      const { kind, reference, layerIndex } = link
      this.broken.push({ kind, reference, layerIndex, error })
      return undefined
    }
  }

  #checkDepth(): void {
    const limit = this.#options.depthLimit
    if (this.layers.length <= limit) return
    throw new ImageError('CHAIN_TOO_DEEP', `backing chain is deeper than ${limit} layers`, {
      context: { depthLimit: limit },
    })
  }

  async #openBacking(link: Link, layer: FoundLayer, location: Location): Promise<FoundLayer> {
    const { files, locks } = this.#options
    const path = await findReference(files, {
      path: location.path,
      folder: folderOf(layer.path),
      fromCurrentFolder: location.hasProtocol,
    })
    const openPath = await this.#admit(link, path)
    const found = await findLayer({
      files,
      location,
      path,
      openPath,
      writable: false,
      origin: 'image',
      lock: locks.request({ writable: false, layerIndex: this.layers.length, filename: path }),
    })
    try {
      this.#refuseLoop(found.identity, found.filename)
    } catch (error) {
      await found.file.close()
      throw error
    }
    return found
  }

  async #openData(link: Link, layer: FoundLayer): Promise<LinkedLayer['data']> {
    const { files, locks } = this.#options
    const writable = this.#options.writable && link.layerIndex === 0
    const fail = locationFailure(link.reference, 'image')
    if (link.reference === '') throw fail('image does not name its data file')
    checkName(link.reference, 'image', fail)
    // Never taken for `json:` or a protocol: whoever wrote the image would choose what is opened.
    const path = await findReference(files, {
      path: link.reference,
      folder: folderOf(layer.path),
      fromCurrentFolder: true,
    })
    const device = await FileDevice.open(files, await this.#admit(link, path), {
      writable,
      growable: true,
      lock: locks.request({ writable, layerIndex: link.layerIndex, filename: path }),
    })
    try {
      const { dev, ino } = await device.stat()
      const identity = `${dev}:${ino}:0`
      this.#refuseLoop(identity, path)
      this.#holders.set(identity, path)
    } catch (error) {
      await device.close()
      throw error
    }
    return { device, filename: path }
  }

  /** The path to open, once the gate has let it through and it is nothing that acts on being opened. */
  async #admit(link: Link, path: string): Promise<string> {
    const { files, gate } = this.#options
    const what = linkWords(link.kind)
    const openPath = await gate.admit({ files, path, homeFolder: this.#homeFolder, what })
    if ((await files.stat(openPath)).kind === 'character-device') {
      throw new ImageError('NOT_A_FILE', `${what} is a character device`)
    }
    return openPath
  }

  #refuseLoop(identity: string, filename: string): void {
    if (!this.#holders.has(identity)) return
    const chain = [...this.layers.map((layer) => layer.filename), filename]
    const shown = chain.length > 8 ? [...chain.slice(0, 4), '…', ...chain.slice(-3)] : chain
    throw new ImageError('CHAIN_LOOP', `backing chain uses a file twice: ${shown.join(' -> ')}`, {
      context: { chain: chain.slice(0, 200) },
    })
  }
}

function backingLocation({ backing }: FoundLayer): Location {
  const { name, format } = backing as NonNullable<FoundLayer['backing']>
  const location = parseLocation(name, 'image')
  return format === undefined ? location : withFormat(location, format, 'image')
}
