/**
 * Runs the real qemu-img, qemu-io and qemu-nbd, which tests use as the truth about the format and the texts.
 * Says when they are missing: tests against them are not run then, except where CI is set, where that is a failure.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { describe, it } from 'vitest'

/** How a tool ended and what it printed. */
export interface ToolResult {
  /** Exit status; 128 + signal number is not computed: a killed tool has `status` -1 and a `signal`. */
  readonly status: number
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  /** Standard output as it came, for raw data. */
  readonly bytes: Buffer
}

export interface ToolOptions {
  readonly cwd?: string
  /** Given to the tool on standard input. */
  readonly input?: string | Uint8Array
  readonly env?: Readonly<Record<string, string>>
  /** After this the tool is killed (`signal` says so); without it, never. */
  readonly timeoutMs?: number
}

/** Runs `qemu-img` with `args`; never rejects because of an exit status. */
export function qemuImg(args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  return runTool('qemu-img', args, options)
}

/** Runs `qemu-img` and returns its standard output; rejects with its texts unless it exits 0. */
export async function qemuImgOk(
  args: readonly string[],
  options: ToolOptions = {},
): Promise<string> {
  let result = await qemuImg(args, options)
  for (let tries = 1; tries < 20 && isUnlucky(result.stderr); tries++) {
    result = await qemuImg(args, options)
  }
  if (result.status !== 0) throw new Error(describeFailure('qemu-img', args, result))
  return result.stdout
}

/** QEMU measures its key derivation when it makes a LUKS image, and gives up where the machine is too busy for that. */
export function isUnlucky(stderr: string): boolean {
  return stderr.includes('Unable to get accurate CPU usage')
}

/** How `qemuIo` opens the image. */
export interface IoOptions extends ToolOptions {
  /** Image format; probed when left out. */
  readonly format?: string
  readonly readOnly?: boolean
}

/** Runs qemu-io commands (`write -P 1 0 64k`) on `image`, one after the other, in one session. */
export function qemuIo(
  image: string,
  commands: readonly string[],
  options: IoOptions = {},
): Promise<ToolResult> {
  return runTool('qemu-io', ioArguments(image, commands, options), options)
}

/** Runs qemu-io commands and rejects unless all of them worked: exit 0 and no complaint in the output. */
export async function qemuIoOk(
  image: string,
  commands: readonly string[],
  options: IoOptions = {},
): Promise<string> {
  const result = await qemuIo(image, commands, options)
  if (result.status !== 0 || /failed|mismatch|invalid|error/i.test(result.stdout + result.stderr)) {
    throw new Error(describeFailure('qemu-io', ioArguments(image, commands, options), result))
  }
  return result.stdout
}

function ioArguments(image: string, commands: readonly string[], options: IoOptions): string[] {
  return [
    ...(options.format === undefined ? [] : ['-f', options.format]),
    ...(options.readOnly === true ? ['-r'] : []),
    ...commands.flatMap((command) => ['-c', command]),
    image,
  ]
}

/** A running qemu-nbd. */
export interface NbdProcess extends AsyncDisposable {
  readonly child: ChildProcess
  /** Ends the server and waits until it is gone. */
  stop(): Promise<void>
}

/** Starts `qemu-nbd` serving on the Unix socket `socket` and waits until it listens. */
export async function qemuNbd(
  socket: string,
  args: readonly string[],
  options: { readonly cwd?: string } = {},
): Promise<NbdProcess> {
  const pidFile = `${socket}.pid`
  const child = spawn('qemu-nbd', ['-k', socket, '--pid-file', pidFile, '-t', ...args], {
    ...options,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  while (!existsSync(pidFile)) {
    if (child.exitCode !== null) throw new Error(`qemu-nbd ${args.join(' ')}: ${stderr}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
  }
  return { child, stop, [Symbol.asyncDispose]: stop }
}

const found = new Map<string, boolean>()

function hasTool(tool: string): boolean {
  const known = found.get(tool) ?? spawnSync(tool, ['--version']).status === 0
  found.set(tool, known)
  return known
}

/** Whether qemu-img, qemu-io and the other `tools` can be run here; each is looked up once. */
export function hasQemu(...tools: readonly string[]): boolean {
  return ['qemu-img', 'qemu-io', ...tools].every(hasTool)
}

/** Whether this is a run in which a missing peer is a failure. */
export function isCi(): boolean {
  return !['', '0', 'false'].includes(process.env.CI ?? '')
}

/**
 * A `describe` for tests that need the real tools: qemu-img, qemu-io, and those named after it. Without them: one skipped
 * test that says so; where CI is set it throws, so that the file fails.
 */
export function describeWithQemu(name: string, fn: () => void, ...others: readonly string[]): void {
  describeWhere(hasQemu(...others), name, ['qemu-img', 'qemu-io', ...others], fn)
}

/** The same for whatever else a test needs, of which the caller says whether it is there. */
export function describeWhere(
  isThere: boolean,
  name: string,
  tools: readonly string[],
  fn: () => void,
): void {
  if (isThere) {
    describe(name, fn)
  } else if (isCi()) {
    throw new Error(`${name}: CI is set, and one of these is missing: ${tools.join(', ')}`)
  } else {
    describe(name, () => it.skip(`not run: needs ${tools.join(', ')}`, () => {}))
  }
}

function runTool(tool: string, args: readonly string[], options: ToolOptions): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(tool, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC', ...options.env },
      stdio: 'pipe',
      ...(options.timeoutMs === undefined
        ? {}
        : { timeout: options.timeoutMs, killSignal: 'SIGKILL' as const }),
    })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
    child.stdin.on('error', () => {}) // a tool that does not read its input closes the pipe
    child.stdin.end(options.input ?? '')
    child.once('error', reject)
    child.once('close', (code, signal) => {
      const bytes = Buffer.concat(out)
      const stderr = Buffer.concat(err).toString()
      resolve({ status: code ?? -1, signal, stdout: bytes.toString(), stderr, bytes })
    })
  })
}

function describeFailure(tool: string, args: readonly string[], result: ToolResult): string {
  return `${tool} ${args.join(' ')} ended with ${result.signal ?? result.status}\n${result.stdout}${result.stderr}`
}
