/**
 * Which disks there are among layers, and which layer belongs to which. A disk is known by the id in the records of its layers; what
 * has none belongs to what it stands on, or to what stands on it. Pure.
 */

import { join, relative } from 'node:path'
import { derivedId } from './identity.ts'
import type { Manifest } from './manifest.ts'
import type { Survey, SurveyedLayer } from './survey.ts'

/** A disk, and the files that are its own. */
export interface FoundDisk {
  readonly id: string
  /** What is written to; undefined where it was not found. */
  readonly active: SurveyedLayer | undefined
  readonly path: string
  /** Each after the one that it stands on. */
  readonly layers: readonly SurveyedLayer[]
  /** Overlays that stand on its layers and are no part of it. */
  readonly strangers: readonly SurveyedLayer[]
}

/** Finds the disks. Paths are absolute; a disk that has no checkpoint yet is one only if it was asked for or stands on something. */
export function findDisks(
  survey: Survey,
  manifest: Manifest,
  options: { readonly folder: string; readonly asked?: readonly string[] },
): readonly FoundDisk[] {
  const known = new Map(manifest.disks.map(({ id, path }) => [join(options.folder, path), id]))
  const asked = new Set(options.asked ?? [])
  const names = (layer: SurveyedLayer) => [layer.path, ...layer.otherPaths]
  const isAsked = (layer: SurveyedLayer) => names(layer).some((path) => asked.has(path))
  const isKnown = (layer: SurveyedLayer, id: string) =>
    names(layer).some((path) => known.get(path) === id)
  const heads = new Map<string, SurveyedLayer[]>()
  for (const layer of survey.layers.values()) {
    const isLeaf = (survey.overlays.get(layer.key) ?? []).length === 0
    if (!isLeaf || layer.record?.state === 'frozen' || layer.record?.state === 'hidden') continue
    const id = idOf(survey, layer, known) ?? derivedId('disk', relative(options.folder, layer.path))
    const isDisk = layer.below !== undefined || layer.snapshots.length > 0 || layer.record
    if (isDisk || isAsked(layer)) heads.set(id, [...(heads.get(id) ?? []), layer])
  }
  const members = membersByDisk(survey, heads)
  const disks: FoundDisk[] = []
  for (const [id, layers] of members) {
    const candidates = heads.get(id) ?? []
    const worth = (layer: SurveyedLayer): number =>
      (layer.record?.state === 'active' ? 4 : 0) +
      (isKnown(layer, id) ? 2 : 0) +
      (isAsked(layer) ? 1 : 0)
    const [active, ...others] = [...candidates].sort(
      (a, b) => worth(b) - worth(a) || (a.path < b.path ? -1 : 1),
    )
    const remembered = [...known].find(([, one]) => one === id)?.[0]
    const path = pathOf(active, known, asked) ?? remembered ?? layers[0]?.path ?? ''
    const own = layers.filter((layer) => !others.includes(layer))
    disks.push({ id, active, path, layers: own, strangers: others })
  }
  return disks.sort((a, b) => order(a) - order(b) || (a.path < b.path ? -1 : 1))
}

function order({ active, layers }: FoundDisk): number {
  return (active?.record ?? layers.find(({ record }) => record)?.record)?.disk ?? 0
}

/** The name of the active layer that people use, of those that it has. */
function pathOf(
  active: SurveyedLayer | undefined,
  known: ReadonlyMap<string, string>,
  asked: ReadonlySet<string>,
): string | undefined {
  if (active === undefined) return undefined
  const names = [active.path, ...active.otherPaths]
  return names.find((name) => known.has(name)) ?? names.find((name) => asked.has(name)) ?? names[0]
}

/** The disk that a layer says it is of, or the nearest one below it that says so. */
function idOf(
  survey: Survey,
  layer: SurveyedLayer,
  known: ReadonlyMap<string, string>,
): string | undefined {
  for (const below of chainOf(survey, layer)) {
    if (below.record !== undefined) return below.record.diskId
  }
  return known.get(layer.path)
}

/** The layer and all that it stands on, downward. */
export function chainOf(survey: Survey, layer: SurveyedLayer): SurveyedLayer[] {
  const chain: SurveyedLayer[] = []
  for (let at: SurveyedLayer | undefined = layer; at !== undefined && !chain.includes(at); ) {
    chain.push(at)
    const key: string | undefined = at.below?.key
    at = key === undefined ? undefined : survey.layers.get(key)
  }
  return chain
}

/** All layers of each disk: those that say so, and what these stand on. */
function membersByDisk(
  survey: Survey,
  heads: ReadonlyMap<string, readonly SurveyedLayer[]>,
): Map<string, SurveyedLayer[]> {
  const tops: [string, SurveyedLayer][] = []
  for (const [id, layers] of heads) for (const layer of layers) tops.push([id, layer])
  for (const layer of survey.layers.values()) {
    if (layer.record !== undefined) tops.push([layer.record.diskId, layer])
  }
  const members = new Map<string, SurveyedLayer[]>()
  for (const [id, top] of tops) {
    const list = members.get(id) ?? []
    members.set(id, list)
    for (const layer of chainOf(survey, top).reverse()) {
      const isAnothers = layer.record !== undefined && layer.record.diskId !== id
      if (!isAnothers && !list.includes(layer)) list.push(layer)
    }
  }
  return members
}
