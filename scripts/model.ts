/**
 * Random sequences of verbs beside models that say what must be read (docs/reliability.md), on images, trees of images and
 * checkpoints. Options: `--sequences N --qemu M --seed S --jobs J --kind K --soak SECONDS`, or `--replay KEY`. What runs is
 * bundled first: code that is loaded when it is called would cost more than what it does.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { replayModel, runModel } from '../test/model/model-run.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

const { values } = parseArgs({
  options: {
    sequences: { type: 'string', default: '30000' },
    qemu: { type: 'string', default: '0' },
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: '1' },
    kind: { type: 'string' },
    soak: { type: 'string' },
    replay: { type: 'string' },
  },
})

/** Bundles the program of a process into `folder`. */
async function bundle(folder: string): Promise<string> {
  const outfile = join(folder, 'worker.mjs')
  await build({
    ...{ absWorkingDir: root, entryPoints: ['test/model/worker.ts'], outfile },
    ...{ bundle: true, format: 'esm', platform: 'node', target: 'node20.19' },
    ...{ packages: 'external', sourcemap: 'inline', logLevel: 'warning' },
  })
  return outfile
}

async function main(worker: string): Promise<boolean> {
  const print = console.log
  if (values.replay !== undefined) {
    const isGood = await replayModel(values.replay, worker, print)
    if (isGood === undefined) print(`${values.replay} is no key of a sequence`)
    return isGood === true
  }
  const { soak, kind } = values
  return runModel({
    ...{ worker, print, jobs: Number(values.jobs) },
    ...{ sequences: Number(values.sequences), qemu: Number(values.qemu) },
    seed: Number(values.seed),
    ...(kind === undefined ? {} : { kind }),
    ...(soak === undefined ? {} : { soakMs: Number(soak) * 1000 }),
  })
}

const caches = join(root, 'node_modules', '.cache')
mkdirSync(caches, { recursive: true })
const folder = mkdtempSync(join(caches, 'model-'))
try {
  process.exitCode = (await main(await bundle(folder))) ? 0 : 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
