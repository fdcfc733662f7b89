/** How `diff` prints changes: as a table for people, or as JSON, while they are found, for there may be many. */

import { formatSize } from '../../base/units.ts'
import type { ChangedExtent, DiffView } from '../../chain/index.ts'
import type { Output } from '../output.ts'

/** What was compared with what. */
export interface DiffHead {
  readonly a: DiffView
  readonly b: DiffView
  readonly content: boolean
}

/** Prints changes as they come. */
export interface ChangesPrinter {
  begin(head: DiffHead): Promise<void>
  add(list: readonly ChangedExtent[]): Promise<void>
  /** Prints the rest and returns how many bytes changed. */
  end(): Promise<number>
}

interface Form {
  begin(head: DiffHead): Promise<void>
  line(extent: ChangedExtent): Promise<void>
  end(changed: number, extentCount: number): Promise<void>
}

/** A printer; neighbours of one kind are joined. */
export function changesPrinter(stdout: Output, output: 'human' | 'json'): ChangesPrinter {
  const form = output === 'json' ? jsonForm(stdout) : textForm(stdout)
  let pending: ChangedExtent | undefined
  let changed = 0
  let extentCount = 0
  const print = async (): Promise<void> => {
    if (pending === undefined) return
    extentCount++
    changed += pending.length
    await form.line(pending)
  }
  return {
    begin: (head) => form.begin(head),
    async add(list) {
      for (const next of list) {
        if (pending?.kind === next.kind && pending.offset + pending.length === next.offset) {
          pending = { ...pending, length: pending.length + next.length }
          continue
        }
        if (pending !== undefined) await print()
        pending = next
      }
    },
    async end() {
      await print()
      await form.end(changed, extentCount)
      return changed
    },
  }
}

const COLUMN = 16

function textForm(stdout: Output): Form {
  const hex = (value: number): string => (value === 0 ? '0' : `0x${value.toString(16)}`)
  const row = (offset: string, length: string, kind: string) =>
    stdout.line(offset.padEnd(COLUMN) + length.padEnd(COLUMN) + kind)
  return {
    begin: () => row('Offset', 'Length', 'Kind'),
    line: ({ offset, length, kind }) => row(hex(offset), hex(length), kind),
    end: (changed, extentCount) =>
      stdout.line(
        `${changed} bytes (${formatSize(changed)}) in ${extentCount} ${extentCount === 1 ? 'extent' : 'extents'}`,
      ),
  }
}

function jsonForm(stdout: Output): Form {
  let separator = '\n'
  return {
    begin: ({ a, b, content }) => {
      const head = JSON.stringify({ from: viewObject(a), to: viewObject(b), exact: content })
      return stdout.write(`${head.slice(0, -1)},"extents":[`)
    },
    line: async ({ offset, length, kind }) => {
      await stdout.write(separator + JSON.stringify({ offset, length, kind }))
      separator = ',\n'
    },
    end: (changed) => stdout.write(`],"changed-bytes":${changed}}\n`),
  }
}

function viewObject({ chain, depth = 0, snapshot }: DiffView): object {
  const layer = chain.layers[depth]!
  const named = snapshot === undefined ? {} : { snapshot: snapshot.id, name: snapshot.name }
  const size = snapshot?.diskSize ?? layer.device.size
  return { filename: layer.filename, ...named, 'virtual-size': size }
}
