/**
 * Runs the command in tests: `runCli` within this process from the sources, quickly; `runBuiltCli` as a real process,
 * bundled once for all tests of one file.
 */

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll } from 'vitest'
import type { Io } from '../../src/cli/context.ts'
import type { Sink } from '../../src/cli/output.ts'
import { type LookUp, runProgram } from '../../src/cli/program.ts'

/** How a run ended and what it wrote. */
export interface CliResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** Standard output as it was, for images on it. */
  readonly stdoutBytes: Buffer
}

export interface CliOptions {
  /** The current folder during the run; runs that name one must not overlap. */
  readonly cwd?: string
  readonly stdin?: Uint8Array | string
  readonly signal?: AbortSignal
  /** Whether stdout and stderr say that they are terminals. */
  readonly isTerminal?: boolean
  /** The verbs that there are, if not the real ones. */
  readonly lookUp?: LookUp
}

/** Runs the words after `cowpoint` in this process. */
export async function runCli(
  words: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const [stdout, stderr] = [collector(options), collector(options)]
  const io: Io = {
    stdin: once(options.stdin),
    stdout,
    stderr,
    signal: options.signal ?? new AbortController().signal,
  }
  const before = process.cwd()
  if (options.cwd !== undefined) process.chdir(options.cwd)
  try {
    const status = await runProgram(words, io, options.lookUp)
    return resultOf(status, stdout.chunks, stderr.chunks)
  } finally {
    if (options.cwd !== undefined) process.chdir(before)
  }
}

/** Runs the bundled command in a process of its own; a process that a signal ended has status 128 + its number. */
export async function runBuiltCli(
  words: readonly string[],
  options: Omit<CliOptions, 'signal' | 'isTerminal' | 'lookUp'> = {},
): Promise<CliResult> {
  const child = spawn(process.execPath, [await builtCli(), ...words], { cwd: options.cwd })
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  child.stdin.on('error', () => {})
  child.stdin.end(options.stdin ?? '')
  const status = await new Promise<number>((done, failed) => {
    child.on('error', failed)
    child.on('close', (code, signal) => done(code ?? (signal === 'SIGKILL' ? 137 : 128)))
  })
  return resultOf(status, stdout, stderr)
}

let built: Promise<string> | undefined
let builtFolder: string | undefined

afterAll(() => {
  if (builtFolder !== undefined) rmSync(builtFolder, { recursive: true, force: true })
})

/** Bundles the command as the build does, into a folder that goes away after this test file; its main file. */
export function builtCli(): Promise<string> {
  built ??= (async () => {
    const { bundleCli } = await import('../../scripts/bundle.ts')
    // Inside node_modules, so that the packages which the bundle leaves outside are found.
    const caches = resolve(import.meta.dirname, '../../node_modules/.cache')
    mkdirSync(caches, { recursive: true })
    builtFolder = mkdtempSync(join(caches, 'cli-'))
    await bundleCli(builtFolder)
    // What the command compiles is kept, as it is for users, but not among what they keep.
    process.env.XDG_CACHE_HOME = builtFolder
    return join(builtFolder, 'main.js')
  })()
  return built
}

function collector(options: CliOptions): Sink & { readonly chunks: Buffer[] } {
  const chunks: Buffer[] = []
  return {
    chunks,
    write: async (chunk) => {
      chunks.push(Buffer.from(chunk))
    },
    isTerminal: options.isTerminal ?? false,
    columnCount: 80,
  }
}

async function* once(data: CliOptions['stdin']): AsyncGenerator<Uint8Array> {
  if (data !== undefined && data.length > 0) yield Buffer.from(data)
}

function resultOf(status: number, stdout: Buffer[], stderr: Buffer[]): CliResult {
  const bytes = Buffer.concat(stdout)
  return {
    status,
    stdout: bytes.toString(),
    stderr: Buffer.concat(stderr).toString(),
    stdoutBytes: bytes,
  }
}
