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
  more: Pick<Differential, 'stderr'> = {},
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
const opens = (image: Image): boolean => image.open.status !== -1
const checks = (image: Image): boolean => opens(image) && image.check?.status !== -1

describeDifferential('whole images', [
  ...reads(whole, 'info', ['info', 'info --output=json']),
  ...reads(whole, 'chain', ['info --backing-chain --output=json']),
  ...reads(whole.filter(opens), 'map', ['map', 'map --output=json', 'snapshot -l']),
  ...reads(whole.filter(checks), 'check', ['check', 'check --output=json'], { stderr: 'lines' }),
])

describeDifferential('damaged images', [
  ...reads(broken, 'info', ['info']),
  ...reads(broken.filter(opens), 'map', ['map --output=json', 'snapshot -l']),
  ...reads(broken.filter(checks), 'check', ['check --output=json'], { stderr: 'lines' }),
])
