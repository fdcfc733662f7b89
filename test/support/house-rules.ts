/**
 * The rules of the house that neither the compiler nor the linter knows: floors, doors, homes of packages, sizes and
 * names of files, comments. Each rule takes a file and gives complaints; test/tidy.test.ts holds the tree to them.
 */

import { posix } from 'node:path'
import { blankOut, importsOf } from './source-text.ts'

/** A file of the tree: its path from the root with `/`, and its text. */
export interface SourceFile {
  readonly path: string
  readonly text: string
}

/** From a file to what is wrong with it; each complaint is one line. */
export type Rule = (file: SourceFile) => string[]

/** The floor of each room; a room imports lower floors only. */
export const FLOORS: Readonly<Record<string, number>> = {
  base: 1,
  block: 2,
  control: 2,
  native: 2,
  nbd: 3,
  storage: 3,
  codec: 3,
  qcow2: 4,
  chain: 5,
  machine: 6,
  backup: 7,
  checkpoint: 8,
  testing: 9,
  cli: 9,
  index: 9,
}

const QCOW2_ORDER = ['layout', 'metadata', 'io', 'verbs', 'image', 'index']

/** Rooms that a part must not know although they are below it. */
const STRANGERS: readonly { part: RegExp; rooms: readonly string[] }[] = [
  { part: /^src\/qcow2\//, rooms: ['storage', 'nbd', 'native', 'control'] },
  { part: /^src\/qcow2\/layout\//, rooms: ['block', 'codec'] },
]

/** Where a package or a part of Node may be used; what is not listed may not be used at all. */
const HOMES: readonly { specifier: RegExp; home: RegExp }[] = [
  { specifier: /^koffi$/, home: /^src\/native\// },
  { specifier: /^lz4-napi$/, home: /^src\/codec\/lz4\.ts$/ },
  { specifier: /zstd/, home: /^src\/codec\// },
  { specifier: /^node:zlib$/, home: /^src\/codec\// },
  { specifier: /^yargs(-parser)?$/, home: /^src\/cli\// },
  { specifier: /^zod(\/mini)?$/, home: /^src\/(base\/parse\.ts$|.*(schema|manifest)\.ts$)/ },
  // Standard output is a descriptor of the process, and the command's own code no file of the engine either.
  {
    specifier: /^node:fs(\/promises)?$/,
    home: /^src\/(storage\/|cli\/(sink|chunks|compile-cache)\.ts$)/,
  },
  { specifier: /^node:https?$/, home: /^src\/storage\// },
  { specifier: /^node:net$/, home: /^src\/(nbd|control)\// },
  { specifier: /^node:tls$/, home: /^src\/nbd\// },
  { specifier: /^node:child_process$/, home: /^src\/(cli\/|native\/lock-child\.ts$)/ },
  {
    specifier: /^node:(buffer|crypto|events|module|os|path|perf_hooks|stream|timers|url|util)\b/,
    home: /^src\//,
  },
  { specifier: /^node:worker_threads$/, home: /^src\// },
  { specifier: /^node:(v8|vm)$/, home: /^src\/cli\// },
]

/** Words that say nothing about what a file holds. */
const EMPTY_WORDS = /^(utils?|helpers?|common|misc|types|managers?)$/

const MOST_LINES = 400
const MOST_OPENING_LINES = 6

/** A room imports lower floors only, and other rooms through their door; qcow2 has an order within. */
export const keepsFloorsAndDoors: Rule = ({ path, text }) => {
  const room = roomOf(path)
  if (room === undefined) return []
  const complaints: string[] = []
  for (const { specifier, lineNumber } of importsOf(text)) {
    if (!specifier.startsWith('.')) continue
    const target = posix.join(posix.dirname(path), specifier)
    const complaint = importComplaint(path, room, target)
    if (complaint !== undefined) complaints.push(`${path}:${lineNumber}: ${complaint}`)
  }
  return complaints
}

function importComplaint(path: string, room: string, target: string): string | undefined {
  if (target === 'package.json') return room === 'cli' ? undefined : 'package.json is for cli'
  const other = roomOf(target)
  if (other === undefined) return `${target} lies outside src`
  if (room === other) return room === 'qcow2' ? qcow2Complaint(path, target) : undefined
  const [own, its] = [FLOORS[room], FLOORS[other]]
  if (own === undefined || its === undefined) return `${room} or ${other} has no floor`
  if (its >= own) return `${room} (floor ${own}) imports ${other} (floor ${its})`
  if (STRANGERS.some(({ part, rooms }) => part.test(path) && rooms.includes(other))) {
    return `${posix.dirname(path)} must not know ${other}`
  }
  const isDoor = target === `src/${other}/index.ts`
  if (other !== 'base' && !isDoor) return `${target} is behind the door of ${other}`
  return undefined
}

function roomOf(path: string): string | undefined {
  return /^src\/([^/]+?)(?:\.ts|\/.*)$/.exec(path)?.[1]
}

function qcow2Complaint(path: string, target: string): string | undefined {
  const place = (file: string): number => {
    const [, folder, name] = /^src\/qcow2\/(?:([^/]+)\/.*|([^/]+)\.ts)$/.exec(file) ?? []
    const direct = name === 'image' || name === 'index' ? name : 'verbs'
    return QCOW2_ORDER.indexOf(folder ?? direct)
  }
  const [own, its] = [place(path), place(target)]
  if (own < 0 || its < 0) return `${own < 0 ? path : target} has no place within qcow2`
  if (its <= own) return undefined
  return `qcow2 ${QCOW2_ORDER[own]} imports ${QCOW2_ORDER[its]}`
}

/** Packages and parts of Node are used in their homes only. */
export const keepsPackagesAtHome: Rule = ({ path, text }) =>
  importsOf(text).flatMap(({ specifier, lineNumber }) => {
    if (specifier.startsWith('.')) return []
    const homes = HOMES.filter((one) => one.specifier.test(specifier))
    if (homes.some(({ home }) => home.test(path))) return []
    const reason = homes.length > 0 ? 'is not at home here' : 'has no home at all'
    return [`${path}:${lineNumber}: ${specifier} ${reason}`]
  })

/**
 * The process is touched in cli/ only; what it is (platform, pid, its clock) may be asked anywhere, native/ loads binaries into
 * it, and load-package.ts parts of Node. Only cli/ prints.
 */
export const leavesTheProcessToTheCli: Rule = ({ path, text }) => {
  if (path.startsWith('src/cli/')) return []
  return find(
    { path, text: blankOut(text, { strings: true }) },
    path === 'src/base/load-package.ts'
      ? /\bprocess\.(?!getBuiltinModule\b)\w+|\bconsole\.\w+/g
      : path.startsWith('src/native/')
        ? /\bprocess\.(?!(?:platform|arch|pid|versions|hrtime|dlopen)\b)\w+|\bconsole\.\w+/g
        : /\bprocess\.(?!(?:platform|arch|pid|versions|hrtime)\b)\w+|\bconsole\.\w+/g,
    'is for cli/',
  )
}

/** Names are kebab-case and say something. */
export const hasASpeakingName: Rule = ({ path }) =>
  path.split('/').flatMap((part) => {
    const [word = '', ...rest] = part.split('.')
    if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(word)) return [`${path}: ${part} is not kebab-case`]
    const empty = [...word.split('-'), ...rest].find((one) => EMPTY_WORDS.test(one))
    return empty === undefined ? [] : [`${path}: the name says nothing: ${empty}`]
  })

/** At most 400 lines. */
export const staysShort: Rule = ({ path, text }) => {
  const lineCount = text.replace(/\n$/, '').split('\n').length
  return lineCount <= MOST_LINES ? [] : [`${path}: ${lineCount} lines, ${MOST_LINES} at most`]
}

/** A file opens with one to six lines about itself. */
export const opensWithAComment: Rule = ({ path, text }) => {
  const opening = /^(?:#!.*\n)?\/\*\*([\s\S]*?)\*\/\n\n/.exec(text)?.[1]
  if (opening === undefined) return [`${path}: does not open with a comment and an empty line`]
  const lineCount = opening.split('\n').filter((line) => /[^\s*]/.test(line)).length
  if (lineCount >= 1 && lineCount <= MOST_OPENING_LINES) return []
  return [
    `${path}: opens with ${lineCount} lines about itself, 1 to ${MOST_OPENING_LINES} are wanted`,
  ]
}

const EXPORTED =
  /^export (?:declare )?(?:abstract )?(?:async )?(?:function\*?|class|interface|type|const|let) (\w+)/

/** Every exported symbol has a doc comment; of overloads, the first. */
export const documentsItsExports: Rule = ({ path, text }) => {
  const lines = text.split('\n')
  const documented = new Set<string>()
  return lines.flatMap((line, index) => {
    const name = EXPORTED.exec(line)?.[1]
    if (name === undefined || documented.has(name)) return []
    if (/\*\/\s*$/.test(lines[index - 1] ?? '')) {
      documented.add(name)
      return []
    }
    return [`${path}:${index + 1}: ${name} is exported without a doc comment`]
  })
}

/** Nothing is left for later. */
export const leavesNothingOpen: Rule = (file) =>
  find(file, /\b(?:TO(?:)DO|FIX(?:)ME|XX(?:)X)\b/g, 'is left open')

/** No test is left out, and none keeps the others out. */
export const runsEveryTest: Rule = ({ path, text }) =>
  find(
    { path, text: blankOut(text, { strings: true }) },
    /\b(?:describe|it|test|suite)\.(?:only|skip|todo|fails)\b/g,
    'keeps tests from running',
  )

function find({ path, text }: SourceFile, pattern: RegExp, complaint: string): string[] {
  return [...text.matchAll(pattern)].map(({ 0: found, index }) => {
    return `${path}:${text.slice(0, index).split('\n').length}: ${found} ${complaint}`
  })
}
