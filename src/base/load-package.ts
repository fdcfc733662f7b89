/**
 * Loads a package at its first use and not at import, and out of sight of bundlers, which cannot
 * carry native code or WebAssembly.
 */

import { createRequire } from 'node:module'

let loader: NodeJS.Require | undefined

/** Never the name `require`: a bundler puts something in its place that knows no packages. */
function load(): NodeJS.Require {
  loader ??= createRequire(import.meta.url)
  return loader
}

/** The CommonJS exports of the package `name`; throws as `require` does. */
export function loadPackage(name: string): unknown {
  return load()(name)
}

/** The path of the file that `loadPackage(name)` would load; throws as `require.resolve` does. */
export function resolvePackage(name: string): string {
  return load().resolve(name)
}

/** The folders in which `loadPackage` looks for packages, nearest first. */
export function packageFolders(): readonly string[] {
  return load().resolve.paths('package') ?? []
}
