/**
 * The real qemu-img as the oracle: runs the same words with `qemu-img` and with `cowpoint` on identical input and compares
 * standard output, exit status, complaints, and what became of the files. How to use it: see `describeDifferential`; what a
 * case can ask for: differential-case.ts; how files are compared: differential-effects.ts.
 */

import { execFile, execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { describeWithQemu } from '../support/qemu.ts'
import { runBuiltCli, runCli } from '../support/run-cli.ts'
import { suiteFolder, withTempFolder } from '../support/temp.ts'
import {
  complaintLines,
  complaintWords,
  type Differential,
  type Outcome,
  splitWords,
} from './differential-case.ts'
import { compareFiles, digestFolder } from './differential-effects.ts'

export type { Differential, Scene } from './differential-case.ts'
export { maskDates, maskSpace, scene } from './differential-case.ts'

/**
 * One test for each case, within a `describe`; like `describeWithQemu` where the real tool is missing.
 *
 * ```ts
 * const disk = scene('disk', 'qemu-img create -f qcow2 a.qcow2 1M', "qemu-io -c 'write 0 64k' a.qcow2")
 * describeDifferential('info', [
 *   // reads: both run in one folder, whose files must stay as they are
 *   { scene: disk, words: 'info a.qcow2' },
 *   // writes: a copy each, and the results are compared
 *   { scene: disk, words: 'snapshot -c x a.qcow2', writes: true },
 * ])
 * ```
 */
export function describeDifferential(title: string, cases: readonly Differential[]): void {
  describeWithQemu(`qemu-img and cowpoint agree: ${title}`, () => {
    const scenes = suiteFolder()
    for (const one of cases) {
      test(titleOf(one), async () => {
        await withTempFolder(async (folder) => {
          const built = await one.scene.in(scenes)
          await runCase(one, built, folder)
        })
      })
    }
  })
}

function titleOf({ title, scene, words, further }: Differential): string {
  const line = (part: string | readonly string[]): string =>
    typeof part === 'string' ? part : part.join(' ')
  return title ?? `${scene.title}: ${[words, ...(further ?? [])].map(line).join('; ')}`
}

async function runCase(one: Differential, built: string, folder: string): Promise<void> {
  const theirs = join(folder, 'theirs')
  // Readers share one folder: then even names, dates and allocated sizes must come out equal.
  const ours = one.writes === true ? join(folder, 'ours') : theirs
  for (const target of new Set([theirs, ours])) copyFolder(built, target)
  const before = digestFolder(theirs)
  const steps = [one.words, ...(one.further ?? [])]
  const oursSteps = [one.ourWords ?? one.words, ...(one.further ?? [])]
  const expected: Outcome[] = []
  const actual: Outcome[] = []
  for (const step of steps) expected.push(await runTheirs(one, splitWords(step), theirs))
  for (const step of oursSteps) actual.push(await runOurs(one, splitWords(step), ours))
  compareOutcomes(one, actual, expected)
  if (one.writes !== true) {
    expect(digestFolder(theirs), 'a reading verb changed a file').toEqual(before)
  } else if (expected.at(-1)?.status === 0) {
    await compareFiles({ theirs, ours, before }, one)
  } else {
    // A failed qemu-img may leave half a file behind; ours leaves what was there, and nothing else.
    expect([...digestFolder(ours).keys()]).toEqual([...before.keys()])
  }
}

function compareOutcomes(
  one: Differential,
  actual: readonly Outcome[],
  expected: readonly Outcome[],
): void {
  const comparable = (index: number): boolean =>
    one.eitherMayRefuse !== true || (actual[index]?.status !== 1 && expected[index]?.status !== 1)
  expect(actual.filter((_, index) => comparable(index))).toEqual(
    expected.filter((_, index) => comparable(index)),
  )
  for (const [index, { status, stderr }] of actual.entries()) {
    if (comparable(index) || status === 0) continue
    expect({ status, stderr }, 'a refusal').toEqual({
      status: 1,
      stderr: expect.stringMatching(/./),
    })
    expect(stderr).not.toBe('silent')
  }
}

/** Some damage makes qemu-img go round for ever, and take all memory. */
const PATIENCE_MS = 20_000

async function runTheirs(one: Differential, words: string[], cwd: string): Promise<Outcome> {
  const ended = await new Promise<Ended>((resolve, reject) => {
    const options = {
      cwd,
      env: { ...process.env, LC_ALL: 'C.UTF-8', TZ: 'UTC', ...one.env },
      encoding: 'buffer',
      maxBuffer: 0x1000_0000,
      timeout: PATIENCE_MS,
      killSignal: 'SIGKILL',
    } as const
    const child = execFile('qemu-img', words, options, (error, bytes, stderr) => {
      const status = child.exitCode
      if (status === null) reject(error ?? new Error(`qemu-img ${words.join(' ')} did not end`))
      else resolve({ status, stdout: bytes.toString(), stderr: stderr.toString(), bytes })
    })
    child.stdin?.on('error', () => {}) // a tool that does not read its input closes the pipe
    child.stdin?.end(one.stdin ?? '')
  })
  return outcome(one, words, ended)
}

async function runOurs(one: Differential, words: string[], cwd: string): Promise<Outcome> {
  const stdin = one.stdin === undefined ? {} : { stdin: one.stdin }
  const env = { TZ: 'UTC', ...one.env }
  const before = new Map(Object.keys(env).map((name) => [name, process.env[name]]))
  Object.assign(process.env, env)
  try {
    const run = one.process === true ? runBuiltCli : runCli
    const result = await run(words, { cwd, ...stdin })
    return outcome(one, words, { ...result, bytes: result.stdoutBytes })
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }
}

interface Ended {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  readonly bytes: Buffer
}

function outcome(
  one: Differential,
  words: readonly string[],
  { status, stdout, stderr, bytes }: Ended,
): Outcome {
  const complaint = complaintLines(stderr, words)
  return {
    status,
    stdout: one.binary === true ? bytes.toString('base64') : (one.normalise ?? same)(stdout),
    stderr: compared(complaint, one.stderr ?? 'class'),
  }
}

function compared(complaint: readonly string[], how: 'class' | 'words' | 'lines'): string {
  if (how === 'lines') return complaint.join('\n')
  if (how === 'words') return complaintWords(complaint)
  return complaint.length === 0 ? 'silent' : 'complains'
}

function same(text: string): string {
  return text
}

/** Copies a folder with its times and holes. */
function copyFolder(source: string, target: string): void {
  execFileSync('cp', ['-a', source, target])
}
