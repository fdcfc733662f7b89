/** Looks at TypeScript as text: without comments and the contents of strings, and its imports. */

/** What a source file imports, static, dynamic or by name. */
export interface Import {
  readonly specifier: string
  readonly lineNumber: number
}

const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+\n]|=>|\breturn|\btypeof)\s*$/

/** `source` with comments, and by wish the contents of strings and regular expressions, as blanks; lines keep their places. */
export function blankOut(source: string, options: { strings: boolean }): string {
  let result = ''
  let at = 0
  const blank = (length: number): void => {
    result += source.slice(at, at + length).replace(/[^\n]/g, ' ')
    at += length
  }
  while (at < source.length) {
    const rest = source.slice(at)
    const comment = /^(?:\/\/[^\n]*|\/\*[\s\S]*?\*\/)/.exec(rest)
    if (comment !== null) {
      blank(comment[0].length)
      continue
    }
    const literal = literalAt(rest, result)
    if (literal === 0) {
      result += source[at++]
    } else if (options.strings) {
      result += source[at++]
      blank(literal - 2)
      result += source[at++] ?? ''
    } else {
      result += source.slice(at, at + literal)
      at += literal
    }
  }
  return result
}

/** The length of the string or regular expression that `rest` begins with, or 0. Code inside templates counts as text. */
function literalAt(rest: string, before: string): number {
  const quoted = /^(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")/.exec(rest)
  if (quoted !== null) return quoted[0].length
  if (rest[0] === '`') return templateLength(rest)
  if (rest[0] !== '/' || !REGEX_MAY_FOLLOW.test(before.slice(-40))) return 0
  return /^\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\//.exec(rest)?.[0].length ?? 0
}

function templateLength(rest: string): number {
  let depth = 0
  for (let at = 1; at < rest.length; at++) {
    const here = rest[at] ?? ''
    if (here === '\\') at++
    else if (rest.startsWith('${', at)) {
      depth++
      at++
    } else if (here === '}' && depth > 0) depth--
    else if (depth > 0 && /['"]/.test(here)) {
      at += Math.max(1, literalAt(rest.slice(at), '')) - 1
    } else if (rest[at] === '`') {
      if (depth === 0) return at + 1
      at += templateLength(rest.slice(at)) - 1
    }
  }
  return rest.length
}

const IMPORTS =
  /\b(?:from\s*|import\s*\(\s*|import\s+|require(?:\.resolve)?\s*\(\s*|loadPackage\s*\(\s*)(['"])([^'"\n]+)\1/g

/** All imports and re-exports of a file, also those of types only. */
export function importsOf(source: string): Import[] {
  const code = blankOut(source, { strings: false })
  return [...code.matchAll(IMPORTS)].map((match) => ({
    specifier: match[2] ?? '',
    lineNumber: code.slice(0, match.index).split('\n').length,
  }))
}
