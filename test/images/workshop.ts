/**
 * Where one image is made: a folder, the real tools run in it, and the list of what was run (for the manifest).
 * A recipe is a function over a workshop.
 */

import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ImageBytes, type Patch, pokeFile } from '../support/poke.ts'
import { pattern } from './pattern.ts'

/** How one whole image is made. */
export interface Recipe {
  readonly name: string
  readonly shows: string
  /** The file to open; `disk.qcow2` unless said otherwise. */
  readonly file?: string
  /** Passphrase, for encrypted images. */
  readonly secret?: string
  readonly make: (shop: Workshop) => void
}

const FIRST_SNAPSHOT_DATE = 1_700_000_000

/** One folder in which a recipe works. Every step throws unless the tool worked. */
export class Workshop {
  readonly folder: string
  readonly commands: string[] = []
  readonly #scratch = new Set<string>()

  constructor(folder: string) {
    this.folder = folder
  }

  /** Runs `qemu-img` with words split at spaces; arguments that hold spaces come after, as they are. */
  img(words: string, ...more: string[]): void {
    this.#run('qemu-img', [...words.split(' '), ...more])
  }

  /** Runs qemu-io commands on the file in one session. */
  io(file: string, ...commands: string[]): void {
    this.#run('qemu-io', [...commands.flatMap((command) => ['-c', command]), file])
  }

  /** Runs qemu-io on something that takes options, such as an image with a key. */
  ioWith(words: string, ...more: string[]): void {
    this.#run('qemu-io', [...words.split(' '), ...more])
  }

  /** Runs qemu-io commands, then kills it in the act, so that nothing is tidied up. */
  ioAndCrash(file: string, ...commands: string[]): void {
    const args = [...commands, 'abort'].flatMap((command) => ['-c', command])
    this.#run('qemu-io', [...args, file], { mayDie: true })
  }

  /** Makes a file of seeded bytes; a scratch file is gone when the image is done. */
  source(file: string, seed: number, size: number, keep: 'keep' | 'scratch' = 'scratch'): void {
    writeFileSync(join(this.folder, file), pattern(seed, size))
    if (keep === 'scratch') this.#scratch.add(file)
    this.commands.push(`pattern(${seed}, ${size}) > ${file}`)
  }

  /** Removes the file when the image is done. */
  scratch(file: string): void {
    this.#scratch.add(file)
  }

  /** Changes bytes by name, for what the tools cannot be talked into. */
  poke(file: string, ...patches: Patch[]): void {
    pokeFile(join(this.folder, file), patches)
    this.commands.push(...patches.map((patch) => `poke ${file} ${JSON.stringify(patch)}`))
  }

  /** The image as it lies there now. */
  bytes(file: string): ImageBytes {
    return ImageBytes.load(join(this.folder, file))
  }

  /** Writes a file that was built by other means, and says how. */
  put(file: string, bytes: Uint8Array, how: string): void {
    writeFileSync(join(this.folder, file), bytes)
    this.commands.push(`${how} > ${file}`)
  }

  /** Removes scratch files and gives snapshots dates of their own choosing, so that a second run makes equal files. */
  finish(): readonly string[] {
    for (const file of this.#scratch) rmSync(join(this.folder, file), { force: true })
    const files = readdirSync(this.folder).sort()
    for (const file of files) {
      const image = this.bytes(file)
      if (image.bytes.length < 72 || image.header('magic') !== 0x514649fb) continue
      const count = image.header('nb_snapshots')
      for (let index = 0; index < count; index++) {
        const date = FIRST_SNAPSHOT_DATE + index * 3600
        image.apply({ snapshot: index, field: 'date_sec', value: date })
        image.apply({ snapshot: index, field: 'date_nsec', value: 0 })
      }
      if (count > 0) writeFileSync(join(this.folder, file), image.bytes)
    }
    return files
  }

  #run(tool: string, args: readonly string[], options: { mayDie?: boolean } = {}): void {
    const shown = args.map((arg) => (/^[\w.,=:/+-]+$/.test(arg) ? arg : `'${arg}'`))
    this.commands.push(`${tool} ${shown.join(' ')}`)
    const result = spawnSync(tool, args, { cwd: this.folder, encoding: 'utf8' })
    const failed =
      tool === 'qemu-io' && /failed|mismatch|invalid/i.test(result.stdout + result.stderr)
    if ((result.status === 0 && !failed) || options.mayDie === true) return
    throw new Error(`${tool} ${args.join(' ')}\n${result.stdout}${result.stderr}`)
  }
}

/** The bytes of a file in the workshop. */
export function readWorkshopFile(shop: Workshop, file: string): Buffer {
  return readFileSync(join(shop.folder, file))
}
