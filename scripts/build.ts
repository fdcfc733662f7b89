/**
 * Builds what the package ships: the library with its types, and the bundled command with the licences of the packages
 * that are in the bundle.
 */

import { execFile } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { bundleCli, bundleLibrary } from './bundle.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

try {
  await rm(join(root, 'dist'), { recursive: true, force: true })
  const [inputs] = await Promise.all([
    bundleCli(join(root, 'dist/cli')),
    bundleLibrary(join(root, 'dist/lib')),
    emitTypes(),
  ])
  await writeFile(join(root, 'dist/cli/LICENSES.txt'), await licencesOf(packagesIn(inputs)))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}

async function emitTypes(): Promise<void> {
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  try {
    await promisify(execFile)(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root })
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout, { cause: error })
  }
}

/** The folders of the packages that files of the bundle come from. */
function packagesIn(files: readonly string[]): string[] {
  const folders = files.map((file) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0])
  return [...new Set(folders.filter((folder) => folder !== undefined))].sort()
}

/** The texts that those packages want to travel with their code. */
async function licencesOf(folders: readonly string[]): Promise<string> {
  const parts = ['The command contains code of these packages.\n']
  for (const folder of folders) {
    const manifest = JSON.parse(await readFile(join(root, folder, 'package.json'), 'utf8')) as {
      name: string
      version: string
      license: string
    }
    const file = (await readdir(join(root, folder))).find((name) => /^licen[cs]e/i.test(name))
    if (file === undefined) throw new Error(`package ${manifest.name} has no licence file`)
    const text = await readFile(join(root, folder, file), 'utf8')
    parts.push(`${manifest.name} ${manifest.version} (${manifest.license})\n\n${text.trim()}\n`)
  }
  return parts.join(`\n${'-'.repeat(80)}\n\n`)
}
