import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  copyRange,
  disableNative,
  fallocate,
  getLock,
  libdeflate,
  libzstd,
  nextData,
  nextHole,
  punchHole,
  SystemCallError,
  setLock,
  shareRange,
  zeroRange,
} from '../../src/native/index.ts'

const PAGE = 65_536

let folder: string
let path: string
let fd: number

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cowpoint-native-'))
  path = join(folder, 'file')
  fd = openSync(path, 'wx+')
})

afterEach(() => {
  closeSync(fd)
  rmSync(folder, { recursive: true })
})

function fill(offset: number, length: number, byte = 0xaa): void {
  writeSync(fd, Buffer.alloc(length, byte), 0, length, offset)
}

function allocated(): number {
  return fstatSync(fd).blocks * 512
}

describe.runIf(process.platform === 'linux')('on Linux', () => {
  it('a punched hole reads as zeroes and takes no space', () => {
    fill(0, 4 * PAGE)
    const before = allocated()
    expect(punchHole(fd, PAGE, PAGE)).toBe(true)
    expect(allocated()).toBe(before - PAGE)
    const bytes = readFileSync(path)
    expect(bytes.length).toBe(4 * PAGE)
    expect(bytes.subarray(PAGE, 2 * PAGE).equals(Buffer.alloc(PAGE))).toBe(true)
    expect(bytes.subarray(2 * PAGE).equals(Buffer.alloc(2 * PAGE, 0xaa))).toBe(true)
  })

  it('a zeroed range reads as zeroes and keeps its space', () => {
    fill(0, 2 * PAGE)
    const before = allocated()
    expect(zeroRange(fd, PAGE, PAGE)).toBe(true)
    expect(allocated()).toBe(before)
    const bytes = readFileSync(path)
    expect(bytes.subarray(PAGE).equals(Buffer.alloc(PAGE))).toBe(true)
  })

  it('reserved space enlarges the file unless that is not wanted', () => {
    expect(fallocate(fd, 0, PAGE, { keepSize: true })).toBe(true)
    expect([fstatSync(fd).size, allocated()]).toEqual([0, PAGE])
    expect(fallocate(fd, 0, PAGE)).toBe(true)
    expect(fstatSync(fd).size).toBe(PAGE)
  })

  it('data and holes are found, also far out', () => {
    const far = 2 ** 42
    fill(far, PAGE)
    fill(PAGE, PAGE)
    expect(nextData(fd, 0)).toBe(PAGE)
    expect(nextHole(fd, PAGE + 5)).toBe(2 * PAGE)
    expect(nextData(fd, 2 * PAGE)).toBe(far)
    expect(nextHole(fd, far)).toBe(far + PAGE)
    expect(nextData(fd, far + PAGE)).toBe(Number.POSITIVE_INFINITY)
  })

  it('a range is copied between files', () => {
    fill(PAGE, PAGE)
    const other = openSync(join(folder, 'other'), 'wx+')
    try {
      expect(copyRange({ fd, offset: PAGE }, { fd: other, offset: 512 }, 1000)).toBe(1000)
      expect(copyRange({ fd, offset: 2 * PAGE }, { fd: other, offset: 0 }, 10)).toBe(0)
    } finally {
      closeSync(other)
    }
    const expected = Buffer.concat([Buffer.alloc(512), Buffer.alloc(1000, 0xaa)])
    expect(readFileSync(join(folder, 'other')).equals(expected)).toBe(true)
  })

  it('a range is shared between files, or nothing is done', () => {
    fill(0, 16 * PAGE)
    const other = openSync(join(folder, 'sharing'), 'wx+')
    try {
      const isShared = shareRange({ fd, offset: 0 }, { fd: other, offset: 0 }, 16 * PAGE)
      const bytes = readFileSync(join(folder, 'sharing'))
      expect(bytes.equals(Buffer.alloc(isShared ? 16 * PAGE : 0, 0xaa))).toBe(true)
      expect(shareRange({ fd, offset: 1 }, { fd: other, offset: 0 }, 10)).toBe(false)
    } finally {
      closeSync(other)
    }
  })

  it('a lock of one open file stands in the way of another, until it is freed', () => {
    const other = openSync(path, 'r+')
    try {
      const reading = { kind: 'read', offset: 100, length: 1 } as const
      const writing = { kind: 'write', offset: 90, length: 20 } as const
      expect(setLock(fd, reading)).toBe(true)
      expect(setLock(other, reading)).toBe(true)
      expect(setLock(other, writing)).toBe(false)
      expect(getLock(other, writing)).toEqual(reading)
      expect(setLock(fd, { kind: 'none', offset: 0, length: 0 })).toBe(true)
      expect(getLock(other, writing)?.kind).toBe('none')
      expect(setLock(other, writing)).toBe(true)
      expect(getLock(fd, { ...reading, offset: 95 })).toEqual(writing)
    } finally {
      closeSync(other)
    }
    expect(setLock(fd, { kind: 'write', offset: 0, length: 0 })).toBe(true)
  })

  it('a failure is an error with the name of its errno', () => {
    const readable = openSync(path, 'r')
    try {
      expect(() => punchHole(readable, 0, PAGE)).toThrow(SystemCallError)
      expect(() => punchHole(readable, 0, PAGE)).toThrow(
        expect.objectContaining({ code: 'EBADF', syscall: 'fallocate' }),
      )
      expect(() => nextData(-1, 0)).toThrow(expect.objectContaining({ code: 'EBADF' }))
    } finally {
      closeSync(readable)
    }
  })
})

it('without native calls everything says that it is not supported', () => {
  disableNative(true)
  try {
    const end = { fd, offset: 0 }
    const done = [punchHole(fd, 0, 1), zeroRange(fd, 0, 1), fallocate(fd, 0, 1)]
    expect([...done, shareRange(end, end, 1)]).toEqual([false, false, false, false])
    const lock = { kind: 'read', offset: 0, length: 1 } as const
    const answers = [
      nextData(fd, 0),
      nextHole(fd, 0),
      copyRange({ fd, offset: 0 }, { fd, offset: 0 }, 1),
      setLock(fd, lock),
      getLock(fd, lock),
      libdeflate(),
      libzstd(),
    ]
    expect(answers.every((answer) => answer === undefined)).toBe(true)
  } finally {
    disableNative(false)
  }
})
