/** Gathers a plan and the operation that it stands for, step by step, so that both always say the same. */

import { basename, dirname, extname, join } from 'node:path'
import { statOf } from '../chain/index.ts'
import type { CheckpointCatalogue } from './catalogue.ts'
import { fileWord, newId } from './identity.ts'
import type { Operation, Step } from './journal-schema.ts'
import type { Plan, PlannedOperation, PlannedTouch, PlannedView } from './plan.ts'
import { encodeRecord, type LayerRecord } from './record.ts'
import { TEMPORARY_SUFFIX } from './survey.ts'

/** What the plan of a verb begins with. */
export interface DraftWords {
  readonly verb: string
  readonly checkpoint?: { readonly id: string; readonly name: string } | undefined
  readonly notes?: Operation['notes']
}

/** A plan in the making. Paths are absolute. */
export class PlanDraft {
  /** Of the operation. */
  readonly id = newId()
  readonly catalogue: CheckpointCatalogue
  readonly #words: DraftWords
  readonly #before: Step[] = []
  readonly #counting: Step[] = []
  readonly #back: Step[] = []
  readonly #disks: { id: string; path: string }[] = []
  readonly #beforeWords: string[] = []
  readonly #countingWords: string[] = []
  readonly #touches: PlannedTouch[] = []
  readonly #views: PlannedView[] = []
  readonly #holds: string[] = []
  readonly #taken = new Set<string>()
  bytesRead = 0
  bytesWritten = 0
  /** Bytes of space that steps need which follow on the one that counts; taken beforehand. */
  reserve = 0
  alternatives: Plan['alternatives']

  constructor(catalogue: CheckpointCatalogue, words: DraftWords) {
    this.catalogue = catalogue
    this.#words = words
  }

  /** A step that can still be taken back, by `back`. */
  prepare(step: Step, words: string, back: readonly Step[] = []): void {
    this.#before.push(step)
    if (words !== '') this.#beforeWords.push(words)
    // The last step is taken back first; the steps of one `back` are in order.
    this.#back.unshift(...back)
  }

  /** A step that counts: after the first of these there is only the way forward. */
  count(step: Step, words: string, back: readonly Step[] = []): void {
    this.#counting.push(step)
    if (words !== '') this.#countingWords.push(words)
    this.#back.unshift(...back)
  }

  /** Makes the steps that counted so far ones that can be taken back, but for the last. */
  countLastOnly(): void {
    this.#before.push(...this.#counting.splice(0, this.#counting.length - 1))
  }

  touch(path: string, action: PlannedTouch['action']): void {
    this.#touches.push({ path, action })
  }

  view(name: string, effect: string): void {
    this.#views.push({ name, effect })
  }

  hold(path: string): void {
    this.#holds.push(path)
  }

  /** Where the catalogue is to find a disk afterwards. */
  moveDisk(id: string, path: string): void {
    this.#disks.push({ id, path: this.relative(path) })
  }

  relative(path: string): string {
    return this.catalogue.toRelative(path)
  }

  /** A path beside `path` for a layer that is called after `name`; nothing is there, and no other step uses it. */
  async besides(path: string, name: string): Promise<string> {
    const extension = extname(path)
    const stem = shortened(basename(path, extension), 120)
    const word = shortened(fileWord(name), 60)
    for (let tries = 1; ; tries++) {
      const more = tries === 1 ? '' : `-${tries}`
      const found = join(dirname(path), `${stem}.${word}${more}${extension}`)
      if (!this.#taken.has(found) && (await statOf(this.catalogue.files, found)) === undefined) {
        this.#taken.add(found)
        return found
      }
    }
  }

  /** Where a layer is built that will be at `path`. */
  temporary(path: string): string {
    const name = `${shortened(basename(path), 180)}.${this.id.slice(0, 8)}${TEMPORARY_SUFFIX}`
    return join(dirname(path), name)
  }

  /** A path in the trash for the file at `path`. */
  async inTrash(path: string): Promise<string> {
    const name = `${this.id.slice(0, 8)}-${shortened(basename(path), 180)}`
    return join(this.catalogue.trashFolder, name)
  }

  /** The plan and its operation; none where there is no step and nothing to note. */
  finish(): PlannedOperation {
    const { verb, checkpoint, notes } = this.#words
    const steps = [...this.#before, ...this.#counting]
    const operation: Operation = {
      ...{ id: this.id, verb, steps, point: this.#before.length, back: this.#back },
      ...(checkpoint === undefined ? {} : { checkpoint }),
      ...(this.reserve === 0 ? {} : { reserve: this.reserve }),
      ...(notes === undefined ? {} : { notes }),
      ...(this.#disks.length === 0 ? {} : { disks: this.#disks }),
    }
    const isEmpty = steps.length === 0 && notes === undefined
    const plan: Plan = {
      ...{ verb, checkpoint, touches: this.#touches, views: this.#views },
      steps: [...this.#beforeWords, ...this.#countingWords],
      bytesRead: this.bytesRead,
      bytesWritten: this.bytesWritten,
      peakSpace: this.bytesWritten,
      ...(this.alternatives === undefined ? {} : { alternatives: this.alternatives }),
    }
    return { plan, operation: isEmpty ? undefined : operation, holds: this.#holds }
  }
}

/** The begin of a name, of at most so many bytes: host file systems have room for 255. */
function shortened(name: string, byteCount: number): string {
  let text = name
  while (Buffer.byteLength(text) > byteCount) text = [...text].slice(0, -1).join('')
  return text
}

/** A record as steps have it. */
export function recordHex(record: LayerRecord | undefined): string | null {
  return record === undefined ? null : Buffer.from(encodeRecord(record)).toString('hex')
}
