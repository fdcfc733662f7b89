/** The reading verbs against the real qemu-img, on every stored image, whole and damaged. */

import {
  type BrokenImage,
  imageManifest,
  unpackImage,
  type WholeImage,
  wholeImage,
} from '../support/image-matrix.ts'
import { type Differential, describeDifferential, scene } from './differential.ts'

type Image = WholeImage | BrokenImage

/** Runs of several verbs on one image. */
function reads(
  images: readonly Image[],
  title: string,
  lines: readonly string[],
  more: Pick<Differential, 'stderr' | 'eitherMayRefuse'> = {},
): Differential[] {
  return images.map((image) => {
    const { file } = 'base' in image ? wholeImage(image.base) : image
    const [words = [], ...further] = lines.map((line) => [...line.split(' '), file])
    const unpack = (folder: string): void => {
      unpackImage(image, folder)
    }
    return {
      ...more,
      title: `${image.name}: ${title}`,
      scene: scene(image.name, unpack),
      words,
      further,
    }
  })
}

const { whole, broken } = imageManifest()
/** Some chains and tables keep qemu-img busy for ever. */
const ends = (image: Image): boolean => image.open.status !== -1 && image.check?.status !== -1
const except =
  (...names: readonly string[]) =>
  (image: Image): boolean =>
    !names.includes(image.name)

const sound = whole.filter((image) => image.open.status === 0)
const lines = { stderr: 'lines' } as const
const freeAtEnd = ['v2-2m', 'v3-2m', 'discarded-all', 'discarded-all-v2']

describeDifferential('whole images', [
  ...reads(whole, 'info', ['info', 'info --output=json']),
  // With a link broken cowpoint shows the layers above it.
  ...reads(whole.filter(except('chain-missing', 'chain-loop')), 'chain', [
    'info --backing-chain',
    'info --backing-chain --output=json',
  ]),
  // Only `info` and `check` warn that bitmaps are stale.
  ...reads(sound.filter(except('bitmaps-stale')), 'map', [
    'map',
    'map --output=json',
    'snapshot -l',
  ]),
  // There qemu-img recommends itself; of free clusters at the end of the file cowpoint warns on standard error.
  ...reads(
    sound.filter(except('bitmaps-stale', ...freeAtEnd)),
    'check',
    ['check', 'check --output=json'],
    lines,
  ),
  ...reads(
    sound.filter(({ name }) => freeAtEnd.includes(name)),
    'check',
    ['check -q'],
    lines,
  ),
])

/**
 * Where a name holds a NUL, where an offset is no exact number, where qemu-img crashes, and where it looks at refcounts even to
 * map an image, and complains about them.
 */
const unlike = [
  'backing-nul',
  'backing-in-header',
  'l2-entry-far',
  'crypt-luks-bare',
  'rt-entry-unaligned',
]
const readable = broken.filter(except(...unlike)).filter(ends)
const checkable = broken.filter(ends)
const either = { eitherMayRefuse: true } as const

describeDifferential('damaged images', [
  ...reads(readable, 'reading', ['info', 'map --output=json', 'snapshot -l'], either),
  ...reads(checkable, 'check', ['check --output=json'], { ...lines, ...either }),
])
