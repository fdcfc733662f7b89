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
