/** What a case of the differential test can ask for, how its input is made, and how words and complaints are read. */

import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { isUnlucky } from '../support/qemu.ts'

/** Files to start from, made at first use, once for each test file. */
export interface Scene {
  readonly title: string
  /** The folder with the files, made inside `folder` if it is not there yet. Nobody may change it. */
  in(folder: string): Promise<string>
}

/** One step that makes input: a line for `sh -e`, or a function that gets the folder. */
export type SceneStep = string | ((folder: string) => void | Promise<void>)

/** A scene of the steps, done in order in a fresh folder. Qemu's tools are on the path of the shell lines. */
export function scene(title: string, ...steps: readonly SceneStep[]): Scene {
  const made = new Map<string, Promise<string>>()
  const make = async (parent: string): Promise<string> => {
    const folder = join(parent, `scene-${sequence++}`)
    mkdirSync(folder)
    for (const step of steps) {
      if (typeof step !== 'string') await step(folder)
      else {
        runStep(step, folder)
      }
    }
    return folder
  }
  return {
    title,
    in: (parent) => {
      const folder = made.get(parent) ?? make(parent)
      made.set(parent, folder)
      return folder
    },
  }
}

function runStep(step: string, cwd: string): void {
  const env = { ...process.env, TZ: 'UTC', LC_ALL: 'C.UTF-8' }
  for (let tries = 1; ; tries++) {
    const { status, stderr, error } = spawnSync('sh', ['-e', '-c', step], {
      cwd,
      env,
      encoding: 'utf8',
    })
    if (status === 0) return
    if (tries === 20 || !isUnlucky(stderr)) throw error ?? new Error(`${step}: ${stderr}`)
  }
}

let sequence = 0

/** One comparison. */
export interface Differential {
  /** Says the claim; without it the scene and the words do. */
  readonly title?: string
  readonly scene: Scene
  /** What follows the program's name: a text with blanks and quotes as in a shell, or the words themselves. */
  readonly words: string | readonly string[]
  /** What cowpoint gets instead, for spellings that this qemu-img does not know. */
  readonly ourWords?: string | readonly string[]
  /** More runs on the same files, one after the other; every run is compared. */
  readonly further?: readonly (string | readonly string[])[]
  /** The verb may change files: each tool gets a copy, and the results are compared. */
  readonly writes?: boolean
  /** Compares standard output as bytes, not as text. */
  readonly binary?: boolean
  /**
   * How the complaints on stderr are compared: only whether there is one (the default), their words after the program's
   * name and the file's without our code, or the same line by line.
   */
  readonly stderr?: 'class' | 'words' | 'lines'
  /** Applied to the standard output of both; `maskDates` and `maskSpace` are ready-made. */
  readonly normalise?: (text: string) => string
  readonly stdin?: string | Uint8Array
  /** Only what both tools do at all is compared: where one of them refuses the image, the other may still read it. */
  readonly eitherMayRefuse?: boolean
  /** For both tools; `TZ` is UTC unless said here. */
  readonly env?: Readonly<Record<string, string>>
  /** Runs the bundled command as a process of its own instead of in this one. */
  readonly process?: boolean
  /** After a writing verb: leaves these files out of the comparison. */
  readonly ignore?: readonly string[]
  /** After a writing verb: files whose allocation (`qemu-img map` without offsets) must be equal as well. */
  readonly allocation?: readonly string[]
  /** After a writing verb: does not compare what `qemu-img info` says (clusters may lie elsewhere anyway). */
  readonly anyInfo?: boolean
}

/** What one run showed, ready to be compared. */
export interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** Points in time as `info` and `snapshot -l` print them, for snapshots that the compared verbs made. */
export function maskDates(text: string): string {
  return text
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, '<date and time>')
    .replace(/"date-(n?sec)": \d+/g, '"date-$1": 0')
}

/** Space that files take on the host. */
export function maskSpace(text: string): string {
  return text
    .replace(/^disk size: .*$/gm, 'disk size: ?')
    .replace(/"actual-size": \d+/g, '"actual-size": 0')
}

/** Splits as a shell does, with single and double quotes and nothing else. */
export function splitWords(line: string | readonly string[]): string[] {
  if (typeof line !== 'string') return [...line]
  const words: string[] = []
  for (const [word] of line.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)) {
    words.push(word.replace(/'([^']*)'|"([^"]*)"/g, (_all, single, double) => single ?? double))
  }
  return words
}

/** QEMU's warning about guessed formats is advice, not a complaint about this run. */
const GUESS_WARNING = /^WARNING: Image format was not specified.*\n(?: +.*\n)*/gm

/**
 * The complaint line by line, without the program's name, hints and our codes, and without the name of the file that it is
 * about, if that is among `words`: qemu-img names it in some complaints only. Empty for none.
 */
export function complaintLines(stderr: string, words: readonly string[]): string[] {
  const subject = (line: string): number =>
    Math.max(0, ...words.map((word) => (line.startsWith(`${word}: `) ? word.length + 2 : 0)))
  return stderr
    .replace(GUESS_WARNING, '')
    .split('\n')
    .filter((line) => line !== '' && !/^cowpoint: hint: |^Try 'qemu-img --help'/.test(line))
    .map((line) => line.replace(/^(?:qemu-img|cowpoint): /, '').replace(/ \[[A-Z0-9_]+\]$/, ''))
    .map((line) => line.slice(subject(line)))
}

/** The words of a complaint, however they are broken into lines, without the full stop. */
export function complaintWords(lines: readonly string[]): string {
  return lines.join(' ').replace(/\s+/g, ' ').replace(/\. *$/, '').trim()
}
