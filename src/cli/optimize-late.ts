/**
 * Verbs that move data spend their time in the kernel, but loop over entries just long enough that Node's optimizing compiler
 * sets to work, on threads that compete with the copy for the cores: a quarter of all processor time at 1 GiB. They wait with it.
 */

const VERBS = new Set([
  'checkpoint',
  'commit',
  'compact',
  'compare',
  'convert',
  'dd',
  'rebase',
  'stream',
])
/** In V8's units, which are bytes of bytecode; its own number is 67584. */
const BUDGET = 1_000_000

/** Sets the compiler's patience for the verb of this process; only in Node 20, whose compiler this was measured with. */
export function optimizeLate(verb: string | undefined): void {
  if (verb === undefined || !VERBS.has(verb) || !process.versions.node.startsWith('20.')) return
  process.getBuiltinModule('node:v8').setFlagsFromString(`--interrupt-budget=${BUDGET}`)
}
