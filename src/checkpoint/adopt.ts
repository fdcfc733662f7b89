/**
 * Takes over what other programs made: gives internal snapshots, frozen layers and active layers the records of checkpoints. Nothing
 * that can be read changes, but for leaks and wrong refcounts, which are mended where that is asked for.
 */

import { basename, extname } from 'node:path'
import { ImageError } from '../base/errors.ts'
import { openChain } from '../chain/index.ts'
import { checkImage, repairImage } from '../qcow2/index.ts'
import { FileDevice } from '../storage/index.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { fileWord, NAME_LIMIT, newId } from './identity.ts'
import { setsWith } from './lookup.ts'
import type { PlannedOperation } from './plan.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { planRemembering } from './plan-remembering.ts'
import { type CheckpointFacts, type LayerRecord, recordOf, withMark } from './record.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import type { CheckpointNode, CheckpointTree, TreeDisk } from './tree.ts'
import { runVerb, type VerbOptions, type VerbResult } from './verb.ts'

/** How images are taken over. */
export interface AdoptOptions extends VerbOptions {
  /** Repairs images that do not pass the check, where that loses nothing. Without it those are refused. */
  readonly repair?: boolean | undefined
}

/**
 * Takes over the disks that the catalogue was found by, or all that are there. Snapshots of one name and second on several named
 * disks become one checkpoint. Rejects with an ImageError, code `IMAGE_CORRUPT`, where an image has errors that are not repaired.
 */
export function adoptImages(
  catalogue: CheckpointCatalogue,
  options: AdoptOptions = {},
): Promise<VerbResult> {
  return runVerb(
    catalogue,
    async (view) => {
      const adoption = new Adoption(catalogue, view)
      const planned = await adoption.plan()
      await inspect(catalogue, adoption.images, options)
      return planned
    },
    options,
  )
}

/** Looks at each image before it is written to: records must not go into what is damaged. */
async function inspect(
  catalogue: CheckpointCatalogue,
  paths: readonly string[],
  { repair = false, dryRun = false, signal }: AdoptOptions,
): Promise<void> {
  const { files, gate } = catalogue
  for (const path of paths) {
    // The chain below must be there, or what is adopted could not be restored.
    await using chain = await openChain(path, { files, gate, format: 'qcow2' })
    const { corruptions, leaks } = await checkImage(chain.active.file, { signal })
    await chain.close()
    if (corruptions + leaks === 0 || dryRun) continue
    if (corruptions > 0 && !repair) {
      throw new ImageError(
        'IMAGE_CORRUPT',
        `image ${path} has ${corruptions} errors: adopt with --repair, or 'cowpoint check -r all'`,
        { context: { path, corruptions } },
      )
    }
    if (!repair) continue
    const lock = { kind: 'write' } as const
    await using file = await FileDevice.open(files, path, { writable: true, growable: true, lock })
    await repairImage(file, { what: 'all', signal })
  }
}

class Adoption {
  /** Paths of the images that get records. */
  readonly images: string[] = []
  readonly #changed: SurveyedLayer[] = []
  readonly #survey: Survey
  readonly #trees: readonly CheckpointTree[]
  readonly #draft: PlanDraft
  /** New ids by old ones. */
  readonly #ids = new Map<string, string>()
  /** Foreign checkpoints that become one: the same name and second on several disks. */
  readonly #groups = new Map<string, CheckpointNode[]>()
  readonly #names = new Set<string>()
  readonly #done = new Set<string>()

  constructor(catalogue: CheckpointCatalogue, { survey, trees }: CatalogueView) {
    this.#survey = survey
    const { images } = catalogue
    // Disks that belong to no set yet are several sets.
    const meant = images.flatMap((path) => setsWith(trees, [path]))
    this.#trees = images.length === 0 ? trees : [...new Set(meant)]
    this.#draft = new PlanDraft(catalogue, { verb: 'adopt' })
  }

  async plan(): Promise<PlannedOperation> {
    const nodes = this.#trees.flatMap((tree) => [...tree.nodes.values()])
    for (const { name, isForeign } of nodes) if (!isForeign) this.#names.add(name)
    this.#group(nodes.filter(({ isForeign }) => isForeign))
    for (const tree of this.#trees) {
      for (const disk of tree.disks) this.#adoptDisk(tree, disk)
    }
    await planRemembering(this.#draft, this.#survey, this.#changed, ({ path }) => path)
    return this.#draft.finish()
  }

  #group(foreign: readonly CheckpointNode[]): void {
    for (const node of foreign) {
      const isInside = node.kind === 'internal'
      const key = isInside ? `${node.name}\0${Math.floor(node.time / 1000)}` : node.id
      const others = this.#groups.get(key) ?? []
      // Two of one name on one disk stay two.
      const isSameDisk = others.some((other) => shareDisk(other, node))
      const group = isSameDisk ? [] : others
      group.push(node)
      this.#groups.set(isSameDisk ? node.id : key, group)
    }
    for (const group of this.#groups.values()) {
      const id = newId()
      for (const node of group) this.#ids.set(node.id, id)
    }
  }

  #adoptDisk(tree: CheckpointTree, disk: TreeDisk): void {
    const { layer: active } = disk
    if (active === undefined || active.format !== 'qcow2') return
    const diskId = active.record?.diskId ?? newId()
    const foreign = [...tree.nodes.values()].filter(({ isForeign }) => isForeign)
    for (const node of foreign) {
      for (const place of node.places) {
        if (place.disk !== disk.id || place.snapshot === undefined) continue
        const facts = this.#factsOf(node, disk)
        const path = this.#draft.relative(place.layer.path)
        this.#change(place.layer)
        this.#draft.count(
          {
            ...{ do: 'retitle', path, id: node.id },
            ...this.#newName(node, node.name),
            mark: Buffer.from(withMark(place.snapshot.record.unknownExtra, facts)).toString('hex'),
          },
          `give snapshot ${node.name} in ${path} a record`,
        )
      }
    }
    for (const node of foreign) {
      for (const place of node.places) {
        if (place.disk !== disk.id || place.snapshot !== undefined) continue
        this.#adoptLayer(node, place.layer, disk, diskId)
      }
    }
    if (active.record === undefined) this.#adoptActive(active, disk, diskId)
  }

  #factsOf(node: CheckpointNode, disk: TreeDisk): CheckpointFacts {
    const { id, parent, consistency } = node
    const group = [...this.#groups.values()].find((list) => list.includes(node)) ?? [node]
    const number = group.findIndex(({ places }) => places.some((place) => place.disk === disk.id))
    return {
      id: this.#ids.get(id) ?? id,
      parent: parent === undefined ? undefined : (this.#ids.get(parent) ?? parent),
      ...{ consistency, automatic: false, disk: Math.max(0, number), diskCount: group.length },
    }
  }

  /** Leaves a layer alone that is not ours to write to: it lies elsewhere, is raw, or other disks stand on it too. */
  #adoptLayer(node: CheckpointNode, layer: SurveyedLayer, disk: TreeDisk, diskId: string): void {
    const isShared = this.#trees
      .flatMap((tree) => tree.disks)
      .some((other) => other !== disk && standsOn(this.#survey, other.layer, layer))
    if (
      layer.format !== 'qcow2' ||
      isShared ||
      disk.strangers.some((one) => standsOn(this.#survey, one, layer))
    ) {
      return
    }
    if (this.#done.has(layer.key)) return
    this.#done.add(layer.key)
    const path = this.#draft.relative(layer.path)
    const stem = basename(layer.path, extname(layer.path))
    const name = this.#unique(Buffer.byteLength(stem) > NAME_LIMIT ? fileWord(stem) : stem)
    const base = layer.record?.base
    const record: LayerRecord = {
      ...this.#factsOf(node, disk),
      ...{ state: 'frozen', diskId, name, time: node.time },
      ...(base === undefined ? {} : { base }),
    }
    this.#change(layer)
    this.#draft.count(
      { do: 'mark', path, record: recordHex(record) },
      `make ${path} the checkpoint ${name}`,
      [{ do: 'mark', path, record: recordHex(layer.record) }],
    )
  }

  #adoptActive(layer: SurveyedLayer, disk: TreeDisk, diskId: string): void {
    const path = this.#draft.relative(layer.path)
    const { position } = disk
    const parent = position === undefined ? undefined : (this.#ids.get(position) ?? position)
    const below =
      layer.below?.key === undefined ? undefined : this.#survey.layers.get(layer.below.key)
    const base = below?.format === 'raw' ? this.#rawBase(below, disk, diskId) : undefined
    const record: LayerRecord = {
      ...{ state: 'active', id: this.#draft.id, parent, diskId, disk: 0, diskCount: 1 },
      ...{ consistency: 'unknown', automatic: false, time: Date.now(), name: '' },
      ...(base === undefined ? {} : { base }),
    }
    this.#change(layer)
    this.#draft.count(
      { do: 'mark', path, record: recordHex(record) },
      `note in ${path} where it stands`,
      [{ do: 'mark', path, record: recordHex(layer.record) }],
    )
  }

  /** The record of a raw base, which the overlay on it carries. */
  #rawBase(layer: SurveyedLayer, disk: TreeDisk, diskId: string): LayerRecord | undefined {
    const nodes = this.#trees.flatMap((tree) => [...tree.nodes.values()])
    const node = nodes.find(({ places }) => places.some((place) => place.layer === layer))
    if (node === undefined) return undefined
    const known = (this.#survey.overlays.get(layer.key) ?? [])
      .map(({ header }) => header && recordOf(header.extensions)?.base)
      .find((one) => one !== undefined)
    if (known !== undefined) return known
    const name = this.#unique(basename(layer.path, extname(layer.path)).slice(0, 40))
    return { ...this.#factsOf(node, disk), state: 'frozen', diskId, name, time: node.time }
  }

  #change(layer: SurveyedLayer): void {
    if (this.images.includes(layer.path)) return
    this.images.push(layer.path)
    this.#changed.push(layer)
    this.#draft.touch(layer.path, 'change')
    this.#draft.hold(layer.path)
    this.#draft.view(layer.path, 'reads the same')
  }

  /** A snapshot's name where it cannot stay: because another checkpoint has it, or it is none that can be written. */
  #newName(node: CheckpointNode, wanted: string): { readonly name?: string } {
    const group = [...this.#groups.values()].find((list) => list.includes(node))
    if (group !== undefined && group[0] !== node) {
      const first = this.#chosen.get(group[0] as CheckpointNode)
      return first === undefined || first === wanted ? {} : { name: first }
    }
    const name = this.#unique(wanted)
    this.#chosen.set(node, name)
    return name === wanted ? {} : { name }
  }

  readonly #chosen = new Map<CheckpointNode, string>()

  #unique(wanted: string): string {
    const clean = wanted.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]/gu, '?').replace(/^@/, '_')
    const name = clean === '' ? 'unnamed' : clean.slice(0, NAME_LIMIT / 2)
    for (let number = 1; ; number++) {
      const next = number === 1 ? name : `${name}-${number}`
      if (this.#names.has(next)) continue
      this.#names.add(next)
      return next
    }
  }
}

function shareDisk(a: CheckpointNode, b: CheckpointNode): boolean {
  return a.places.some(({ disk }) => b.places.some((place) => place.disk === disk))
}

function standsOn(
  survey: Survey,
  layer: SurveyedLayer | undefined,
  wanted: SurveyedLayer,
): boolean {
  const seen = new Set<string>()
  for (let at = layer; at !== undefined && !seen.has(at.key); ) {
    if (at === wanted) return true
    seen.add(at.key)
    at = at.below?.key === undefined ? undefined : survey.layers.get(at.below.key)
  }
  return false
}
