/**
 * What a command asks of the operating system, by strace(1): every path that it names to the kernel, every connection and every program
 * that it starts. Without strace, or where tracing is not permitted, says so.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describeWhere } from '../support/qemu.ts'

/** What was asked. */
export interface Asked {
  readonly status: number
  /** Paths that were opened, asked about or changed; as they were named. */
  readonly paths: ReadonlySet<string>
  /** Connections and programs: whole lines of the trace. */
  readonly acts: readonly string[]
  readonly stderr: string
}

const TRACED = '%file,connect,bind,sendto,sendmsg,execve,execveat'

/** Runs a program under strace, its threads and children too. */
export function traced(command: readonly string[], cwd: string): Asked {
  const folder = mkdtempSync(join(tmpdir(), 'cowpoint-trace-'))
  try {
    const log = join(folder, 'trace')
    const words = ['-f', '-qq', '-s', '4096', '-e', `trace=${TRACED}`, '-e', 'signal=none']
    const { status, stderr } = spawnSync('strace', [...words, '-o', log, '--', ...command], {
      ...{ cwd, encoding: 'utf8' },
    })
    return { ...readTrace(readFileSync(log, 'utf8')), status: status ?? -1, stderr }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The first execve is that of the program itself. */
function readTrace(log: string): Pick<Asked, 'paths' | 'acts'> {
  const paths = new Set<string>()
  const acts: string[] = []
  for (const line of log.split('\n')) {
    const call = line.replace(/^\d+\s+/, '')
    if (/^(?:connect|bind|sendto|sendmsg|execve|execveat)\(/.test(call)) acts.push(call)
    else for (const [, path = ''] of call.matchAll(/"((?:[^"\\]|\\.)*)"/g)) paths.add(path)
  }
  return { paths, acts: acts.slice(1) }
}

function canTrace(): boolean {
  const { status } = spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', '--', 'true'])
  return status === 0
}

/** A `describe` for tests that trace; where that cannot be, a skipped test says so, and where CI is set the file fails. */
export function describeWithStrace(name: string, fn: () => void): void {
  describeWhere(canTrace(), name, ['strace, and leave to trace'], fn)
}
