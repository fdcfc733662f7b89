/**
 * Makes a fresh clone ready: checks Node's version, and installs what package-lock.json names unless that was done
 * already. Plain JavaScript without packages, because it runs before there are any.
 */

import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const LEAST_NODE = [20, 19]

const root = fileURLToPath(new URL('..', import.meta.url))

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1])) {
  console.error(`cowpoint needs Node ${LEAST_NODE.join('.')} or newer, this is ${process.version}`)
  process.exit(1)
}

/** When the file was changed last; 0 where there is none. */
function changedMs(path) {
  return statSync(root + path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

// npm writes this file as the last step of an installation. No package here needs its install script.
if (changedMs('node_modules/.package-lock.json') < changedMs('package-lock.json')) {
  console.log('Installing the packages that cowpoint is built from …')
  const words = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const { status } = spawnSync('npm', words, {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  })
  if (status !== 0) {
    console.error("cowpoint: 'npm ci' failed; see above")
    process.exit(1)
  }
}
