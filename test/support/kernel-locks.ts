/** What the kernel says about locks on a file. */

import { readFileSync, statSync } from 'node:fs'

/** All image locks on a file, of whomever, as `READ 100-101`, sorted and each once. */
export function kernelLocks(path: string): string[] {
  const { ino } = statSync(path)
  const found = new Set<string>()
  for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
    const [, kind, inode, first, last] =
      /OFDLCK\s+ADVISORY\s+(READ|WRITE)\s+-?\d+\s+\S+:(\d+) (\d+) (\d+)/.exec(line) ?? []
    if (Number(inode) === ino) found.add(`${kind} ${first}-${last}`)
  }
  return [...found].sort()
}

/** Whether somebody has the file to write it, to read it, or only to look at it; undefined where nobody locks it. */
export function lockOn(path: string): 'write' | 'read' | 'share' | undefined {
  const locks = kernelLocks(path)
  if (locks.length === 0) return undefined
  if (locks.includes('WRITE 300-300')) return 'write'
  return locks.includes('READ 201-201') ? 'read' : 'share'
}
