/** Lets qemu-img look at states: one in so many is written to memory-backed files, checked, and now and then read whole. */

import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Oracle, StateUnderTest } from './explore.ts'
import { RecordingFiles } from './recording-files.ts'
import { contentsOf } from './session.ts'
import { FOLDER, type Snapshot } from './trace.ts'
import { isSound, type ViewSet, type ViewSpec } from './view-set.ts'

/** One look in so many also reads the content. */
const READ_EVERY = 16

/** The first state of a run that it looks at, so that short runs are looked at too. */
const FIRST = 7

/** How a tool ended. */
export interface ToolEnd {
  readonly status: number
  readonly text: string
}

/** Runs a tool. */
export function runTool(command: string, args: readonly string[], cwd?: string): Promise<ToolEnd> {
  return new Promise((resolve) => {
    execFile(command, args, { timeout: 60_000, cwd }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : 255
      resolve({ status, text: stdout + stderr })
    })
  })
}

/** A folder in memory, where the host has one. */
export function memoryFolder(): string {
  const root = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  return mkdtempSync(join(root, 'cowpoint-crash-'))
}

let shared: string | undefined
let folderCount = 0

/** The folder of this process, gone when it ends. */
function processFolder(): string {
  if (shared === undefined) {
    const folder = memoryFolder()
    shared = folder
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  }
  return shared
}

/** Writes the files of a state below a folder. */
export function writeState(snapshot: Snapshot, folder: string): void {
  const files = new RecordingFiles(snapshot)
  for (const [path, id] of snapshot.names) {
    const place = join(folder, path)
    if (id === FOLDER) mkdirSync(place, { recursive: true })
  }
  for (const [path, id] of snapshot.names) {
    if (id === FOLDER) continue
    const place = join(folder, path)
    mkdirSync(dirname(place), { recursive: true })
    writeFileSync(place, files.bytesOf(path))
  }
}

/** What `qemu-img check` says in one word: `clean`, `leak`, `corrupt`. */
export async function qemuVerdict(path: string): Promise<'clean' | 'leak' | 'corrupt'> {
  const { status } = await runTool('qemu-img', ['check', '-f', 'qcow2', path])
  return status === 0 ? 'clean' : status === 3 ? 'leak' : 'corrupt'
}

/** Looks at one state in `every`. */
export class QemuOracle implements Oracle, Disposable {
  readonly name = 'qemu'
  readonly #every: number
  readonly #folder = join(processFolder(), String(folderCount++))
  #looks = 0

  constructor({ every }: { every: number }) {
    this.#every = every
  }

  wants(index: number, seen: ViewSet, reason: string | undefined): boolean {
    const isTurn = index % this.#every === Math.min(FIRST, this.#every - 1)
    return isTurn && reason === undefined && isSound(seen)
  }

  async look({ snapshot, seen, run }: StateUnderTest): Promise<string | undefined> {
    const folder = join(this.#folder, String(this.#looks++))
    mkdirSync(folder, { recursive: true })
    try {
      writeState(snapshot, folder)
      for (const spec of run.workload.views) {
        const wrong = await this.#check(folder, spec, seen, run.history.leaks)
        if (wrong !== undefined) return wrong
      }
      return undefined
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }

  async #check(
    folder: string,
    spec: ViewSpec,
    seen: ViewSet,
    leaks: 'none' | 'allowed',
  ): Promise<string | undefined> {
    const view = seen.views.find(({ label }) => label === `${spec.name} active`)
    if (view === undefined || spec.format === 'raw') return undefined
    let wrong: string | undefined
    for (const place of spec.paths) {
      const path = join(folder, place)
      if (!existsSync(path)) continue
      // By itself: a base that is named with its whole path is not below this folder.
      const alone = { driver: 'qcow2', backing: null, file: { driver: 'file', filename: path } }
      const words = ['check', `json:${JSON.stringify(alone)}`]
      // QEMU looks for data files where it runs.
      const { status, text } = await runTool('qemu-img', words, folder)
      wrong =
        status === 0 || (status === 3 && leaks === 'allowed') ? undefined : `${status} ${text}`
      if (wrong === undefined && this.#looks % READ_EVERY === 0) {
        wrong = await this.#read(path, folder, view.contents)
      }
      if (wrong === undefined) return undefined
    }
    return wrong === undefined ? undefined : `${spec.name}: ${wrong}`
  }

  async #read(path: string, folder: string, contents: Int32Array): Promise<string | undefined> {
    const raw = join(folder, 'read.raw')
    const { status, text } = await runTool('qemu-img', ['convert', '-O', 'raw', path, raw], folder)
    if (status !== 0) return text.includes('backing file') ? undefined : text
    const bytes = readFileSync(raw)
    const found = await contentsOf({
      size: bytes.length,
      read: async (offset, target) => {
        target.set(bytes.subarray(offset, offset + target.length))
      },
    })
    const differs = found.findIndex((content, at) => contents[at] !== content)
    return differs < 0 ? undefined : `qemu reads sector ${differs} otherwise`
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
