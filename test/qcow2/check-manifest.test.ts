/** The check over every image of test/images, against what `qemu-img check` said when they were made. */

import { describe, expect, it } from 'vitest'
import { CowpointError } from '../../src/base/errors.ts'
import type { CheckReport } from '../../src/qcow2/check.ts'
import {
  type BrokenImage,
  imageManifest,
  unpackImage,
  type WholeImage,
} from '../support/image-matrix.ts'
import { tempFolder } from '../support/temp.ts'
import { checkFile, countsOf } from './check-oracle.ts'

/** Refused by `qemu-img` for another file than the image's own, which our check does not open. */
const OTHER_FILE = /Could not open backing file|Could not open '(gone|disk)\.data'|CRYPTO secret/

async function verdictOf(image: WholeImage | BrokenImage): Promise<CheckReport | string> {
  const path = unpackImage(image, tempFolder())
  try {
    return await checkFile(path, 10)
  } catch (error) {
    if (error instanceof CowpointError) return error.message
    throw error
  }
}

function statusOf(report: CheckReport): number {
  if (report.failure !== undefined || report.checkErrors > 0) return 1
  if (report.corruptions > 0) return 2
  return report.leaks > 0 ? 3 : 0
}

const { whole, broken } = imageManifest()

describe('an image of qemu-img is judged as by qemu-img', () => {
  it.each(whole.filter((image) => image.check !== undefined))('$name: $shows', async (image) => {
    const report = await verdictOf(image)
    if (typeof report === 'string') throw new Error(report)
    const { status, ...expected } = image.check!
    if (status === 1) return expect(image.name).toMatch(/^chain-/)
    expect(countsOf(report)).toMatchObject(expected)
    expect(statusOf(report)).toBe(status)
  })
})

describe('a broken image is judged as by qemu-img', () => {
  it.each(broken)('$name: $shows', async (image) => {
    const { status, complaint, ...expected } = image.check
    const report = await verdictOf(image)
    // -1: it would have gone on for ever, or printed more than a test could hold.
    if (OTHER_FILE.test(complaint) || status === -1) {
      expect(typeof report).toBe('object')
      return
    }
    if (expected.totalClusters === undefined && complaint.startsWith('qemu-img: Could not open')) {
      expect(typeof report).toBe('string')
      return
    }
    if (typeof report === 'string') throw new Error(report)
    expect(statusOf(report)).toBe(status)
    const first = report.findings[0]?.message ?? ''
    expect(first).toBe(complaint.replace(/^qemu-img: /, ''))
    if (report.failure === undefined) expect(countsOf(report)).toMatchObject(expected)
  })
})
