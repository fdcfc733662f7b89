/**
 * Loads a package at its first use and not at import, and out of sight of bundlers, which cannot
 * carry native code or WebAssembly.
 */

import { createRequire } from 'node:module'

/** The CommonJS exports of the package `name`; throws as `require` does. */
export function loadPackage(name: string): unknown {
  // A bundle of CommonJS form has a `require` already, and no import.meta.
  return typeof require === 'function' ? require(name) : createRequire(import.meta.url)(name)
}

/** The path of the file that `loadPackage(name)` would load; throws as `require.resolve` does. */
export function resolvePackage(name: string): string {
  return typeof require === 'function'
    ? require.resolve(name)
    : createRequire(import.meta.url).resolve(name)
}
