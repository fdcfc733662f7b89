/**
 * Foreign data at the door: runs a zod schema (classic or mini) over a value and turns what it
 * finds into one of the five errors, naming the field. Imports no zod itself, so it costs nothing
 * at start.
 */

import { ImageError, RemoteError, UsageError } from './errors.ts'

/** The part of a zod schema that is used here. */
export interface Schema<T> {
  safeParse(
    value: unknown,
    how?: { readonly jitless: boolean },
  ): { success: true; data: T } | { success: false; error: SchemaFailure }
}

interface SchemaFailure {
  readonly issues: readonly {
    readonly path: readonly PropertyKey[]
    readonly message: string
  }[]
}

/** Who handed us the value, and so who has to act. */
export type Origin = 'caller' | 'image' | 'peer'

const ERRORS = { caller: UsageError, image: ImageError, peer: RemoteError }

/** How a failure is reported. */
export interface ParseOptions {
  /** What was parsed, as the message begins: `manifest`, `create options`. */
  readonly what: string
  readonly origin: Origin
  /** The error's code; `INVALID_INPUT` where left out. */
  readonly code?: string
}

/** A field's path as it is written in code: `disks[2].size`. */
export function fieldPath(path: readonly PropertyKey[]): string {
  let text = ''
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`
    else text += text === '' ? String(key) : `.${String(key)}`
  }
  return text
}

/**
 * `value` as the schema's type, or throws the error of its origin with the first field that does
 * not fit.
 */
export function parseWith<T>(schema: Schema<T>, value: unknown, options: ParseOptions): T {
  // Code that zod would generate costs a short run more than it brings a long one.
  const result = schema.safeParse(value, { jitless: true })
  if (result.success) return result.data
  const first = result.error.issues[0]
  const field = fieldPath(first?.path ?? [])
  const place = field === '' ? options.what : `${options.what} field ${field}`
  const reason = first === undefined ? 'invalid' : first.message
  throw new ERRORS[options.origin](
    options.code ?? 'INVALID_INPUT',
    `${place} does not fit: ${reason}`,
    {
      context: {
        field,
        fields: result.error.issues.slice(0, 20).map((issue) => fieldPath(issue.path)),
      },
    },
  )
}

/** As `parseWith`, from JSON text. */
export function parseJson<T>(schema: Schema<T>, text: string, options: ParseOptions): T {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    const code = options.code ?? 'INVALID_INPUT'
    throw new ERRORS[options.origin](code, `${options.what} is not JSON`, { cause })
  }
  return parseWith(schema, value, options)
}
