/** `cowpoint checkpoint diff`: which ranges changed from one checkpoint to another, or to now. */

import { formatSize } from '../../../base/units.ts'
import { type DiskChanges, diffCheckpoints } from '../../../checkpoint/index.ts'
import { defineCommand } from '../../command.ts'
import { texts, toggle } from '../../options.ts'
import type { Output } from '../../output.ts'
import { catalogueOptions, openCatalogue } from './catalogue-options.ts'

/** The verb `checkpoint diff`. */
export const command = defineCommand({
  name: 'checkpoint diff',
  summary: 'show which ranges changed from one checkpoint to another',
  manners: 'cowpoint',
  options: {
    content: toggle({
      flags: '--content',
      summary: 'read what may have changed and show only what really differs',
    }),
    disk: texts({
      flags: '--disk',
      placeholder: 'path',
      summary: 'the disks; those known here if left out; may be repeated',
    }),
    quiet: toggle({ flags: '-q --quiet', summary: 'print only how much changed' }),
    ...catalogueOptions,
  },
  positionals: [
    { name: 'checkpoint', summary: 'name or @id' },
    { name: 'other', summary: 'another one; what the disks are now if left out', optional: true },
  ],
  notes: [
    'Tables alone are read: every change is shown, and perhaps more, in whole clusters. With --content it is exact.',
  ],
  examples: [
    {
      line: 'cowpoint checkpoint diff before-update --disk disk.qcow2',
      summary: 'what has changed since',
    },
  ],
  run: async ({ options, positionals: [from = '', to] }, context) => {
    const { content, disk: disks, json, quiet } = options
    const { signal, stdout } = context
    const catalogue = await openCatalogue(options, disks)
    const printer = json ? new JsonChanges(stdout) : new TextChanges(stdout, quiet)
    const display = { label: 'diff', quiet: quiet || stdout.isTerminal }
    await context.withProgress(display, async (onProgress) => {
      const work = { from, to, content, signal, onProgress }
      for await (const changes of diffCheckpoints(catalogue, work)) await printer.add(changes)
    })
    await printer.end()
    return 0
  },
})

/** Lines of a disk, then how much of it changed. */
class TextChanges {
  readonly #stdout: Output
  readonly #quiet: boolean
  #disk: string | undefined
  #changed = 0

  constructor(stdout: Output, quiet: boolean) {
    this.#stdout = stdout
    this.#quiet = quiet
  }

  async add({ disk, extents }: DiskChanges): Promise<void> {
    if (disk !== this.#disk) {
      await this.end()
      this.#disk = disk
      if (!this.#quiet) await this.#stdout.line(disk)
    }
    for (const { offset, length, kind } of extents) {
      this.#changed += length
      if (this.#quiet) continue
      const place = `0x${offset.toString(16)}`.padEnd(14)
      await this.#stdout.line(`  ${place}${`0x${length.toString(16)}`.padEnd(14)}${kind}`)
    }
  }

  async end(): Promise<void> {
    if (this.#disk === undefined) return
    await this.#stdout.line(`${this.#disk}: ${formatSize(this.#changed)} changed`)
    this.#disk = undefined
    this.#changed = 0
  }
}

/** One object, written as it comes. */
class JsonChanges {
  readonly #stdout: Output
  #disk: string | undefined
  #changed = 0
  #count = 0
  #text = '{"disks": ['

  constructor(stdout: Output) {
    this.#stdout = stdout
  }

  async add({ disk, extents }: DiskChanges): Promise<void> {
    if (disk !== this.#disk) {
      await this.#endDisk(', ')
      this.#disk = disk
      this.#text += `{"path": ${JSON.stringify(disk)}, "changes": [`
    }
    for (const { offset, length, kind } of extents) {
      this.#changed += length
      const comma = this.#count++ === 0 ? '' : ', '
      await this.#write(`${comma}{"offset": ${offset}, "length": ${length}, "kind": "${kind}"}`)
    }
  }

  async end(): Promise<void> {
    await this.#endDisk('')
    await this.#write(']}\n')
  }

  async #endDisk(then: string): Promise<void> {
    if (this.#disk === undefined) return
    await this.#write(`], "changed-bytes": ${this.#changed}}${then}`)
    this.#disk = undefined
    this.#changed = 0
    this.#count = 0
  }

  async #write(text: string): Promise<void> {
    const all = this.#text + text
    this.#text = ''
    await this.#stdout.write(all)
  }
}
