/** A family of files as a tree of text, and as a graph. */

import { formatSize } from '../base/units.ts'
import type { Family, FamilyLink, FamilyMember } from './family.ts'

/** The tree, bases first, one line for each file; `*` marks those that were asked for. */
export function familyLines({ members }: Family): string[] {
  const lines: string[] = []
  const overlays = new Map<number, number[]>()
  for (const [at, { backing }] of members.entries()) {
    if (!isTreeLink(backing)) continue
    overlays.set(backing.member, [...(overlays.get(backing.member) ?? []), at])
  }
  const put = (index: number, head: string, indent: string): void => {
    const member = members[index] as FamilyMember
    lines.push(`${head}${visible(member.path)}${facts(member)}`)
    const above = overlays.get(index) ?? []
    for (const [at, overlay] of above.entries()) {
      const isLast = at === above.length - 1
      put(overlay, indent + (isLast ? '└─ ' : '├─ '), indent + (isLast ? '   ' : '│  '))
    }
  }
  for (const [index, { backing }] of members.entries()) {
    if (isTreeLink(backing)) continue
    if (backing === undefined) put(index, '', '')
    else {
      lines.push(`${visible(backing.path)}  ${backing.state}: ${visible(backing.message)}`)
      put(index, '└─ ', '   ')
    }
  }
  return lines
}

function isTreeLink(
  link: FamilyLink | undefined,
): link is FamilyLink & { readonly member: number } {
  return link?.member !== undefined && link.state !== 'loop'
}

function facts(member: FamilyMember): string {
  const { asked, backing, dataFile, depth, format, otherPaths, size, snapshots, stat } = member
  const parts = [
    format,
    ...(size === undefined ? [] : [formatSize(size)]),
    `${formatSize(stat.allocated)} on disk`,
    `depth ${depth}`,
  ]
  if (snapshots.length > 0) {
    const names = snapshots.slice(0, 5).map(({ name }) => visible(name))
    const more = snapshots.length > 5 ? ', …' : ''
    parts.push(`${snapshots.length} snapshots (${names.join(', ')}${more})`)
  }
  if (otherPaths.length > 0) parts.push(`also ${otherPaths.map(visible).join(', ')}`)
  if (dataFile !== undefined) {
    const state = dataFile.state === 'good' ? '' : ` ${dataFile.state}`
    parts.push(`data in ${visible(dataFile.path)}${state}`)
  }
  if (backing?.state === 'changed') parts.push(`changed base: it ${backing.message}`)
  return `${asked ? ' *' : ''}  ${parts.join(' · ')}`
}

/** Names come from images that need not be trusted: no control character reaches the terminal. */
function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, (unit) => {
    return `\\x${(unit.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`
  })
}

/** A graph in the words of Graphviz: an arrow leads from an image to what it stands on. */
export function familyDot({ members }: Family): string[] {
  const quoted = (text: string): string =>
    `"${visible(text).replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
  const lines = ['digraph chain {', '  rankdir=BT', '  node [shape=box]']
  for (const { path, format, asked } of members) {
    lines.push(
      `  ${quoted(path)} [label=${quoted(`${path} (${format})`)}${asked ? ', style=bold' : ''}]`,
    )
  }
  for (const { path, backing, dataFile } of members) {
    for (const link of [backing, dataFile]) {
      if (link === undefined) continue
      const target = link.member === undefined ? link.path : (members[link.member]?.path ?? '')
      const looks: string[] = []
      if (link.state !== 'good') looks.push(`label=${quoted(link.state)}`, 'color=red')
      if (link === dataFile) looks.push('style=dashed')
      const shown = looks.length === 0 ? '' : ` [${looks.join(', ')}]`
      lines.push(`  ${quoted(path)} -> ${quoted(target)}${shown}`)
    }
  }
  return [...lines, '}']
}
