/** How outcomes are shown: a table, with the command lines and conditions below it, and what it was measured on. */

import { cpus, release, totalmem } from 'node:os'
import { type Growth, marginalCosts } from './growth.ts'
import type { Outcome, Times } from './pairs.ts'
import type { Tools } from './tools.ts'

/** What the numbers depend on. */
export interface Surroundings {
  readonly date: string
  readonly cpu: string
  readonly coreCount: number
  readonly memoryGib: number
  readonly kernel: string
  readonly fileSystem: string
  readonly node: string
  readonly cowpoint: string
  readonly qemuImg: string
  readonly pairCount: number
  readonly scale: number
}

/** Looks around. */
export function surroundings(
  tools: Tools,
  options: { readonly pairCount: number; readonly scale: number },
): Surroundings {
  const firstLine = (text: string) => text.split('\n')[0]?.trim() ?? ''
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0]?.model ?? 'unknown',
    coreCount: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    fileSystem: tools.tool('stat -f -c %T .').stdout.trim(),
    node: process.version,
    cowpoint: firstLine(tools.ours('--version').stdout),
    qemuImg: firstLine(tools.qemuImg('--version').stdout),
    pairCount: options.pairCount,
    scale: options.scale,
  }
}

/** What stands above the rows: versions and machine. */
export function headLines(around: Surroundings): string[] {
  const { cpu, coreCount, memoryGib, kernel, fileSystem } = around
  return [
    `${around.date}: ${around.cowpoint}, Node ${around.node}, ${around.qemuImg}`,
    `${cpu}, ${coreCount} cores, ${memoryGib} GiB, Linux ${kernel}, ${fileSystem}`,
    ...(around.scale === 1 ? [] : [`SIZES TIMES ${around.scale}: not those of the table`]),
  ]
}

/** The whole report as Markdown. */
export function reportText(around: Surroundings, outcomes: readonly Outcome[]): string {
  const pairs = `${around.pairCount} pairs a row; median, ± half the distance between the quartiles`
  const table = tableLines([TITLES, ...outcomes.map(cells)])
  return [...headLines(around), pairs, '', ...table, '', ...outcomes.map(details)].join('\n')
}

/** The row of one outcome by itself: what is known when a run ends before its end. */
export function rowText(outcome: Outcome): string {
  return `| ${cells(outcome).join(' | ')} |`
}

const TITLES = ['job', 'ours', 'theirs', 'ours/theirs', 'limit', 'MiB']

function cells(outcome: Outcome): string[] {
  return [
    outcome.job,
    timeText(outcome.ours, outcome.unit),
    timeText(outcome.theirs, outcome.unit),
    verdict(outcome),
    outcome.limit === undefined ? '' : timeText(outcome.limit, outcome.unit),
    memoryText(outcome),
  ]
}

/** What the same jobs cost as they grow, as Markdown. */
export function growthText(around: Surroundings, rows: readonly Growth[]): string {
  const titles = ['job', 'GiB', 'ms', 'ms per further GiB', 'MiB of memory']
  return [...headLines(around), '', ...tableLines([titles, ...rows.map(growthCells)])].join('\n')
}

/** The row of one job by itself. */
export function growthRowText(row: Growth): string {
  return `| ${growthCells(row).join(' | ')} |`
}

function growthCells({ job, steps }: Growth): string[] {
  const gib = (size: number) => Number((size / 2 ** 30).toPrecision(3))
  return [
    job,
    steps.map(({ size }) => gib(size)).join(', '),
    steps.map(({ ms }) => ms.toFixed(0)).join(', '),
    marginalCosts(steps).map(costText).join(', '),
    steps.map(({ peakMemory }) => mib(peakMemory)).join(', '),
  ]
}

function costText(cost: number): string {
  return Math.abs(cost) < 10 ? cost.toFixed(2) : cost.toFixed(0)
}

/** Where Node's start decides, a ratio alone would say little. */
const START_MS = 110

function verdict({ judgedBy, unit, theirs, ratio, difference }: Outcome): string {
  const more = `${difference < 0 ? '' : '+'}${difference.toFixed(0)} ms`
  if (judgedBy === 'difference') return more
  const isShort = unit === 'ms' && theirs.median < START_MS
  return isShort ? `${ratio.toFixed(2)} (${more})` : ratio.toFixed(2)
}

/** Ours and theirs. */
function memoryText({ ours, theirs }: Outcome): string {
  if (ours.peakMemory === undefined) return ''
  return `${mib(ours.peakMemory)} / ${mib(theirs.peakMemory)}`
}

function mib(bytes: number | undefined): string {
  return bytes === undefined ? '?' : (bytes / 2 ** 20).toFixed(0)
}

function timeText({ median, spread }: Times, unit: Outcome['unit']): string {
  const digits = median < 10 ? 2 : median < 100 ? 1 : 0
  const name = unit === 'ms' ? 'ms' : 'µs'
  return `${median.toFixed(digits)} ${name} ± ${(spread * 100).toFixed(0)} %`
}

function tableLines(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, column) => pad(cell, widths[column]!, column)).join(' | ')} |`
  const rule = `| ${widths
    .map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
    .join(' | ')} |`
  const [titles, ...rest] = rows
  return [line(titles!), rule, ...rest.map(line)]
}

function pad(cell: string, width: number, column: number): string {
  return column === 0 ? cell.padEnd(width) : cell.padStart(width)
}

function details(outcome: Outcome): string {
  const lines = [
    `- **${outcome.job}**: ${outcome.conditions}; ${outcome.verifiedCount} results verified`,
    `  - ours: \`${outcome.ours.command}\``,
    `  - theirs: \`${outcome.theirs.command}\``,
  ]
  if (outcome.limit !== undefined) lines.push(`  - limit: \`${outcome.limit.command}\``)
  return lines.join('\n')
}
