/** Lets processes of ours and of QEMU's race for one image and prints what came of it: `npm run locks -- SECONDS OURS THEIRS`. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lockRace } from '../test/support/lock-race.ts'

const [seconds = 40, ours = 2, theirs = 2] = process.argv.slice(2).map(Number)
const folder = mkdtempSync(join(tmpdir(), 'cowpoint-locks-'))
try {
  const found = await lockRace(folder, { seconds, ours, theirs })
  console.log(`${seconds} s, ${ours} processes of ours and ${theirs} of qemu-io:`)
  for (const [name, value] of Object.entries(found)) console.log(`  ${name}: ${value}`)
  if (found.overlaps > 0 || !found.isClean) process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
