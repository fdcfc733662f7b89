/** Internal snapshots of a large mapped disk: create, apply, delete. Both sides leave the image flushed. */

import { type Bench, type Setting, scaled, scaledCount, sizeText } from './bench.ts'
import { cowpoint, plainRead, qemuImg } from './commands.ts'
import { copySparse, makeMapped } from './inputs.ts'
import { type Pattern, pattern, sequence, WRITTEN } from './operations.ts'
import type { Comparison } from './pairs.ts'

const GIB = 1024
const CLUSTER = 65536

/** The job `snapshot`. */
export const snapshotBench: Bench = {
  name: 'snapshot',
  async *comparisons(setting) {
    const { tools } = setting
    const size = scaled(setting, 200 * GIB)
    const count = scaledCount(setting, 2048)
    const changes = pattern(setting, { size, blockSize: 4096, step: 1501 * CLUSTER, count })
    makeMapped(setting, 'plain.qcow2', size)
    copySparse(setting, 'plain.qcow2', 'same.qcow2')
    tools.qemuImg('snapshot -c first same.qcow2')
    copySparse(setting, 'same.qcow2', 'changed.qcow2')
    const words = `--pattern=${WRITTEN} -s 4096 -S ${changes.step}`
    tools.qemuImg(`bench -w -f qcow2 -c ${count} ${words} changed.qcow2`)

    const row = (verb: string, input: string, difference: string, found: Found) =>
      comparison(setting, { verb, input, difference, changes }, found)
    const differs = `, ${count} clusters changed since`
    yield row('-c second', 'changed.qcow2', `${differs} an earlier one`, { snapshots: 2 })
    yield row('-a first', 'changed.qcow2', differs, { snapshots: 1, byte: 0 })
    yield row('-d first', 'changed.qcow2', differs, { snapshots: 0 })
    yield row('-c first', 'plain.qcow2', ', the first one', { snapshots: 1, byte: 0 })
    yield row('-d first', 'same.qcow2', ', nothing changed since', { snapshots: 0, byte: 0 })
  },
}

interface Row {
  readonly verb: string
  readonly input: string
  readonly difference: string
  readonly changes: Pattern
}

/** What must be found afterwards: how many snapshots, and which byte where the changes were made. */
interface Found {
  readonly snapshots: number
  readonly byte?: number
}

const NAMES: Readonly<Record<string, string>> = { '-c': 'create', '-a': 'apply', '-d': 'delete' }

function comparison(setting: Setting, row: Row, found: Found): Comparison {
  const { size } = row.changes
  const around = (name: string) => ({
    prepare: () => copySparse(setting, row.input, name),
    verify: () => verify(setting, name, row.changes, found),
  })
  const name = NAMES[row.verb.slice(0, 2)]
  return {
    job: `snapshot ${name}${row.difference}`,
    conditions: `${sizeText(size)} mapped; cached; flushed by each as it does; whole process`,
    unit: 'ms',
    size,
    ours: cowpoint(setting, `snapshot ${row.verb} ours.qcow2`, around('ours.qcow2')),
    theirs: qemuImg(setting, `snapshot ${row.verb} theirs.qcow2`, around('theirs.qcow2')),
    limit: plainRead(setting, row.input, (size / CLUSTER) * 10),
  }
}

function verify({ tools }: Setting, name: string, changes: Pattern, found: Found): void {
  tools.qemuImg(`check -q ${name}`)
  const lines = tools.qemuImg(`snapshot -l ${name}`).stdout.trim().split('\n')
  const count = Math.max(0, lines.length - 2)
  if (count !== found.snapshots) throw new Error(`${name} has ${count} snapshots`)
  const byte = found.byte ?? WRITTEN
  const reads = sequence({ ...changes, count: 16 }).flatMap((offset) => [
    '-c',
    `read -P ${byte} ${offset} 4k`,
  ])
  const { stdout } = tools.words('qemu-io', ['-r', '-f', 'qcow2', ...reads, name])
  if (/fail|error/i.test(stdout)) throw new Error(`${name} reads wrong: ${stdout}`)
}
