/** Runs the command under test, qemu-img and other tools as processes, and times them from start to end. */

import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A run that is over. */
export interface Ran {
  readonly ms: number
  readonly stdout: string
}

// What makes Node slower to start has nothing to do with the command.
const { NODE_EXTRA_CA_CERTS: _, NODE_OPTIONS: __, ...inherited } = process.env
const ENVIRONMENT = { ...inherited, LC_ALL: 'C.UTF-8' }

/** Starts programs in one folder. A run that does not exit 0 throws. */
export class Tools {
  readonly folder: string
  readonly #cowpoint: string

  /** `cowpoint` is the main file of the built command. */
  constructor(folder: string, cowpoint: string) {
    this.folder = folder
    this.#cowpoint = cowpoint
  }

  /** Runs `cowpoint` with the words of a line. */
  ours(line: string): Ran {
    return this.words('node', [this.#cowpoint, ...line.split(' ')])
  }

  /** Runs `qemu-img` with the words of a line. */
  qemuImg(line: string): Ran {
    return this.words('qemu-img', line.split(' '))
  }

  /** Runs any other tool; the first word is its name. */
  tool(line: string): Ran {
    const [name = '', ...words] = line.split(' ')
    return this.words(name, words)
  }

  /** Runs a tool. Its standard output goes to a file: a pipe would time its reader too. */
  words(name: string, words: readonly string[]): Ran {
    const output = join(this.folder, 'stdout')
    const descriptor = openSync(output, 'w')
    const program = name === 'node' ? process.execPath : name
    const start = performance.now()
    const result = spawnSync(program, words, {
      cwd: this.folder,
      env: ENVIRONMENT,
      stdio: ['ignore', descriptor, 'pipe'],
    })
    const ms = performance.now() - start
    closeSync(descriptor)
    const stdout = readFileSync(output, 'utf8')
    if (result.error !== undefined) throw result.error
    if (result.status !== 0) {
      const texts = `${stdout.slice(0, 500)}${result.stderr}`
      throw new Error(`${name} ${words.join(' ')} ended with ${result.status}: ${texts}`)
    }
    return { ms, stdout }
  }
}
