/** The verbs on real files, with the real qemu-img as witness: it finds no error, sees our snapshots, and keeps our records. */

import { existsSync, readdirSync, renameSync, symlinkSync, unlinkSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  CheckpointCatalogue,
  createCheckpoint,
  renameCheckpoint,
  revertTo,
  verifyCheckpoints,
} from '../../src/checkpoint/index.ts'
import { checkAll, disks, gate, nodeCalled, reads, treeOf } from '../support/checkpoint-disks.ts'
import { describeWithQemu, qemuImgOk, qemuIoOk, qemuNbd } from '../support/qemu.ts'

describeWithQemu('checkpoints', () => {
  test('internal: qemu-img lists them, applies and deletes them, and keeps the records', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'one', labels: { a: 'b' } })
    await qemuIoOk(image, ['write -P 9 0 64k'])
    await createCheckpoint(await place.find(), { name: 'two' })
    const listed = await qemuImgOk(['snapshot', '-l', image])
    expect(listed).toMatch(/1\s+one/)
    expect(listed).toMatch(/2\s+two/)
    const before = await nodeCalled(place, 'two')
    await qemuImgOk(['snapshot', '-a', 'one', image])
    await qemuImgOk(['snapshot', '-c', 'theirs', image])
    await qemuImgOk(['snapshot', '-d', 'one', image])
    const after = await nodeCalled(place, 'two')
    expect([after.id, after.isForeign, after.consistency]).toEqual([before.id, false, 'crash'])
    expect((await nodeCalled(place, 'theirs')).isForeign).toBe(true)
    await reads(image, 1)
    await checkAll(place)
  })

  test('external: the path stays, bitmaps begin anew, and qemu-img sees the chain', async () => {
    const place = await disks(2)
    const [image = ''] = place.images
    await qemuImgOk(['bitmap', '--add', '-g', '64k', image, 'daily'])
    await qemuImgOk(['bitmap', '--add', '--disable', image, 'off'])
    await createCheckpoint(await place.find(), { name: 'frozen one', kind: 'external' })
    const info = JSON.parse(await qemuImgOk(['info', '--output=json', image]))
    expect(info['backing-filename']).toBe('disk0.frozen-one.qcow2')
    expect(info['backing-filename-format']).toBe('qcow2')
    const { bitmaps } = info['format-specific'].data
    expect(bitmaps).toEqual([{ name: 'daily', granularity: 65536, flags: ['auto'] }])
    await qemuIoOk(image, ['write -P 7 0 64k'])
    await reads(place.at('disk0.frozen-one.qcow2'), 1)
    const tree = await treeOf(await place.find())
    expect(tree.position).toBe((await nodeCalled(place, 'frozen one')).id)
    await checkAll(place)
  })

  test('external with --overlay: the disk keeps its name, a raw one too', async () => {
    const place = await disks(0)
    const raw = place.at('disk.img')
    await qemuImgOk(['create', '-q', '-f', 'raw', raw, '1M'])
    await qemuIoOk(raw, ['write -P 5 0 64k'], { format: 'raw' })
    const onRaw = (images = [raw]) => CheckpointCatalogue.find({ images, gate, format: 'raw' })
    await expect(createCheckpoint(await onRaw(), { name: 'x' })).rejects.toMatchObject({
      code: 'CHECKPOINT_KIND',
    })
    const overlays = [place.at('live.qcow2')]
    await createCheckpoint(await onRaw(), { name: 'raw one', overlays })
    await qemuIoOk(overlays[0] as string, ['write -P 6 0 64k'])
    const live = await place.find(overlays)
    const [tree] = await live.trees()
    expect(
      [...(tree?.nodes.values() ?? [])].map(({ name, isForeign }) => [name, isForeign]),
    ).toEqual([['raw one', false]])
    await createCheckpoint(live, { name: 'second', kind: 'external' })
    await revertTo(await place.find(overlays), { checkpoint: 'raw one' })
    await reads(overlays[0] as string, 5)
    await renameCheckpoint(await place.find(overlays), { checkpoint: 'raw one', name: 'begin' })
    const names = [...((await live.trees())[0]?.nodes.values() ?? [])].map(({ name }) => name)
    expect(names).toEqual(['begin', 'second'])
    await checkAll(place)
    expect((await verifyCheckpoints(await place.find(overlays))).findings).toEqual([])
  })

  test('a raw disk that looks like an image is raw where that was said', async () => {
    const place = await disks(1)
    const [image = ''] = place.images
    const raw = place.at('trap.img')
    renameSync(image, raw)
    const overlays = [place.at('live.qcow2')]
    const catalogue = await CheckpointCatalogue.find({ images: [raw], gate, format: 'raw' })
    await createCheckpoint(catalogue, { name: 'safe', overlays })
    const info = JSON.parse(await qemuImgOk(['info', '--output=json', overlays[0] as string]))
    expect(info['backing-filename-format']).toBe('raw')
    const [tree] = await (await place.find(overlays)).trees()
    const [node] = tree?.nodes.values() ?? []
    expect(node?.places[0]?.layer.format).toBe('raw')
  })

  test('restore: branches, drops, copies out of frozen layers, and does nothing twice', async () => {
    const place = await disks(2)
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a' })
    await qemuIoOk(image, ['write -P 10 0 64k'])
    await createCheckpoint(await place.find(), { name: 'b', kind: 'external' })
    await qemuIoOk(image, ['write -P 11 0 64k'])
    await revertTo(await place.find(), { checkpoint: 'b', keepAs: 'branch' })
    await reads(image, 10)
    expect((await revertTo(await place.find(), { checkpoint: 'b' })).isDone).toBe(false)
    await revertTo(await place.find(), { checkpoint: 'branch' })
    await reads(image, 11)
    await revertTo(await place.find(), { checkpoint: 'a', discard: true })
    await reads(image, 1)
    await checkAll(place)
    const tree = await treeOf(await place.find())
    expect([...tree.nodes.values()].map(({ name }) => name)).toEqual(['a', 'b', 'branch'])
    const trash = readdirSync(place.at('.cowpoint/trash'))
    expect(trash.length).toBeGreaterThan(0)
    expect((await verifyCheckpoints(await place.find())).findings).toEqual([])
  })

  test('an active layer that is lost is made anew', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a', kind: 'external' })
    unlinkSync(image)
    const catalogue = await CheckpointCatalogue.find({ folder: place.folder, gate })
    expect((await verifyCheckpoints(catalogue)).findings.map(({ code }) => code)).toEqual([
      'DISK_MISSING',
    ])
    await revertTo(catalogue, { checkpoint: 'a' })
    await reads(image, 1)
    await checkAll(place)
  })

  test('a symbolic link to a disk goes on to lead there', async () => {
    const place = await disks()
    const [image = ''] = place.images
    const link = place.at('current')
    symlinkSync('disk0.qcow2', link)
    await createCheckpoint(await place.find([link]), { name: 'a', kind: 'external' })
    await qemuIoOk(image, ['write -P 3 0 64k'])
    await reads(link, 3)
    await reads(place.at('disk0.a.qcow2'), 1)
  })

  test('two sets in one folder are kept apart; names that could be both are listed', async () => {
    const place = await disks(2)
    const [first = '', second = ''] = place.images
    await createCheckpoint(await place.find([first]), { name: 'same' })
    await createCheckpoint(await place.find([second]), { name: 'same' })
    const all = await CheckpointCatalogue.find({ folder: place.folder, gate })
    expect(await all.trees()).toHaveLength(2)
    await expect(revertTo(all, { checkpoint: 'same' })).rejects.toMatchObject({
      code: 'CHECKPOINT_AMBIGUOUS',
    })
    await expect(createCheckpoint(all, { name: 'more' })).rejects.toMatchObject({
      code: 'SET_AMBIGUOUS',
    })
    expect((await revertTo(await place.find([first]), { checkpoint: 'same' })).isDone).toBe(false)
    await expect(
      createCheckpoint(await place.find([first]), { name: 'same' }),
    ).rejects.toMatchObject({ code: 'CHECKPOINT_EXISTS' })
  })

  test('a copy of a disk is a stranger, and takes no part', async () => {
    const place = await disks()
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a', kind: 'external' })
    await qemuImgOk([
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      'disk0.a.qcow2',
      '-F',
      'qcow2',
      place.at('clone.qcow2'),
    ])
    const tree = await treeOf(await place.find())
    expect(tree.disks.map(({ path }) => path)).toEqual([image])
    expect(tree.disks[0]?.strangers.map(({ path }) => path)).toEqual([place.at('clone.qcow2')])
  })

  test('a verb that is aborted, or finds a name taken, leaves nothing', async () => {
    const place = await disks(2)
    const before = readdirSync(place.folder).filter((name) => name !== '.cowpoint')
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(
      createCheckpoint(await place.find(), { name: 'x', kind: 'external', signal }),
    ).rejects.toThrow('enough')
    // The overlay of the second disk cannot be made: its temporary name is that of a folder.
    const overlays = [place.at('one.qcow2'), place.at('missing/two.qcow2')]
    await expect(createCheckpoint(await place.find(), { name: 'x', overlays })).rejects.toThrow()
    expect(readdirSync(place.folder).filter((name) => name !== '.cowpoint')).toEqual(before)
    expect(existsSync(place.at('.cowpoint/journal.json'))).toBe(false)
    expect(await (await place.find()).trees()).toHaveLength(2)
    await checkAll(place)
  })

  test('a dry run changes nothing and says what would happen', async () => {
    const place = await disks()
    const names = () => readdirSync(place.folder)
    const before = names()
    const { plan, isDone } = await createCheckpoint(await place.find(), {
      ...{ name: 'x', kind: 'external', dryRun: true },
    })
    expect(isDone).toBe(false)
    expect(plan.steps).toHaveLength(4)
    expect(plan.touches.map(({ action }) => action)).toEqual(['change', 'link', 'replace'])
    expect(names()).toEqual(before)
  })

  test('verbs at the same time: one goes on, the others are told to wait', async () => {
    const place = await disks()
    const runs = [1, 2, 3].map(async (number) =>
      createCheckpoint(await place.find(), { name: `many-${number}` }),
    )
    const outcomes = await Promise.allSettled(runs)
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected')
    expect(refused.length).toBeLessThan(3)
    for (const { reason } of refused) expect(reason.code).toBe('CATALOGUE_BUSY')
    const tree = await treeOf(await place.find())
    expect(tree.nodes.size).toBe(3 - refused.length)
    await checkAll(place)
  })

  test('a disk that a virtual machine uses is refused, and stays as it is', async () => {
    const place = await disks(2)
    const [image = ''] = place.images
    await createCheckpoint(await place.find(), { name: 'a' })
    await using _machine = await qemuNbd(place.at('socket'), ['-f', 'qcow2', image])
    for (const kind of ['internal', 'external'] as const) {
      await expect(createCheckpoint(await place.find(), { name: 'b', kind })).rejects.toMatchObject(
        {
          code: 'IMAGE_LOCKED',
        },
      )
    }
    await expect(revertTo(await place.find(), { checkpoint: 'a' })).resolves.toMatchObject({
      isDone: false,
    })
    const tree = await treeOf(await place.find())
    expect([...tree.nodes.values()].map(({ name }) => name)).toEqual(['a'])
    expect(existsSync(place.at('.cowpoint/journal.json'))).toBe(false)
  })

  test('long names of files are shortened, small clusters suffice', async () => {
    const place = await disks(1, ['-o', 'cluster_size=512'])
    const [image = ''] = place.images
    const long = place.at(`${'long'.repeat(50)}.qcow2`)
    renameSync(image, long)
    const name = 'n'.repeat(128)
    await createCheckpoint(await place.find([long]), { name, kind: 'external' })
    await createCheckpoint(await place.find([long]), { name: 'short' })
    await checkAll(place)
  })

  test('a record that the header has no room for is refused, and nothing has happened', async () => {
    const place = await disks(0)
    const raw = place.at('disk.img')
    await qemuImgOk(['create', '-q', '-f', 'raw', raw, '1M'])
    const overlays = [place.at('live.qcow2')]
    const onRaw = await CheckpointCatalogue.find({ images: [raw], gate, format: 'raw' })
    await createCheckpoint(onRaw, { name: 'r'.repeat(128), overlays })
    const before = readdirSync(place.folder)
    const live = await place.find(overlays)
    await expect(
      createCheckpoint(live, { name: 's'.repeat(128), kind: 'external' }),
    ).rejects.toMatchObject({ code: 'HEADER_FULL' })
    expect(readdirSync(place.folder)).toEqual(before)
    expect(existsSync(place.at('.cowpoint/journal.json'))).toBe(false)
    await createCheckpoint(live, { name: 'short', kind: 'external' })
    await checkAll(place)
  })
})
