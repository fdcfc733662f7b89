/** Runs the command under test, qemu-img and other tools as processes, and times them from start to end. */

import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** How a program is started: its name as the table shows it, and the real words in front of the arguments. */
interface Program {
  readonly shown: string
  readonly words: readonly string[]
}

/** A run that is over. */
export interface Ran {
  readonly ms: number
  readonly stdout: string
}

// What makes Node slower to start has nothing to do with the command.
const { NODE_EXTRA_CA_CERTS: _, NODE_OPTIONS: __, ...inherited } = process.env
const ENVIRONMENT = { ...inherited, LC_ALL: 'C.UTF-8' }

/** Starts programs in one folder. */
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
    return this.#run({ shown: 'cowpoint', words: [process.execPath, this.#cowpoint] }, line)
  }

  /** Runs `qemu-img` with the words of a line. */
  qemuImg(line: string): Ran {
    return this.#run({ shown: 'qemu-img', words: ['qemu-img'] }, line)
  }

  /** Runs any other tool. */
  tool(line: string): Ran {
    const [name = '', ...rest] = line.split(' ')
    const program = name === 'node' ? process.execPath : name
    return this.#run({ shown: name, words: [program] }, rest.join(' '))
  }

  /** Standard output goes to a file, as it would in a script: a pipe would time its reader too. */
  #run({ shown, words }: Program, line: string): Ran {
    const [file = '', ...first] = words
    const output = join(this.folder, 'stdout')
    const descriptor = openSync(output, 'w')
    const start = performance.now()
    const result = spawnSync(file, [...first, ...line.split(' ')], {
      cwd: this.folder,
      env: ENVIRONMENT,
      stdio: ['ignore', descriptor, 'pipe'],
    })
    const ms = performance.now() - start
    closeSync(descriptor)
    if (result.error !== undefined) throw result.error
    if (result.status !== 0) {
      throw new Error(`${shown} ${line} ended with ${result.status}: ${result.stderr}`)
    }
    return { ms, stdout: readFileSync(output, 'utf8') }
  }
}
