/** Steps that change names of files. Each is durable when it ends, so that no later one can be there without it. */

import { dirname } from 'node:path'
import { CowpointError } from '../base/errors.ts'
import { statOf } from '../chain/index.ts'
import { isSameFile } from '../storage/index.ts'
import type { StepOf } from './journal-schema.ts'
import { recordAt } from './step-image.ts'
import type { StepKind, StepWorld } from './steps.ts'

/** Gives a file a second name. */
export const linkStep: StepKind<StepOf<'link'>> = {
  isDone: async ({ path, to, id }, world) => {
    if (id !== undefined && (await recordAt(world, to))?.id === id) return true
    return areSame(world, path, to)
  },
  run: async ({ path, to }, world) => {
    const { files } = world.catalogue
    const [from, target] = await absolutes(world, path, to)
    if (!(await areSame(world, path, to))) {
      await files.makeFolder(dirname(target), { parents: true })
      await files.link(from, target)
    }
    await files.syncFolder(dirname(target))
  },
}

/** Gives a file that was built its own name. */
export const placeStep: StepKind<StepOf<'place'>> = {
  isDone: async ({ to, id }, world) => (await recordAt(world, to))?.id === id,
  run: async ({ path, to, id, replace }, world) => {
    const { files } = world.catalogue
    const [from, target] = await absolutes(world, path, to)
    const isPlaced = (await recordAt(world, to))?.id === id
    if (!isPlaced && replace) await files.rename(from, target)
    // Nothing that got the name meanwhile is lost.
    if (!isPlaced && !replace) await files.link(from, target)
    await files.syncFolder(dirname(target))
    if (!(isPlaced || !replace) || (await statOf(files, from)) === undefined) return
    await files.unlink(from)
    await files.syncFolder(dirname(from))
  },
}

/** Removes what the operation made. */
export const unlinkStep: StepKind<StepOf<'unlink'>> = {
  run: async ({ path, sameAs }, world) => {
    const { files } = world.catalogue
    const [target] = await absolutes(world, path)
    if ((await statOf(files, target)) === undefined) return
    if (sameAs !== undefined && !(await areSame(world, path, sameAs))) return
    await files.unlink(target)
    await files.syncFolder(dirname(target))
  },
}

/** Moves a file to the trash. */
export const trashStep: StepKind<StepOf<'trash'>> = {
  isDone: async ({ path, to, id }, world) => {
    const [from, target] = await absolutes(world, path, to)
    const { files } = world.catalogue
    if ((await statOf(files, target)) === undefined) return false
    if ((await statOf(files, from)) === undefined) return true
    return id !== undefined && (await recordAt(world, path))?.id !== id
  },
  run: async ({ path, to, id }, world) => {
    const { files } = world.catalogue
    const [from, target] = await absolutes(world, path, to)
    const isThere = (await statOf(files, from)) !== undefined
    const isIt = isThere && (id === undefined || (await recordAt(world, path))?.id === id)
    if (isIt) {
      await files.makeFolder(dirname(target), { parents: true })
      await files.rename(from, target)
    }
    if (await isFolder(world, dirname(target))) await files.syncFolder(dirname(target))
    await files.syncFolder(dirname(from))
  },
}

async function isFolder({ catalogue }: StepWorld, path: string): Promise<boolean> {
  return (await statOf(catalogue.files, path))?.kind === 'folder'
}

async function areSame(world: StepWorld, path: string, other: string): Promise<boolean> {
  const { files } = world.catalogue
  const [first, second] = await absolutes(world, path, other)
  try {
    return isSameFile(await files.stat(first), await files.stat(second))
  } catch (error) {
    if (error instanceof CowpointError && error.code === 'FILE_NOT_FOUND') return false
    throw error
  }
}

async function absolutes<const P extends readonly string[]>(
  { catalogue }: StepWorld,
  ...paths: P
): Promise<{ -readonly [I in keyof P]: string }> {
  const found: string[] = []
  for (const path of paths) found.push(await catalogue.toAbsolute(path))
  return found as { -readonly [I in keyof P]: string }
}
