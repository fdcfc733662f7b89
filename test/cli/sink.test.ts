import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { createSink } from '../../src/cli/sink.ts'
import { tempFolder } from '../support/temp.ts'

const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_NONBLOCK } = fs.constants

let opened: number[] = []

afterEach(() => {
  for (const fd of opened) fs.closeSync(fd)
  opened = []
})

function open(path: string, flags: number): number {
  const fd = fs.openSync(path, flags)
  opened.push(fd)
  return fd
}

function makePipe(): string {
  const path = join(tempFolder(), 'pipe')
  execFileSync('mkfifo', [path])
  return path
}

/** A stream in the place of Node's that keeps what it gets. */
function fakeStream(taken: Uint8Array[]): NodeJS.WriteStream {
  const stream = {
    on: () => stream,
    write: (bytes: Uint8Array, done: () => void) => {
      taken.push(bytes)
      done()
    },
  }
  return stream as unknown as NodeJS.WriteStream
}

const unwanted = (): never => {
  throw new Error('not wanted')
}

describe('a sink', () => {
  test('that is a file has everything in order, and asks for no stream', async () => {
    const path = join(tempFolder(), 'file')
    const sink = createSink({
      fd: open(path, O_RDWR | O_CREAT),
      open: unwanted,
      onFailure: unwanted,
    })
    await sink.write('one ')
    await sink.write(new TextEncoder().encode('two '))
    await sink.write('three…')
    expect(fs.readFileSync(path, 'utf8')).toBe('one two three…')
    expect({ isTerminal: sink.isTerminal, columns: sink.columnCount }).toEqual({
      ...{ isTerminal: false, columns: 80 },
    })
  })

  test('that is a full pipe leaves the rest, and all that follows, to the stream', async () => {
    const path = makePipe()
    const reader = open(path, O_RDWR | O_NONBLOCK)
    const streamed: Uint8Array[] = []
    const sink = createSink({ fd: reader, open: () => fakeStream(streamed), onFailure: unwanted })
    const text = Array.from({ length: 60_000 }, (_, index) => `${index}\n`).join('')
    await sink.write(text)
    const read = Buffer.alloc(1024 * 1024)
    const direct = read.subarray(0, fs.readSync(reader, read))
    await sink.write('behind')
    expect(direct.length).toBeLessThan(text.length)
    expect(Buffer.concat([direct, ...streamed.map((part) => Buffer.from(part))]).toString()).toBe(
      `${text}behind`,
    )
  })

  test('whose reader is gone says so once, and drops the rest', async () => {
    const path = makePipe()
    const reader = fs.openSync(path, O_RDONLY | O_NONBLOCK)
    const codes: (string | undefined)[] = []
    const sink = createSink({
      fd: open(path, O_WRONLY),
      open: unwanted,
      onFailure: ({ code }) => codes.push(code),
    })
    await sink.write('taken')
    fs.closeSync(reader)
    await sink.write('lost')
    await sink.write('lost too')
    expect(codes).toEqual(['EPIPE'])
  })

  test('that is full says why', async () => {
    const codes: (string | undefined)[] = []
    const sink = createSink({
      fd: open('/dev/full', O_WRONLY),
      open: unwanted,
      onFailure: ({ code }) => codes.push(code),
    })
    await sink.write('text')
    expect(codes).toEqual(['ENOSPC'])
  })
})
