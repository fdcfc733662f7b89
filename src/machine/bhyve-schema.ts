/**
 * The `.meta` file of a bhyve checkpoint as data: JSON in one of two spellings, the older with `structs` whose items have a
 * `debug_name`, the newer with `kern_structs` whose items have a `device`. What the numbers mean is bhyve-state.ts's affair.
 */

import * as z from 'zod/mini'
import { parseJson } from '../base/parse.ts'

/** A range of the `.kern` file. */
export interface BhyveSection {
  readonly list: 'kernel' | 'device'
  readonly name: string
  /** bhyve's own number for a kernel structure, in the older spelling. */
  readonly request?: number
  readonly offset: number
  readonly length: number
}

/** What a `.meta` file says. */
export interface BhyveMeta {
  /** The name of the list of kernel structures, which tells the spellings apart. */
  readonly spelling: 'structs' | 'kern_structs'
  readonly vmName: string
  readonly cpuCount: number
  /** Bytes of guest memory. */
  readonly memorySize: number
  readonly memoryFlags: number
  /** Kernel structures first, each list in its own order. */
  readonly sections: readonly BhyveSection[]
}

const count = z.int().check(z.nonnegative())
const MOST_SECTIONS = 4096

const item = z.object({
  debug_name: z.optional(z.string().check(z.maxLength(256))),
  device: z.optional(z.string().check(z.maxLength(256))),
  snapshot_req: z.optional(z.union([count, z.string().check(z.maxLength(256))])),
  size: count,
  file_offset: count,
})
type Item = z.infer<typeof item>
const list = z.array(item).check(z.maxLength(MOST_SECTIONS))

const metaFile = z
  .object({
    'basic metadata': z.object({
      ncpus: count,
      vmname: z.string().check(z.maxLength(4096)),
      memsize: count,
      memflags: z.optional(z.int()),
    }),
    structs: z.optional(list),
    kern_structs: z.optional(list),
    devices: list,
  })
  .check(
    z.refine((meta) => (meta.structs === undefined) !== (meta.kern_structs === undefined), {
      error: 'one of structs and kern_structs is needed',
    }),
  )

/** Parses the text of a `.meta` file; throws an ImageError `BHYVE_META` that names the field which does not fit. */
export function parseBhyveMeta(text: string): BhyveMeta {
  const meta = parseJson(metaFile, text, {
    what: 'bhyve meta file',
    origin: 'image',
    code: 'BHYVE_META',
  })
  const basic = meta['basic metadata']
  return {
    spelling: meta.structs === undefined ? 'kern_structs' : 'structs',
    vmName: basic.vmname,
    cpuCount: basic.ncpus,
    memorySize: basic.memsize,
    memoryFlags: basic.memflags ?? 0,
    sections: [
      ...(meta.structs ?? meta.kern_structs ?? []).map((one) => section('kernel', one)),
      ...meta.devices.map((one) => section('device', one)),
    ],
  }
}

function section(list: BhyveSection['list'], one: Item): BhyveSection {
  const { snapshot_req: request, size: length, file_offset: offset } = one
  const named = one.debug_name ?? one.device ?? (typeof request === 'string' ? request : '')
  const base = { list, name: named, offset, length }
  return typeof request === 'number' ? { ...base, request } : base
}
