/**
 * Processes that want one image at the same time: some of ours, which note from when to when they had it, and runs of qemu-io,
 * which must never succeed wholly within such a time. With `hold` as its first argument this file is such a process of ours.
 */

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { CowpointError } from '../../src/base/errors.ts'
import { openChain } from '../../src/chain/index.ts'
import { qemuImg, qemuImgOk, qemuIo } from './qemu.ts'

/** From when to when somebody had the image, by the clock of the machine in milliseconds. */
interface Span {
  readonly from: number
  readonly to: number
}

/** What a race came to. */
export interface RaceResult {
  /** How often our processes had the image, and how often they were refused. */
  readonly ourHolds: number
  readonly ourRefusals: number
  /** How many runs of qemu-io succeeded, and how many fell wholly into a hold of ours. */
  readonly theirSuccesses: number
  readonly theirRunsInside: number
  /** Pairs that had the image at the same time: ours with ours, ours with theirs. */
  readonly overlaps: number
  /** Whether the image is clean afterwards. */
  readonly isClean: boolean
}

const LONGEST_HOLD_MS = 60
const READY = 'ready\n'
const now = (): number => Number(process.hrtime.bigint() / 1000n) / 1000

/** Lets them race for a while. The image is made in `folder`. */
export async function lockRace(
  folder: string,
  { seconds, ours, theirs }: { seconds: number; ours: number; theirs: number },
): Promise<RaceResult> {
  const path = join(folder, 'race.qcow2')
  await qemuImgOk(['create', '-q', '-f', 'qcow2', path, '1M'])
  const ready = await Promise.all(Array.from({ length: ours }, () => startHolder(path)))
  const end = now() + seconds * 1000
  const [holders, visitors] = await Promise.all([
    Promise.all(ready.map((run) => run(end))),
    Promise.all(Array.from({ length: theirs }, (_, index) => visit(path, end, index))),
  ])
  const spans = holders.flatMap((one) => one.spans).sort((a, b) => a.from - b.from)
  const visits = visitors.flat()
  const inside = (one: Span) => spans.some(({ from, to }) => from <= one.from && one.to <= to)
  let overlaps = visits.filter((one) => one.isSuccess && inside(one)).length
  for (const [index, span] of spans.entries()) {
    const next = spans[index + 1]
    if (next !== undefined && next.from < span.to) overlaps++
  }
  const check = await qemuImg(['check', '-q', path])
  return {
    ourHolds: spans.length,
    ourRefusals: holders.reduce((sum, { refusals }) => sum + refusals, 0),
    theirSuccesses: visits.filter(({ isSuccess }) => isSuccess).length,
    theirRunsInside: visits.filter(inside).length,
    overlaps,
    isClean: check.status === 0,
  }
}

interface Holds {
  readonly spans: readonly Span[]
  readonly refusals: number
}

/** Starts a process of ours, and resolves to what lets it run until a time. */
async function startHolder(path: string): Promise<(end: number) => Promise<Holds>> {
  const words = ['--import', 'tsx', import.meta.filename, 'hold', path]
  const child = spawn(process.execPath, words, { stdio: ['pipe', 'pipe', 'inherit'] })
  const closed = new Promise((resolve) => child.once('close', resolve))
  let text = ''
  await new Promise<void>((resolve) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      resolve()
    })
  })
  return async (end) => {
    child.stdin.end(String(end))
    await closed
    return JSON.parse(text.slice(READY.length)) as Holds
  }
}

/** Takes the image again and again, writes a snapshot each time and deletes it, and tells when it had it. */
async function hold(path: string, end: number): Promise<Holds> {
  const spans: Span[] = []
  let refusals = 0
  while (now() < end) {
    try {
      await using chain = await openChain(path, { writable: true })
      const from = now()
      const image = chain.active.image
      const snapshot = await image?.createSnapshot({
        name: `${process.pid}`,
        vmClock: 0n,
        icount: 0n,
      })
      if (snapshot !== undefined) await image?.deleteSnapshot(snapshot)
      await new Promise((resolve) => setTimeout(resolve, Math.random() * LONGEST_HOLD_MS))
      spans.push({ from, to: now() })
    } catch (error) {
      if (!(error instanceof CowpointError) || error.code !== 'IMAGE_LOCKED') throw error
      refusals++
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * LONGEST_HOLD_MS))
  }
  return { spans, refusals }
}

/** Runs qemu-io again and again. */
async function visit(path: string, end: number, index: number) {
  const visits: (Span & { readonly isSuccess: boolean })[] = []
  while (now() < end) {
    const from = now()
    const { status } = await qemuIo(path, [`write -P ${index + 1} ${index}k 512`])
    visits.push({ from, to: now(), isSuccess: status === 0 })
  }
  return visits
}

const [, , role, path] = process.argv
if (role === 'hold' && path !== undefined) {
  process.stdout.write(READY)
  let end = ''
  for await (const chunk of process.stdin) end += String(chunk)
  process.stdout.write(JSON.stringify(await hold(path, Number(end))))
}
