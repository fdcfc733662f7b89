/** The state of a machine as the real QEMU writes it. */

import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { examineStateFiles } from '../../src/machine/index.ts'
import { libvirtSave } from '../machine/state-fixtures.ts'
import { describeWithQemu } from '../support/qemu.ts'
import { tempFolder } from '../support/temp.ts'

const SYSTEM = 'qemu-system-x86_64'

/** Lets a machine that never ran write its state to `path`. */
async function saveState(path: string): Promise<void> {
  const options = ['-accel', 'tcg', '-m', '8', '-display', 'none', '-nodefaults', '-S']
  const child = spawn(SYSTEM, [...options, '-machine', 'pc', '-qmp', 'stdio'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const send = (execute: string, args: object = {}): void => {
    child.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`)
  }
  send('qmp_capabilities')
  send('migrate', { uri: `exec:cat > ${path}` })
  send('query-migrate')
  for await (const line of createInterface(child.stdout)) {
    const { status } = JSON.parse(line).return ?? {}
    if (status === 'completed' || status === 'failed') send('quit')
    else if (status !== undefined) setTimeout(() => send('query-migrate'), 20)
  }
}

describeWithQemu(
  'a machine of QEMU',
  () => {
    test('has a migration stream that tells its type and its devices', async () => {
      const folder = tempFolder()
      const path = join(folder, 'mem')
      await saveState(path)
      const [state] = await examineStateFiles([{ path }])
      expect(state).toMatchObject({ kind: 'qemu-migration', findings: [] })
      expect(state?.facts.machine).toMatch(/^pc-i440fx-/)
      expect(state?.facts.deviceCount).toBeGreaterThan(5)

      const saved = join(folder, 'save')
      writeFileSync(saved, libvirtSave(readFileSync(path)))
      const [wrapped] = await examineStateFiles([{ path: saved }])
      expect(wrapped).toMatchObject({ kind: 'libvirt-save', findings: [] })
      expect(wrapped?.facts.machine).toBe(state?.facts.machine)
    })
  },
  SYSTEM,
)
