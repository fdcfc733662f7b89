/** Names of images: what is taken, what is refused, and the text that leads back to them. */

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CowpointError, ImageError, UsageError } from '../../src/base/errors.ts'
import { parseLocation, withFormat } from '../../src/chain/location.ts'
import { filenameOf } from '../../src/chain/location-text.ts'

function code(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof UsageError || error instanceof ImageError) return error.code
    throw error
  }
  return 'accepted'
}

function text(name: string): string {
  const location = parseLocation(name)
  return filenameOf({ location, path: location.path, driver: location.driver ?? 'file' })
}

describe('a name of a file', () => {
  it('is a path where no colon comes before the first slash', () => {
    for (const name of ['a.qcow2', '/x/a.qcow2', './nbd:host', 'x/y:z', 'C:\\vms\\a.qcow2']) {
      expect(parseLocation(name)).toEqual({
        text: name,
        hasProtocol: false,
        formats: [{ driver: undefined }],
        driver: undefined,
        path: name,
      })
    }
  })

  it('loses one file: prefix, and only one', () => {
    expect(parseLocation('file:x/a.raw')).toMatchObject({ path: 'x/a.raw', hasProtocol: true })
    expect(parseLocation('file:file:a')).toMatchObject({ path: 'file:a' })
  })

  it.each(['nbd:host:10809', 'nbd+unix:///d', 'https://host/x', 'rbd:pool/x', 'foo:bar', ':x'])(
    'with a protocol is refused by its name: %s',
    (name) => {
      const protocol = name.slice(0, name.indexOf(':'))
      expect(() => parseLocation(name, 'image')).toThrow(
        expect.objectContaining({
          name: 'ImageError',
          code: 'PROTOCOL_NOT_SUPPORTED',
          message: `protocol ${protocol} is not supported`,
          context: { location: name, protocol },
        }),
      )
    },
  )

  it('is refused where it is empty or holds a NUL', () => {
    for (const name of [
      '',
      'file:',
      'a\0b',
      'json:{"driver":"raw","file":{"filename":"a\\u0000"}}',
    ]) {
      expect(code(() => parseLocation(name))).toBe('INVALID_LOCATION')
    }
  })

  it('may hold control characters where the caller wrote it, not where an image did', () => {
    expect(parseLocation('a\nb').path).toBe('a\nb')
    for (const name of ['a\nb', 'a\x1b[2J', 'a\x7f', 'json:{"file":{"filename":"a\\nb"}}']) {
      expect(code(() => parseLocation(name, 'image'))).toBe('INVALID_LOCATION')
    }
  })
})

describe('a json: name', () => {
  const file = '{"driver":"file","filename":"/x/a"}'

  it.each([
    `json:{"driver":"qcow2","file":${file}}`,
    'json:{"driver":"qcow2","file.driver":"file","file.filename":"/x/a"}',
    "json: {'driver':'qcow2','file':{'driver':'file','filename':'\\/x\\u002fa'}}",
    `json:{"driver":"qcow2","node-name":"n","read-only":true,"cache":{"direct":false},"l2-cache-size":"1M","file":{"driver":"file","filename":"/x/a","locking":"off"}}`,
  ])('is a stack of formats over a file, however it is written: %s', (name) => {
    expect(parseLocation(name)).toEqual({
      text: name,
      hasProtocol: true,
      formats: [{ driver: 'qcow2' }],
      driver: 'file',
      path: '/x/a',
    })
  })

  it('keeps the window of raw as it was written', () => {
    expect(
      parseLocation(`json:{"driver":"raw","offset":"64k","size":1024,"file":${file}}`).formats,
    ).toEqual([{ driver: 'raw', offset: '64k', size: 1024 }])
    expect(
      parseLocation(`json:{"driver":"qcow2","file":{"driver":"raw","offset":512,"file":${file}}}`)
        .formats,
    ).toEqual([{ driver: 'qcow2' }, { driver: 'raw', offset: 512 }])
  })

  it('may leave out the driver of the file, and the format above a file', () => {
    expect(parseLocation('json:{"driver":"raw","file":{"filename":"a"}}').driver).toBeUndefined()
    expect(parseLocation(`json:{"file":${file}}`).formats).toEqual([{ driver: undefined }])
  })

  it('may mean the file itself', () => {
    expect(parseLocation(`json:${file}`)).toMatchObject({ formats: [], driver: 'file' })
  })

  it('may take the backing file away or put another in its place', () => {
    const without = `json:{"driver":"qcow2","backing":null,"file":${file}}`
    expect(parseLocation(without).backing).toBeNull()
    const other = `json:{"driver":"qcow2","backing":{"driver":"raw","file.filename":"b"},"file":${file}}`
    expect(parseLocation(other).backing).toMatchObject({ path: 'b', formats: [{ driver: 'raw' }] })
  })

  it.each([
    ['json:nope', 'INVALID_LOCATION'],
    ['json:["a"]', 'INVALID_LOCATION'],
    ['json:{}', 'INVALID_LOCATION'],
    ['json:{"driver":"raw"}', 'INVALID_LOCATION'],
    ['json:{"filename":"a"}', 'INVALID_LOCATION'],
    ['json:{"driver":"raw","filename":"a"}', 'OPTION_NOT_SUPPORTED'],
    ['json:{"driver":"raw","file":"node0"}', 'INVALID_LOCATION'],
    ['json:{"driver":"raw","file":{"driver":"file"}}', 'INVALID_LOCATION'],
    ['json:{"driver":"raw","file":{"driver":"file","filename":""}}', 'INVALID_LOCATION'],
    ['json:{"driver":"raw","file":{"driver":"file","filename":7}}', 'INVALID_LOCATION'],
    [`json:{"driver":"raw","driver":"raw","file":${file}}`, 'INVALID_LOCATION'],
    [`json:{"driver":"raw","file":${file}} x`, 'INVALID_LOCATION'],
    [`json:{"driver":"raw","file":${file},}`, 'INVALID_LOCATION'],
    [`json:{"driver":"raw","file":[${file}]}`, 'INVALID_LOCATION'],
    [`json:{"driver":"raw","bogus":1,"file":${file}}`, 'OPTION_NOT_SUPPORTED'],
    ['json:{"driver":"raw","file":{"filename":"a","bogus":1}}', 'OPTION_NOT_SUPPORTED'],
    [`json:{"driver":"qcow2","data-file":${file},"file":${file}}`, 'OPTION_NOT_SUPPORTED'],
    [`json:{"driver":"qcow2","encrypt.key-secret":"s","file":${file}}`, 'OPTION_NOT_SUPPORTED'],
    ['json:{"driver":"nbd","host":"h"}', 'PROTOCOL_NOT_SUPPORTED'],
    [
      'json:{"driver":"raw","file":{"driver":"ssh","host":"h","path":"p"}}',
      'PROTOCOL_NOT_SUPPORTED',
    ],
    [`json:{"driver":"vmdk","file":${file}}`, 'FORMAT_NOT_SUPPORTED'],
    [`json:{"driver":"raw","file":{"driver":"qcow2","file":${file}}}`, 'FORMAT_NOT_SUPPORTED'],
    [`json:${'{"file":'.repeat(500)}${'}'.repeat(500)}`, 'INVALID_LOCATION'],
  ])('is refused where it asks for what there is not: %s', (name, expected) => {
    expect(code(() => parseLocation(name))).toBe(expected)
  })
})

describe('a demanded format', () => {
  it('takes the place of the uppermost driver', () => {
    expect(withFormat(parseLocation('a'), 'raw').formats).toEqual([{ driver: 'raw' }])
    const json = parseLocation('json:{"driver":"raw","file":{"driver":"file","filename":"a"}}')
    expect(withFormat(json, 'qcow2').formats).toEqual([{ driver: 'qcow2' }])
  })

  it('can be the file itself', () => {
    expect(withFormat(parseLocation('a'), 'file')).toMatchObject({ formats: [], driver: 'file' })
  })

  it('is refused where it is none, or there is nothing for it to stand on', () => {
    expect(code(() => withFormat(parseLocation('a'), 'vmdk'))).toBe('FORMAT_NOT_SUPPORTED')
    const bare = parseLocation('json:{"driver":"file","filename":"a"}')
    expect(code(() => withFormat(bare, 'raw'))).toBe('INVALID_LOCATION')
    const cut = parseLocation('json:{"driver":"raw","offset":512,"file":{"filename":"a"}}')
    expect(code(() => withFormat(cut, 'qcow2'))).toBe('OPTION_NOT_SUPPORTED')
  })
})

describe('the text of a location', () => {
  it('is the path where that leads to the same image', () => {
    expect(text('x/a')).toBe('x/a')
    expect(text('file:x/a')).toBe('x/a')
    expect(text('json:{"driver":"qcow2","file":{"driver":"file","filename":"x/a"}}')).toBe('x/a')
    expect(text('json:{"driver":"file","filename":"x/a"}')).toBe('x/a')
  })

  it('is canonical json: where raw has a window or stands between', () => {
    expect(
      text('json:{"driver":"raw","size":"64k","offset":512,"file.filename":"x/\\"ü\\\\u00e9"}'),
    ).toBe(
      'json:{"offset": 512, "driver": "raw", "size": "64k", "file": {"driver": "file", "filename": "x/\\"\\u00FC\\\\u00e9"}}',
    )
    expect(
      text(
        'json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"a"}}}',
      ),
    ).toBe(
      'json:{"driver": "qcow2", "file": {"driver": "raw", "file": {"driver": "file", "filename": "a"}}}',
    )
  })
})

describe('any name', () => {
  const pieces = ['json:', 'file:', '{', '}', '"driver"', ':', ',', '"raw"', '"qcow2"', "'file'"]
  const more = ['"filename"', '"offset"', '1e999', '-1', 'null', '[', '\\u0000', '"', '/', '\n']

  it('is taken or refused, nothing else', () => {
    const text = fc.array(
      fc.oneof(fc.constantFrom(...pieces, ...more), fc.string({ maxLength: 3 })),
    )
    fc.assert(
      fc.property(text, fc.constantFrom('caller', 'image'), (words, origin) => {
        try {
          parseLocation(words.join(''), origin)
        } catch (error) {
          expect(error).toBeInstanceOf(CowpointError)
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('leads back to the same image by the text that is made of it', () => {
    const value = fc.oneof(fc.nat(), fc.constantFrom('64k', '0x200', 'ü"\\'))
    const raw = fc.record({ offset: value, size: value }, { requiredKeys: [] })
    const path = fc.string({ minLength: 1, unit: 'grapheme' }).map((name) => `/${name}`)
    fc.assert(
      fc.property(fc.array(raw, { minLength: 1, maxLength: 3 }), path, (windows, name) => {
        const options = windows.reduceRight<object>(
          (file, window) => ({ driver: 'raw', ...window, file }),
          { driver: 'file', filename: name },
        )
        const location = parseLocation(`json:${JSON.stringify(options)}`)
        const again = text(location.text)
        const { formats, driver, path: file } = parseLocation(again)
        expect(file).toBe(location.path)
        if (again.startsWith('json:')) {
          expect({ formats, driver }).toEqual({ formats: location.formats, driver: 'file' })
        }
      }),
    )
  })
})
