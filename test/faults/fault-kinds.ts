/**
 * Ways in which a host fails: which calls each one hits, what it does there, and with which codes (docs/errors.md) a verb may
 * answer. fault-files.ts carries them out.
 */

/** A call of the file system, as far as faults tell them apart. */
export interface FileCall {
  readonly name: CallName
  readonly path: string
  /** Of `open`. */
  readonly mode?: string
}

/** All calls. */
export type CallName =
  | 'open'
  | 'stat'
  | 'list'
  | 'realpath'
  | 'link'
  | 'rename'
  | 'unlink'
  | 'makeFolder'
  | 'removeFolder'
  | 'syncFolder'
  | 'fileStat'
  | 'read'
  | 'write'
  | 'truncate'
  | 'sync'
  | 'space'
  | 'seek'
  | 'lock'
  | 'close'

/** What happens at the call. */
export type Deed =
  | { readonly how: 'throw'; readonly errno: string }
  /** The transfer does so many bytes, as a function of how many were asked for. */
  | { readonly how: 'short'; readonly count: (length: number) => number }
  /** Somebody else has the lock. */
  | { readonly how: 'locked' }
  /** Before the call, somebody else does that to a base. */
  | { readonly how: 'meddle'; readonly with: 'shrink' | 'vanish' | 'change' }

/** One way to fail. */
export interface FaultKind {
  readonly name: string
  readonly hits: (call: FileCall) => boolean
  readonly deed: Deed
  /** Every call from the first hit on fails. */
  readonly lasts?: boolean
  /** What a verb may reject with; nothing where it must not notice. */
  readonly codes: readonly string[]
}

const among =
  (...names: readonly CallName[]) =>
  ({ name }: FileCall): boolean =>
    names.includes(name)

const opens =
  (...modes: readonly string[]) =>
  ({ name, mode }: FileCall): boolean =>
    name === 'open' && modes.includes(mode ?? '')

const either =
  (...tests: readonly FaultKind['hits'][]) =>
  (call: FileCall): boolean =>
    tests.some((test) => test(call))

const changes = among('write', 'truncate', 'space')
const names = among('link', 'rename', 'unlink', 'makeFolder', 'removeFolder')
const creates = opens('create-new', 'replace')
const growsNames = among('link', 'rename', 'makeFolder')

const fail = (errno: string): Deed => ({ how: 'throw', errno })
const half = (length: number): number => Math.ceil(length / 2)

/** A failure of the host that is met while the image is closed, or in doubt, can say so instead. */
const IO = ['IO_FAILED', 'IMAGE_BROKEN', 'CLOSE_FAILED']

/** A failure that comes once, and the same for ever after. */
function once(name: string, kind: Omit<FaultKind, 'name'>): FaultKind[] {
  return [
    { name, ...kind },
    { name: `${name}-ever`, ...kind, lasts: true },
  ]
}

/** All kinds. */
export const FAULT_KINDS: readonly FaultKind[] = [
  ...once('read-eio', { hits: among('read'), deed: fail('EIO'), codes: IO }),
  ...once('write-eio', { hits: changes, deed: fail('EIO'), codes: IO }),
  ...once('name-eio', {
    hits: either(names, among('stat', 'list', 'realpath'), opens('read', 'write'), creates),
    ...{ deed: fail('EIO'), codes: IO },
  }),
  ...once('look-eio', { hits: among('fileStat', 'seek', 'lock'), deed: fail('EIO'), codes: IO }),
  ...once('close-eio', { hits: among('close'), deed: fail('EIO'), codes: IO }),
  ...once('enospc', {
    hits: either(changes, creates, growsNames),
    ...{ deed: fail('ENOSPC'), codes: ['NO_SPACE', 'IMAGE_BROKEN', 'CLOSE_FAILED'] },
  }),
  ...once('edquot', {
    hits: either(changes, creates),
    ...{ deed: fail('EDQUOT'), codes: ['NO_SPACE', 'IMAGE_BROKEN', 'CLOSE_FAILED'] },
  }),
  {
    ...{ name: 'erofs', lasts: true, deed: fail('EROFS') },
    hits: either(changes, names, creates, opens('write')),
    codes: ['ACCESS_DENIED', 'IMAGE_BROKEN', 'CLOSE_FAILED'],
  },
  {
    ...{ name: 'estale', lasts: true, deed: fail('ESTALE') },
    hits: either(changes, among('read', 'fileStat', 'seek', 'sync', 'stat', 'list')),
    codes: [...IO, 'FLUSH_FAILED'],
  },
  ...once('read-nothing', {
    hits: among('read'),
    deed: { how: 'short', count: () => 0 },
    codes: ['FILE_SHRANK'],
  }),
  ...once('read-byte', {
    hits: among('read'),
    deed: { how: 'short', count: () => 1 },
    codes: [],
  }),
  ...once('read-half', { hits: among('read'), deed: { how: 'short', count: half }, codes: [] }),
  ...once('write-nothing', {
    hits: among('write'),
    deed: { how: 'short', count: () => 0 },
    codes: ['NO_SPACE', 'IMAGE_BROKEN', 'CLOSE_FAILED'],
  }),
  {
    ...{ name: 'write-byte', hits: among('write'), codes: [] },
    deed: { how: 'short', count: () => 1 },
  },
  ...once('write-half', { hits: among('write'), deed: { how: 'short', count: half }, codes: [] }),
  ...once('sync-eio', {
    hits: among('sync'),
    ...{ deed: fail('EIO'), codes: ['FLUSH_FAILED', 'IMAGE_BROKEN', 'CLOSE_FAILED'] },
  }),
  ...once('folder-eio', {
    hits: among('syncFolder'),
    ...{ deed: fail('EIO'), codes: ['FLUSH_FAILED'] },
  }),
  ...once('emfile', {
    hits: either(opens('read', 'write'), creates),
    ...{ deed: fail('EMFILE'), codes: ['TOO_MANY_OPEN_FILES'] },
  }),
  {
    ...{ name: 'enoent', hits: opens('read', 'write'), deed: fail('ENOENT') },
    codes: [
      ...['FILE_NOT_FOUND', 'BACKING_NOT_FOUND', 'DATA_FILE_NOT_FOUND', 'FILE_REPLACED'],
      // The only image that has it is gone.
      'CHECKPOINT_NOT_FOUND',
    ],
  },
  ...once('exdev', {
    hits: among('rename', 'link'),
    ...{ deed: fail('EXDEV'), codes: ['OTHER_FILE_SYSTEM'] },
  }),
  ...once('locked', {
    hits: among('lock'),
    ...{ deed: { how: 'locked' }, codes: ['IMAGE_LOCKED', 'CATALOGUE_BUSY'] },
  }),
]

const anything = (): boolean => true
const GONE = ['FILE_NOT_FOUND', 'BACKING_NOT_FOUND', 'DATA_FILE_NOT_FOUND']

/** What somebody else can do to a base below the verb. */
export const MEDDLINGS: readonly FaultKind[] = [
  { name: 'vanish', hits: anything, deed: { how: 'meddle', with: 'vanish' }, codes: GONE },
  {
    ...{ name: 'shrink', hits: anything, deed: { how: 'meddle', with: 'shrink' } },
    codes: [],
  },
  {
    ...{ name: 'change', hits: anything, deed: { how: 'meddle', with: 'change' } },
    codes: [],
  },
]
