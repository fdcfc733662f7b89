/** Runs the command as a process of its own, bundled once, that a signal meets at one of its storage operations. */

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { build } from 'esbuild'

/** When, around which storage operation, which signal comes. */
export interface Death {
  readonly turn: number
  /** `half`: before a write, half of which is done. */
  readonly when: 'before' | 'half' | 'after'
  readonly signal: 'SIGKILL' | 'SIGINT' | 'SIGTERM'
}

/** How a run ended. */
export interface RunEnd {
  readonly status: number | undefined
  readonly signal: NodeJS.Signals | undefined
  readonly stderr: string
  /** How many storage operations there were; undefined where it was killed. */
  readonly count: number | undefined
}

const root = resolve(import.meta.dirname, '../..')
const HANG_MS = 60_000

/** The command, with files that kill. */
export class DeadlyCommand implements Disposable {
  readonly #folder: string
  #runs = 0

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Bundles it into a folder of its own, inside node_modules so that packages with native parts are found. */
  static async create(): Promise<DeadlyCommand> {
    const caches = join(root, 'node_modules/.cache')
    mkdirSync(caches, { recursive: true })
    const folder = mkdtempSync(join(caches, 'kills-'))
    const deadly = join(import.meta.dirname, 'deadly-files.ts')
    await build({
      absWorkingDir: root,
      entryPoints: ['src/cli/main.ts'],
      outdir: folder,
      ...{ bundle: true, splitting: true, format: 'esm', platform: 'node', target: 'node20.19' },
      ...{ external: ['koffi', 'lz4-napi'], outExtension: { '.js': '.mjs' }, logLevel: 'error' },
      alias: { 'string-width': './scripts/string-width.mjs' },
      banner: {
        js: 'import{createRequire as c}from"node:module";const require=c(import.meta.url);',
      },
      plugins: [
        {
          name: 'deadly-files',
          setup({ onResolve }) {
            onResolve({ filter: /\/node-files\.ts$/ }, ({ importer }) =>
              importer === deadly ? undefined : { path: deadly },
            )
          },
        },
      ],
    })
    return new DeadlyCommand(folder)
  }

  /** Its main file. */
  get main(): string {
    return join(this.#folder, 'main.mjs')
  }

  /** Runs it in `cwd`, killed where `death` says, or after so many milliseconds. */
  async run(cwd: string, words: readonly string[], death?: Death | number): Promise<RunEnd> {
    const countFile = join(this.#folder, `count-${this.#runs++}`)
    const env = { ...process.env, COWPOINT_COUNT: countFile, COWPOINT_DEATH: '' }
    if (typeof death === 'object') {
      env.COWPOINT_DEATH = `${death.turn}:${death.when}:${death.signal}`
    }
    const child = spawn(process.execPath, [this.main, ...words], {
      ...{ cwd, env, stdio: ['ignore', 'ignore', 'pipe'] },
    })
    let stderr = ''
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk
    })
    const end =
      typeof death === 'number' ? setTimeout(() => child.kill('SIGKILL'), death) : undefined
    const guard = setTimeout(() => child.kill('SIGQUIT'), HANG_MS)
    const [status, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(
      (done, failed) => {
        child.on('error', failed)
        child.on('close', (...end) => done(end))
      },
    )
    clearTimeout(guard)
    clearTimeout(end)
    const how = { status: status ?? undefined, signal: signal ?? undefined, stderr }
    return { ...how, count: countIn(countFile) }
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** A process that was killed has written none. */
function countIn(file: string): number | undefined {
  if (!existsSync(file)) return undefined
  const count = Number(readFileSync(file, 'utf8'))
  rmSync(file)
  return count
}
