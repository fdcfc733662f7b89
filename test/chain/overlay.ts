/** Overlays whose references say anything at all, which qemu-img itself would not write. */

import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { EXTENSION, INCOMPATIBLE } from '../../src/qcow2/layout/constants.ts'
import { textExtension } from '../../src/qcow2/layout/extensions.ts'
import { encodeHeader, type Header, parseHeader } from '../../src/qcow2/layout/header.ts'
import { qemuImgOk } from '../support/qemu.ts'

/** What the image is to say of itself. */
export interface OverlayOptions {
  readonly backing?: string
  readonly backingFormat?: string
  readonly dataFile?: string
  readonly size?: string
  readonly options?: string
}

/** Makes a qcow2 image at `path`, of 1 MiB where not said otherwise, with exactly these references. */
export async function makeOverlay(path: string, overlay: OverlayOptions = {}): Promise<void> {
  const settings = overlay.options === undefined ? [] : ['-o', overlay.options]
  await qemuImgOk(['create', '-q', '-f', 'qcow2', ...settings, path, overlay.size ?? '1M'])
  changeHeader(path, (header) => {
    const extensions = [...header.extensions]
    if (overlay.backingFormat !== undefined) {
      extensions.push(textExtension(EXTENSION.backingFormat, overlay.backingFormat))
    }
    if (overlay.dataFile === undefined)
      return { ...header, extensions, backingName: overlay.backing }
    extensions.push(textExtension(EXTENSION.dataFile, overlay.dataFile))
    return {
      ...header,
      extensions,
      backingName: overlay.backing,
      incompatibleFeatures: header.incompatibleFeatures | INCOMPATIBLE.dataFile,
    }
  })
}

/** Rewrites the header cluster of an image. */
export function changeHeader(path: string, change: (header: Header) => Header): void {
  const fd = openSync(path, 'r+')
  try {
    const bytes = new Uint8Array(2 * 1024 * 1024)
    const count = readSync(fd, bytes, 0, bytes.length, 0)
    const clusterSize = 2 ** (bytes[23] as number)
    const header = parseHeader(bytes.subarray(0, Math.min(count, clusterSize)))
    writeSync(fd, encodeHeader(change(header)), 0, clusterSize, 0)
  } finally {
    closeSync(fd)
  }
}
