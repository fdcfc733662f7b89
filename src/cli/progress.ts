/**
 * How far it is, for people: qemu-img's percentage on standard output where `-p` asks for it, else one line on
 * standard error that appears only on a terminal and only when the work takes long.
 */

import type { Progress, ProgressListener } from '../base/progress.ts'
import { formatSize } from '../base/units.ts'
import type { Output } from './output.ts'

/** What a command says about its progress. */
export interface ProgressOptions {
  /** `-p` was given: percentages on stdout. */
  readonly percent?: boolean
  /** `-q` was given: nothing at all. */
  readonly quiet?: boolean
  /** What is being done, for the line on the terminal. */
  readonly label?: string
  /** What `done` and `total` count: bytes unless said otherwise. */
  readonly unit?: 'bytes' | 'items'
}

interface Display {
  readonly listener: ProgressListener
  /** Called once, also after a failure. */
  end(complete: boolean): Promise<void>
}

interface Outputs {
  readonly stdout: Output
  readonly stderr: Output
}

/** Does `work` and shows what its listener is told. */
export async function showProgress<T>(
  options: ProgressOptions & Outputs,
  work: (onProgress: ProgressListener) => Promise<T>,
): Promise<T> {
  const display = displayFor(options)
  let complete = false
  try {
    const result = await work(display.listener)
    complete = true
    return result
  } finally {
    await display.end(complete)
  }
}

function displayFor(options: ProgressOptions & Outputs): Display {
  if (options.quiet) return NOTHING
  if (options.percent) return percentDisplay(options.stdout)
  return options.stderr.isTerminal ? lineDisplay(options.stderr, options) : NOTHING
}

const NOTHING: Display = { listener: () => {}, end: async () => {} }

/** A new percentage is worth printing if it differs by more than this, as in qemu-img's convert. */
const LEAST_STEP = 1

function percentDisplay(stdout: Output): Display {
  let shown = Number.NEGATIVE_INFINITY
  const show = (percent: number): void => {
    if (percent < 100 && percent - shown <= LEAST_STEP) return
    if (percent === shown) return
    shown = percent
    void stdout.write(`    (${percent.toFixed(2)}/100%)\r`)
    void stdout.flush()
  }
  show(0)
  return {
    listener: ({ done, total }) => show(total > 0 ? Math.min(100, (done / total) * 100) : 100),
    end: async (complete) => {
      if (complete) show(100)
      await stdout.line()
    },
  }
}

const QUIET_MS = 400
const REDRAW_MS = 100
const CLEAR_LINE = '\r\x1b[K'

function lineDisplay(stderr: Output, options: ProgressOptions): Display {
  const start = performance.now()
  let drawn = start + QUIET_MS - REDRAW_MS
  let visible = false
  return {
    listener: (progress) => {
      const now = performance.now()
      if (now - drawn < REDRAW_MS) return
      drawn = now
      visible = true
      const line = progressLine(progress, now - start, options)
      void stderr.write(CLEAR_LINE + line.slice(0, Math.max(20, stderr.columnCount - 1)))
    },
    end: async () => {
      if (visible) await stderr.write(CLEAR_LINE)
    },
  }
}

/** One line: `convert  42%  1.2 GiB of 2.9 GiB  410 MiB/s  0:04 left`. */
export function progressLine(
  { done, total }: Progress,
  elapsedMs: number,
  options: Pick<ProgressOptions, 'label' | 'unit'>,
): string {
  const amount = options.unit === 'items' ? String : formatSize
  const share = total > 0 ? Math.min(1, done / total) : 1
  const perSecond = elapsedMs > 0 ? (done * 1000) / elapsedMs : 0
  const parts = [
    ...(options.label === undefined ? [] : [options.label]),
    `${Math.floor(share * 100)
      .toString()
      .padStart(3)}%`,
    `${amount(done)} of ${amount(total)}`,
  ]
  if (perSecond > 0) {
    if (options.unit !== 'items') parts.push(`${formatSize(Math.round(perSecond))}/s`)
    parts.push(`${clock(Math.ceil((total - done) / perSecond))} left`)
  }
  return parts.join('  ')
}

function clock(seconds: number): string {
  const two = (value: number): string => value.toString().padStart(2, '0')
  const rest = Math.max(0, seconds)
  const [hours, minutes] = [Math.floor(rest / 3600), Math.floor(rest / 60) % 60]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest % 60)}` : `${minutes}:${two(rest % 60)}`
}
