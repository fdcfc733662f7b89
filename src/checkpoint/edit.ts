/** Changes what a checkpoint is called, or what the catalogue says about it. What it holds stays. */

import { UsageError } from '../base/errors.ts'
import type { CatalogueView, CheckpointCatalogue } from './catalogue.ts'
import { checkCheckpointName } from './identity.ts'
import { findCheckpoint } from './lookup.ts'
import type { PlannedOperation } from './plan.ts'
import { PlanDraft, recordHex } from './plan-draft.ts'
import { planRemembering } from './plan-remembering.ts'
import { recordOf } from './record.ts'
import type { Survey, SurveyedLayer } from './survey.ts'
import type { CheckpointPlace } from './tree.ts'
import { runVerb, type VerbOptions, type VerbResult } from './verb.ts'

/** Which checkpoint is renamed, and to what. */
export interface RenameOptions extends VerbOptions {
  /** Name or `@id`. */
  readonly checkpoint: string
  readonly name: string
}

/** What the catalogue is to say of a checkpoint; what is left out stays. */
export interface DescribeOptions extends VerbOptions {
  /** Name or `@id`. */
  readonly checkpoint: string
  readonly description?: string | undefined
  /** Labels that are set; an empty text takes one away. */
  readonly labels?: Readonly<Record<string, string>> | undefined
}

/** Gives a checkpoint another name, in its images. Files keep theirs. */
export function renameCheckpoint(
  catalogue: CheckpointCatalogue,
  options: RenameOptions,
): Promise<VerbResult> {
  return runVerb(catalogue, (view) => planRename(catalogue, view, options), options)
}

/** Changes description and labels. */
export function describeCheckpoint(
  catalogue: CheckpointCatalogue,
  options: DescribeOptions,
): Promise<VerbResult> {
  return runVerb(catalogue, (view) => planDescription(catalogue, view, options), options)
}

function planDescription(
  catalogue: CheckpointCatalogue,
  { trees }: CatalogueView,
  { checkpoint, description, labels = {} }: DescribeOptions,
): PlannedOperation {
  const { node } = findCheckpoint(trees, checkpoint, catalogue.images)
  const { id, name, note } = node
  const kept = Object.entries({ ...note.labels, ...labels }).filter(([, text]) => text !== '')
  const text = description ?? note.description
  const next = {
    ...(text === undefined ? {} : { description: text }),
    labels: Object.fromEntries(kept),
    ...(note.stateFiles === undefined ? {} : { stateFiles: note.stateFiles }),
  }
  return new PlanDraft(catalogue, {
    verb: 'describe',
    checkpoint: { id, name },
    notes: { [id]: next },
  }).finish()
}

async function planRename(
  catalogue: CheckpointCatalogue,
  { trees, survey }: CatalogueView,
  { checkpoint, name }: RenameOptions,
): Promise<PlannedOperation> {
  checkCheckpointName(name)
  const { node, tree } = findCheckpoint(trees, checkpoint, catalogue.images)
  const taken = [...tree.nodes.values()].find((one) => one.name === name && !one.isHidden)
  if (taken !== undefined && taken !== node) {
    throw new UsageError('CHECKPOINT_EXISTS', `checkpoint '${name}' exists already`, {
      context: { checkpoint: name, id: taken.id },
    })
  }
  const { id, note } = node
  const words = { verb: 'rename', checkpoint: { id, name }, notes: { [id]: note } }
  const draft = new PlanDraft(catalogue, words)
  if (node.name === name) return new PlanDraft(catalogue, { ...words, notes: undefined }).finish()
  if (node.isForeign) {
    throw new UsageError(
      'CHECKPOINT_FOREIGN',
      `'${node.name}' was made by another program and has no record: 'checkpoint adopt' gives it one`,
      { context: { checkpoint: node.name } },
    )
  }
  const title = { id, name, before: node.name }
  const changed = node.places.flatMap((place) => planTitle(draft, survey, place, title))
  // What can be taken back is: all places have the name, or none.
  draft.countLastOnly()
  await planRemembering(draft, survey, changed, ({ path }) => path)
  draft.view(node.name, `is called ${name}`)
  return draft.finish()
}

/** Steps that write the name; returns the layers that they change. */
function planTitle(
  draft: PlanDraft,
  survey: Survey,
  { layer, snapshot }: CheckpointPlace,
  { id, name, before }: { readonly id: string; readonly name: string; readonly before: string },
): readonly SurveyedLayer[] {
  const path = draft.relative(layer.path)
  const words = `write the new name into ${path}`
  if (snapshot !== undefined) {
    draft.count({ do: 'retitle', path, id, name }, words, [
      { do: 'retitle', path, id, name: before },
    ])
    draft.touch(layer.path, 'change')
    return [layer]
  }
  const { record } = layer
  if (record !== undefined) {
    draft.count({ do: 'mark', path, record: recordHex({ ...record, name }) }, words, [
      { do: 'mark', path, record: recordHex(record) },
    ])
    draft.touch(layer.path, 'change')
    return [layer]
  }
  const changed: SurveyedLayer[] = []
  // The overlays on a raw layer carry its record.
  for (const overlay of survey.overlays.get(layer.key) ?? []) {
    const own = overlay.header && recordOf(overlay.header.extensions)
    if (own?.base?.id !== id) continue
    const at = draft.relative(overlay.path)
    const next = { ...own, base: { ...own.base, name } }
    draft.count(
      { do: 'mark', path: at, record: recordHex(next) },
      `write the new name into ${at}`,
      [{ do: 'mark', path: at, record: recordHex(own) }],
    )
    draft.touch(overlay.path, 'change')
    changed.push(overlay)
  }
  return changed
}
