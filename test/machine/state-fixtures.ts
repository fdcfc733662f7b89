/** State files as bhyve, QEMU and libvirt write them, made small: for tests of what reads them. */

/** What a bhyve checkpoint's three files hold. */
export interface BhyveFiles {
  readonly memory: Uint8Array
  readonly kernel: Uint8Array
  readonly meta: BhyveMetaFile
}

/** The meta file as JSON; lists and keys as the spelling has them. */
export type BhyveMetaFile = {
  'basic metadata': { ncpus: number; vmname: string; memsize: number; memflags: number }
  structs?: BhyveItem[]
  kern_structs?: BhyveItem[]
  devices: BhyveItem[]
}

/** An entry of either list. */
export type BhyveItem = {
  debug_name?: string
  device?: string
  snapshot_req?: number | string
  size: number
  file_offset: number
}

const STRUCTS: readonly (readonly [string, number])[] = [
  ['vhpet', 5],
  ['vm', 2],
  ['vmx', 0],
  ['vioapic', 1],
  ['vlapic', 3],
  ['vmcx', 6],
  ['vatpit', 8],
  ['vatpic', 7],
  ['vpmtmr', 9],
  ['vrtc', 10],
]
const DEVICES = ['atkbdc', 'virtio-net', 'lpc', 'ahci-hd']

/** A sound checkpoint of a machine with 1 MiB of memory, in the older spelling or the newer. */
export function bhyveFiles(spelling: 'structs' | 'kern_structs' = 'structs'): BhyveFiles {
  const memsize = 1024 * 1024
  let end = 0
  const place = (size: number): { size: number; file_offset: number } => {
    end += size
    return { size, file_offset: end - size }
  }
  const old = spelling === 'structs'
  const structs = STRUCTS.filter(([name]) => old || name !== 'vmx').map(([name, request]) =>
    old
      ? { debug_name: name, snapshot_req: request, ...place(64) }
      : { device: name, ...place(64) },
  )
  const devices = DEVICES.map((name) =>
    old ? { snapshot_req: name, ...place(32) } : { device: name, ...place(32) },
  )
  const basic = { ncpus: 2, vmname: 'guest', memsize, memflags: 0 }
  const meta: BhyveMetaFile = old
    ? { 'basic metadata': basic, structs, devices }
    : { 'basic metadata': basic, kern_structs: structs, devices }
  return { memory: new Uint8Array(memsize), kernel: new Uint8Array(end).fill(7), meta }
}

/** A stream with head and end as QEMU writes them, and bytes between. */
export function qemuStream(machine = 'pc-q35-7.2', deviceCount = 3): Buffer {
  const name = Buffer.from(machine)
  const head = Buffer.alloc(13)
  head.write('QEVM', 'latin1')
  head.writeUInt32BE(3, 4)
  head[8] = 7
  head.writeUInt32BE(name.length, 9)
  const devices = Array.from({ length: deviceCount }, (_, id) => ({ name: `d${id}`, version: 1 }))
  const json = Buffer.from(JSON.stringify({ page_size: 4096, devices }))
  const end = Buffer.alloc(6)
  end[1] = 6
  end.writeUInt32BE(json.length, 2)
  return Buffer.concat([head, name, Buffer.alloc(2000, 6), end, json])
}

/** A save image of libvirt around `stream`. */
export function libvirtSave(
  stream: Uint8Array,
  { magic = 'LibvirtQemudSave', format = 0, bigEndian = false } = {},
): Buffer {
  const xml = Buffer.alloc(512)
  xml.write("<domain type='kvm'><name>tiny</name><uuid>0a1b</uuid></domain>\0")
  const header = Buffer.alloc(92)
  header.write(magic, 'latin1')
  for (const [index, value] of [2, xml.length, 1, format].entries()) {
    if (bigEndian) header.writeUInt32BE(value, 16 + index * 4)
    else header.writeUInt32LE(value, 16 + index * 4)
  }
  return Buffer.concat([header, xml, stream])
}
