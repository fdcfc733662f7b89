/** Names and ids of checkpoints: what may be one, how they are written, and where ids of what carries none come from. */

import { UsageError } from '../base/errors.ts'
import { randomDigits, sha256 } from '../base/hash.ts'

/** Bytes of a name at most, in UTF-8. It lies in the header sector of a frozen layer, where room is scarce. */
export const NAME_LIMIT = 128
const ID_DIGITS = /^[0-9a-f]{32}$/
const SHORTEST_PREFIX = 4

/** A new id: 16 random bytes as 32 hexadecimal digits. */
export function newId(): string {
  return randomDigits(16)
}

/** Whether `text` is an id as it is stored: 32 lower-case hexadecimal digits. */
export function isId(text: string): boolean {
  return ID_DIGITS.test(text)
}

/** The id of what carries none: always the same one for the same `facts`. */
export function derivedId(...facts: readonly (string | number)[]): string {
  return sha256(facts.map((fact) => `${String(fact).length}:${fact}`).join('')).slice(0, 32)
}

/** The digits of `@id` as a user wrote them, or undefined where `text` is no id. Throws where there are too few digits. */
export function idPrefix(text: string): string | undefined {
  if (!text.startsWith('@')) return undefined
  const digits = text.slice(1).toLowerCase()
  if (!/^[0-9a-f]{0,32}$/.test(digits) || digits.length < SHORTEST_PREFIX) {
    throw new UsageError(
      'CHECKPOINT_NAME',
      `'${text}' is no id: @ and ${SHORTEST_PREFIX} to 32 hexadecimal digits`,
    )
  }
  return digits
}

/** An id as it is shown where it need not be whole. */
export function shortId(id: string): string {
  return `@${id.slice(0, 8)}`
}

/** Throws unless a checkpoint may be called `name`. */
export function checkCheckpointName(name: string): void {
  const fail = (why: string) =>
    new UsageError('CHECKPOINT_NAME', `checkpoint name ${why}`, { context: { name } })
  if (name === '') throw fail('is empty')
  if (name.startsWith('@')) throw fail('begins with @, as ids do')
  if (/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}]/u.test(name)) throw fail('has a control character')
  const length = Buffer.byteLength(name)
  if (length > NAME_LIMIT) throw fail(`of ${length} bytes is longer than ${NAME_LIMIT}`)
}

/** A name as a part of a file name: letters, digits and a few marks stay. */
export function fileWord(name: string): string {
  const word = name.replace(/[^\p{L}\p{N}_+@=-]+/gu, '-').replace(/^-+|-+$/g, '')
  return word === '' ? 'checkpoint' : word.slice(0, 60)
}
