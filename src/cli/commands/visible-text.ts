/** Text from inside an image on a terminal: whoever wrote the image must not get to move the cursor. */

import type { Output } from '../output.ts'

/** `lines` as they are, or, for a terminal, with control characters made visible. */
export function visibleLines(lines: readonly string[], stdout: Output): readonly string[] {
  return stdout.isTerminal ? lines.map(visible) : lines
}

function visible(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  return line.replace(/[\0-\x1f\x7f-\x9f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
  })
}
