/**
 * Makes everything under test/images anew: `npx tsx test/images/make.ts` (needs qemu-img, qemu-io and qemu-nbd).
 * Whole images come from the recipes, broken ones are whole ones with patches; MANIFEST.json says what each is and
 * what the real tools do with it. A second run gives the same files, but for encrypted images (random keys).
 */

import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type BrokenImage, IMAGES_FOLDER, type WholeImage } from '../support/image-matrix.ts'
import { ImageBytes } from '../support/poke.ts'
import { qemuImgOk } from '../support/qemu.ts'
import type { Breakage } from './breakage.ts'
import { breakages } from './breakages.ts'
import {
  observeBitmaps,
  observeCheck,
  observeContent,
  observeInfo,
  observeOpen,
  observeSnapshots,
} from './observe.ts'
import { featureRecipes } from './recipes-features.ts'
import { geometryRecipes } from './recipes-geometry.ts'
import { viewRecipes } from './recipes-views.ts'
import { type Recipe, Workshop } from './workshop.ts'

const recipes = [...geometryRecipes, ...featureRecipes, ...viewRecipes]

/** Runs `fn` on a copy of the folder, which is gone afterwards. */
async function onCopy<T>(folder: string, fn: (copy: string) => Promise<T>): Promise<T> {
  const copy = `${folder}.copy`
  cpSync(folder, copy, { recursive: true })
  try {
    return await fn(copy)
  } finally {
    rmSync(copy, { recursive: true })
  }
}

/** Makes one whole image in `folder` (fresh) and says what it is. */
async function makeWhole(recipe: Recipe, folder: string): Promise<WholeImage> {
  mkdirSync(folder)
  const shop = new Workshop(folder)
  recipe.make(shop)
  const { name, shows, secret, file = 'disk.qcow2' } = recipe
  const files = shop.finish()
  const { info: found, ...info } = await onCopy(folder, (at) => observeInfo(at, file))
  const check = await onCopy(folder, (at) => observeCheck(at, file))
  const convert = await onCopy(folder, (at) => observeContent(at, file))
  const { content } =
    secret === undefined
      ? convert
      : await onCopy(folder, (at) => observeContent(at, file, { secret }))
  const known = found ?? { 'virtual-size': -1 }
  return {
    name,
    shows,
    files,
    file,
    commands: shop.commands,
    virtualSize: known['virtual-size'],
    ...(content === undefined ? {} : { content }),
    snapshots: await onCopy(folder, (at) => observeSnapshots(at, file, known)),
    bitmaps: await onCopy(folder, (at) => observeBitmaps(at, file, known)),
    ...(check.verdict === undefined ? {} : { check: check.verdict }),
    info,
    convert: { status: convert.status, complaint: convert.complaint },
    open: await onCopy(folder, (at) => observeOpen(at, file, 'read')),
    openWritable: await onCopy(folder, (at) => observeOpen(at, file, 'write')),
    ...(secret === undefined ? {} : { secret }),
  }
}

/** Damages a copy of a whole image and says what the tools do with it. */
async function makeBroken(
  breakage: Breakage,
  whole: WholeImage,
  folders: { readonly from: string; readonly to: string },
): Promise<BrokenImage> {
  const { from, to } = folders
  cpSync(from, to, { recursive: true })
  const path = join(to, whole.file)
  const image = ImageBytes.load(path)
  const patches =
    typeof breakage.patches === 'function' ? breakage.patches(image) : breakage.patches
  for (const patch of patches) image.apply(patch)
  image.save(path)
  const { info: _found, ...info } = await observeInfo(to, whole.file)
  const { verdict, ...check } = await observeCheck(to, whole.file)
  const { size: _size, content, ...convert } = await observeContent(to, whole.file)
  const snapshots = []
  for (const { id } of breakage.withSnapshots === true ? whole.snapshots : []) {
    const { size: _, ...got } = await observeContent(to, whole.file, { snapshotId: id })
    snapshots.push({ id, ...got })
  }
  const open = await observeOpen(to, whole.file, 'read')
  const openWritable = await observeOpen(to, whole.file, 'write')
  rmSync(to, { recursive: true })
  return {
    name: breakage.name,
    shows: breakage.shows,
    base: breakage.base,
    structure: breakage.structure,
    field: breakage.field,
    patches,
    info,
    check: { ...check, ...verdict },
    convert,
    open,
    openWritable,
    ...(content === undefined ? {} : { content }),
    ...(snapshots.length === 0 ? {} : { snapshots }),
  }
}

function pack(whole: WholeImage, folder: string, target: string): void {
  mkdirSync(target, { recursive: true })
  for (const file of whole.files) {
    writeFileSync(
      join(target, `${file}.gz`),
      gzipSync(readFileSync(join(folder, file)), { level: 9 }),
    )
  }
}

/** Puts what was packed in the place of what is there. */
function replaceStored(packed: string, manifest: string): void {
  for (const name of readdirSync(IMAGES_FOLDER)) {
    const path = join(IMAGES_FOLDER, name)
    if (statSync(path).isDirectory()) rmSync(path, { recursive: true })
  }
  cpSync(packed, IMAGES_FOLDER, { recursive: true })
  writeFileSync(join(IMAGES_FOLDER, 'MANIFEST.json'), manifest)
}

async function makeAll(folder: string): Promise<void> {
  const [tool] = (await qemuImgOk(['--version'])).split('\n')
  const packed = join(folder, 'packed')
  const whole: WholeImage[] = []
  for (const recipe of recipes) {
    const image = await makeWhole(recipe, join(folder, recipe.name))
    pack(image, join(folder, recipe.name), join(packed, recipe.name))
    whole.push(image)
    console.log(`whole ${image.name}: check ${image.check?.status}, ${image.convert.complaint}`)
  }
  const broken: BrokenImage[] = []
  for (const breakage of breakages) {
    const base = whole.find((image) => image.name === breakage.base)
    if (base === undefined) throw new Error(`${breakage.name}: no image ${breakage.base}`)
    const folders = { from: join(folder, base.name), to: join(folder, `broken.${breakage.name}`) }
    const image = await makeBroken(breakage, base, folders)
    broken.push(image)
    const { info, check, convert } = image
    console.log(
      `broken ${image.name}: ${info.status} ${check.status} ${convert.status} ${check.complaint}`,
    )
  }
  const manifest = JSON.stringify({ tool, whole, broken }, undefined, 1)
  replaceStored(packed, `${manifest}\n`)
}

const folder = mkdtempSync(join(tmpdir(), 'cowpoint-images-'))
try {
  await makeAll(folder)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
