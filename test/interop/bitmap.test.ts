/** `bitmap` and `convert --bitmaps` against the real qemu-img: the list after each action, what is refused, and the bits. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { type Differential, describeDifferential, maskSpace, scene } from './differential.ts'

const stored = (name: string, path: string) => (folder: string) =>
  writeFileSync(
    join(folder, path),
    gunzipSync(readFileSync(join(import.meta.dirname, '../images', name, 'disk.qcow2.gz'))),
  )

const plain = scene(
  'images with and without bitmaps',
  'qemu-img create -f qcow2 a.qcow2 10M',
  'qemu-img bitmap --add a.qcow2 first',
  'qemu-img bitmap --add -g 512 a.qcow2 fine',
  'qemu-img bitmap --add --disable -g 1M a.qcow2 coarse',
  "qemu-io -c 'write -P 1 0 64k' -c 'write -P 1 1000k 200k' a.qcow2",
  'qemu-img bitmap --disable a.qcow2 first',
  "qemu-io -c 'write -P 1 5M 1M' -c 'write -P 2 10485248 512' a.qcow2",
  'qemu-img create -f qcow2 b.qcow2 10M',
  'qemu-img bitmap --add -g 2k b.qcow2 theirs',
  "qemu-io -c 'write -P 3 3M 3k' b.qcow2",
  'qemu-img create -f qcow2 empty.qcow2 10M',
  'qemu-img create -f qcow2 other.qcow2 11M',
  'qemu-img bitmap --add other.qcow2 long',
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 10M',
  'qemu-img create -f raw r.raw 10M',
)

const damaged = scene(
  'bitmaps in use and stale ones',
  stored('bitmaps-in-use', 'use.qcow2'),
  stored('bitmaps-stale', 'stale.qcow2'),
)

const long = 'n'.repeat(1023)

const change = (words: string, ...further: string[]): Differential => ({
  scene: plain,
  words: `bitmap ${words}`,
  further: further.map((more) => `bitmap ${more}`),
  writes: true,
})

describeDifferential('bitmap', [
  change('--add a.qcow2 new', '--remove a.qcow2 fine', '--add a.qcow2 fine'),
  change('--add empty.qcow2 one', '--remove empty.qcow2 one'),
  change('--add -g 2G empty.qcow2 one', '--add -g 512 empty.qcow2 two'),
  change('--add -g 0 empty.qcow2 one'),
  change('--add -g8k --disable empty.qcow2 one'),
  change(`--add empty.qcow2 ${long}`, '--add empty.qcow2 ü'),
  change('--clear a.qcow2 first', '--enable a.qcow2 first', '--disable a.qcow2 fine'),
  change('--remove a.qcow2 first', '--remove a.qcow2 coarse', '--remove a.qcow2 fine'),
  change('--merge first a.qcow2 fine'),
  change('--merge fine a.qcow2 coarse'),
  change('--merge first --merge fine --merge coarse a.qcow2 first'),
  change('--merg theirs -b b.qcow2 a.qcow2 fine'),
  change('--merge theirs -b b.qcow2 -F qcow2 -f qcow2 a.qcow2 coarse'),
  change('--add --merge theirs -b b.qcow2 a.qcow2 theirs'),
  change('--add --disable --clear --enable --remove --add -g 1k a.qcow2 again'),
  change('--remove --add --merge coarse a.qcow2 first'),
  change('--clear --merge fine --disable a.qcow2 first'),
  change('--add --object secret,id=s,data=x a.qcow2 new'),
  change('--add --image-opts driver=qcow2,file.filename=a.qcow2 new'),
  { ...change('--remove use.qcow2 b0', '--add use.qcow2 b0'), scene: damaged },
  ...['cluster_size=512', 'cluster_size=2k', 'cluster_size=2M', 'refcount_bits=1'].map(
    (options): Differential => ({
      ...change('--add new.qcow2 new', '--add --merge new -g 64k new.qcow2 next'),
      scene: scene(options, `qemu-img create -f qcow2 -o ${options} new.qcow2 5M`),
    }),
  ),
])

const refuse = (words: string, stderr: Differential['stderr'] = 'lines'): Differential => ({
  ...change(words),
  stderr,
})

describeDifferential('bitmap refuses', [
  refuse(''),
  refuse('a.qcow2 first'),
  refuse('--add a.qcow2'),
  refuse('--add a.qcow2 x y'),
  refuse('--enable -g 1k a.qcow2 first'),
  refuse('--enable -g 1k a.qcow2'),
  refuse('--add -F qcow2 a.qcow2 x'),
  refuse('--add -b b.qcow2 a.qcow2 x'),
  refuse('--add -g 100 a.qcow2 x'),
  refuse('--add -g 1.5k a.qcow2 x'),
  refuse('--add -g 4G a.qcow2 x', 'class'),
  refuse('--add -g -1 a.qcow2 x', 'words'),
  refuse('--add -g foo a.qcow2 x', 'words'),
  refuse("--add a.qcow2 ''"),
  refuse(`--add a.qcow2 ${long}n`, 'class'),
  refuse('--add a.qcow2 first'),
  refuse('--add --add a.qcow2 new'),
  refuse('--remove a.qcow2 none'),
  refuse('--remove --clear a.qcow2 first'),
  refuse('--clear a.qcow2 none'),
  refuse('--enable a.qcow2 none'),
  refuse('--disable a.qcow2 none'),
  refuse('--merge none a.qcow2 first'),
  refuse('--merge first a.qcow2 none'),
  refuse('--merge none -b b.qcow2 a.qcow2 first'),
  refuse('--merge long -b other.qcow2 a.qcow2 first'),
  refuse('--merge theirs -b b.qcow2 -F raw a.qcow2 first'),
  refuse('--merge theirs -b missing a.qcow2 first', 'class'),
  refuse('--add v2.qcow2 x', 'class'),
  refuse('--remove v2.qcow2 x'),
  refuse('--add -f raw r.raw x', 'class'),
  refuse('--enable -f raw r.raw x'),
  refuse('--add missing x', 'class'),
  refuse('--add -f foo a.qcow2 x', 'class'),
  refuse('--add -U a.qcow2 x', 'class'),
  refuse('--add --image-opts -f qcow2 driver=qcow2,file.filename=a.qcow2 x'),
  ...['--clear', '--enable', '--disable', '--merge b1', '--add'].map(
    (words): Differential => ({ ...refuse(`${words} use.qcow2 b0`, 'class'), scene: damaged }),
  ),
])

const copy = (words: string, ...further: string[]): Differential => ({
  scene: plain,
  words: `convert ${words}`,
  further,
  writes: true,
  normalise: maskSpace,
})

describeDifferential('convert --bitmaps', [
  copy('--bitmaps -O qcow2 a.qcow2 new.qcow2', 'info --output=json new.qcow2'),
  copy('--bitmaps -c -O qcow2 -o cluster_size=4k a.qcow2 new.qcow2', 'info new.qcow2'),
  copy('--bitmaps -O qcow2 empty.qcow2 new.qcow2', 'info new.qcow2'),
  copy('--bitmaps -n -O qcow2 a.qcow2 b.qcow2', 'info b.qcow2'),
  copy('--bitmaps -O qcow2 -o data_file=data.raw a.qcow2 new.qcow2', 'info new.qcow2'),
  {
    ...copy('--bitmaps --skip-broken-bitmaps -O qcow2 use.qcow2 new.qcow2', 'info new.qcow2'),
    scene: damaged,
  },
  { ...copy('--bitmaps -O qcow2 stale.qcow2 new.qcow2', 'info new.qcow2'), scene: damaged },
])

const copied = scene(
  'to be copied',
  'qemu-img create -f qcow2 a.qcow2 1M',
  'qemu-img bitmap --add a.qcow2 b0',
  'qemu-img create -f qcow2 larger.qcow2 2M',
  'qemu-img create -f qcow2 same.qcow2 1M',
  'qemu-img bitmap --add same.qcow2 b0',
  'qemu-img create -f qcow2 -o compat=0.10 v2.qcow2 1M',
  'qemu-img create -f raw r.raw 1M',
  'cp r.raw new.raw; cp v2.qcow2 new.qcow2',
  stored('bitmaps-in-use', 'use.qcow2'),
)

const noCopy = (words: string, stderr: Differential['stderr'] = 'lines'): Differential => ({
  ...copy(words),
  scene: copied,
  stderr,
})

describeDifferential('convert --bitmaps refuses', [
  noCopy('--bitmaps -O raw a.qcow2 new.raw'),
  noCopy('--bitmaps -f raw -O qcow2 r.raw new.qcow2'),
  noCopy('--bitmaps -O qcow2 v2.qcow2 new.qcow2'),
  noCopy('--bitmaps -O qcow2 -o compat=0.10 a.qcow2 new.qcow2'),
  noCopy('--bitmaps -O qcow2 a.qcow2 same.qcow2 new.qcow2'),
  noCopy('--bitmaps -n -O qcow2 a.qcow2 larger.qcow2'),
  noCopy('--bitmaps -n -O qcow2 a.qcow2 same.qcow2'),
  noCopy('--bitmaps -n -O qcow2 a.qcow2 v2.qcow2'),
  noCopy('--skip-broken-bitmaps -O qcow2 a.qcow2 new.qcow2'),
  noCopy('--bitmaps -O qcow2 use.qcow2 new.qcow2', 'class'),
])
