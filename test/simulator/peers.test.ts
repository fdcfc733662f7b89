/** The method on somebody else: logs of QEMU's own verbs, with windows that are known, and the same verbs done by us. */

import { expect, test } from 'vitest'
import { describeWithQemu } from '../support/qemu.ts'
import { withTempFolder } from '../support/temp.ts'
import { type Counts, countStates, ourTrace, qemuTrace } from './compare.ts'
import { PEER_VERBS } from './peer-verbs.ts'

async function counted(name: string, trace: typeof qemuTrace): Promise<Counts> {
  const verb = PEER_VERBS.find((one) => one.name === name)!
  return withTempFolder(async (folder) => countStates(verb, await trace(verb, folder), folder))
}

describeWithQemu('power cuts during verbs of QEMU and of ours', () => {
  test.each(['snapshot create', 'snapshot delete', 'snapshot apply'])(
    '%s of QEMU passes through states that its own check calls corrupt, ours does not',
    async (name) => {
      const theirs = await counted(name, qemuTrace)
      expect(theirs.corrupt).toBeGreaterThan(0)
      expect(theirs.disputed).toBe(0)
      const ours = await counted(name, ourTrace)
      expect(ours).toMatchObject({ corrupt: 0, leak: 0, mixed: 0, disputed: 0 })
      expect(ours.clean).toBe(ours.states)
    },
  )

  test.each(['write: new clusters', 'write: shared clusters', 'resize: grow'])(
    '%s is sound on both sides',
    async (name) => {
      for (const trace of [qemuTrace, ourTrace]) {
        const { corrupt, mixed, disputed, states } = await counted(name, trace)
        expect({ corrupt, mixed, disputed }).toEqual({ corrupt: 0, mixed: 0, disputed: 0 })
        expect(states).toBeGreaterThan(4)
      }
    },
  )

  test('QEMU shows new data in a discarded range, ours the old data or zeroes', async () => {
    const name = 'discard, then write elsewhere'
    expect((await counted(name, qemuTrace)).mixed).toBeGreaterThan(0)
    expect(await counted(name, ourTrace)).toMatchObject({ corrupt: 0, mixed: 0, disputed: 0 })
  })
})
