/** Runs the command under test, qemu-img and other tools as processes, and times them from start to end. */

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A run that is over. */
export interface Ran {
  readonly ms: number
  readonly stdout: string
}

/** A run that was looked at while it ran, and is over. */
export interface Watched {
  readonly stdout: string
  /** Bytes; undefined where the system does not tell. */
  readonly peakMemory: number | undefined
}

// What makes Node slower to start has nothing to do with the command.
const { NODE_EXTRA_CA_CERTS: _, NODE_OPTIONS: __, ...inherited } = process.env
const ENVIRONMENT = { ...inherited, LC_ALL: 'C.UTF-8' }

/** From one look at the memory of a process to the next. */
const LOOK_MS = 3

/** Starts programs in one folder. A run that does not exit 0 throws. */
export class Tools {
  readonly folder: string
  readonly #cowpoint: string
  readonly #environment: NodeJS.ProcessEnv

  /** `cowpoint` is the main file of the built command. */
  constructor(folder: string, cowpoint: string) {
    this.folder = folder
    this.#cowpoint = cowpoint
    // What the command keeps of its compiled code goes with the folder.
    this.#environment = { ...ENVIRONMENT, XDG_CACHE_HOME: folder }
  }

  /** Runs `cowpoint` with the words of a line. */
  ours(line: string): Ran {
    return this.tool(`cowpoint ${line}`)
  }

  /** Runs `qemu-img` with the words of a line. */
  qemuImg(line: string): Ran {
    return this.tool(`qemu-img ${line}`)
  }

  /** Runs any other tool; the first word is its name. */
  tool(line: string): Ran {
    const [name = '', ...words] = line.split(' ')
    return this.words(name, words)
  }

  /** Runs any tool, and says how many bytes of memory it held at most, to within what it takes in the last few milliseconds. */
  async watched(line: string): Promise<Watched> {
    const [name = '', ...words] = line.split(' ')
    const [program, before] = this.#program(name)
    const output = join(this.folder, 'stdout')
    const descriptor = openSync(output, 'w')
    const child = spawn(program, [...before, ...words], {
      ...{ cwd: this.folder, env: this.#environment },
      stdio: ['ignore', descriptor, 'ignore'],
    })
    closeSync(descriptor)
    let peak: number | undefined
    const timer = setInterval(() => {
      peak = peakOf(child.pid ?? 0) ?? peak
    }, LOOK_MS)
    try {
      const [status] = await once(child, 'exit')
      if (status !== 0) throw new Error(`${line} ended with ${status}`)
      return { stdout: readFileSync(output, 'utf8'), peakMemory: peak }
    } finally {
      clearInterval(timer)
    }
  }

  /** Runs a tool. Its standard output goes to a file: a pipe would time its reader too. */
  words(name: string, words: readonly string[]): Ran {
    const output = join(this.folder, 'stdout')
    const descriptor = openSync(output, 'w')
    const [program, before] = this.#program(name)
    const start = performance.now()
    const result = spawnSync(program, [...before, ...words], {
      cwd: this.folder,
      env: this.#environment,
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

  /** What is started for a name, and the words before its own. */
  #program(name: string): readonly [string, readonly string[]] {
    if (name === 'cowpoint') return [process.execPath, [this.#cowpoint]]
    return [name === 'node' ? process.execPath : name, []]
  }
}

/** The high-water mark of a process that still runs, where the system keeps one. */
function peakOf(pid: number): number | undefined {
  try {
    const [, kib] = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
    return kib === undefined ? undefined : Number(kib) * 1024
  } catch {
    return undefined
  }
}
