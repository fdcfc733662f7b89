/**
 * File locks where koffi cannot load: a child process inherits the descriptor as its number 3 and makes the calls. Costs some
 * milliseconds a time. The child's answer is the index of the call that met an obstacle, or a word.
 */

import { loadPackage } from '../base/load-package.ts'
import { errnos, SystemCallError } from './libc.ts'
import type { LockCall, LockRunner } from './lock-calls.ts'
import { isWithoutLocks } from './range-locks.ts'

const NUMBERS = { read: 0, write: 1, none: 2 } as const
/** F_OFD_SETLK and F_OFD_GETLK. */
const COMMANDS = { set: 37, test: 36 } as const

// Both read `command kind offset length` four words a call; struct flock as in range-locks.ts.
const PERL = `
open(my $f, "<&=", 3) or die "$!";
my $i = 0;
while (@ARGV) {
  my ($command, $kind, $start, $length) = splice(@ARGV, 0, 4);
  my $lock = pack("s s x4 q q l x4", $kind, 0, $start, $length, 0);
  if (!fcntl($f, $command, $lock)) {
    if ($!{EAGAIN} || $!{EACCES}) { print $i; exit }
    print "errno ", $! + 0; exit
  }
  if ($command == 36 && unpack("s", $lock) != 2) { print $i; exit }
  $i++;
}
print $i;
`
const PYTHON = `
import fcntl, struct, sys, errno
words = [int(word) for word in sys.argv[1:]]
index = 0
for at in range(0, len(words), 4):
    command, kind, start, length = words[at:at + 4]
    lock = struct.pack("hh4xqqi4x", kind, 0, start, length, 0)
    try:
        lock = fcntl.fcntl(3, command, lock)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            index = "errno %d" % error.errno
        break
    if command == 36 and struct.unpack_from("h", lock)[0] != 2:
        break
    index += 1
print(index)
`

const PROGRAMS = {
  perl: ['-MErrno', '-e', PERL, '--'],
  python3: ['-S', '-E', '-c', PYTHON],
} as const

/** The interpreters that can take locks for us. */
export type LockInterpreter = keyof typeof PROGRAMS

/** Lock calls through a child; undefined where there is no such program, or not the calls of 64-bit Linux. */
export function childLocks(interpreter: LockInterpreter): LockRunner | undefined {
  if (process.platform !== 'linux' || /^(arm|ia32|mips|ppc)$/.test(process.arch)) return undefined
  const { spawnSync } = loadPackage('node:child_process') as typeof import('node:child_process')
  const { status } = spawnSync(interpreter, ['-c', ''], { stdio: 'ignore' })
  if (status === null) return undefined
  const run = (fd: number, calls: readonly LockCall[]): number | undefined => {
    const words = calls.flatMap(({ call, kind, offset, length }) =>
      [COMMANDS[call], NUMBERS[kind], offset, length].map(String),
    )
    const { stdout, error } = spawnSync(interpreter, [...PROGRAMS[interpreter], ...words], {
      stdio: ['ignore', 'pipe', 'ignore', fd],
      encoding: 'ascii',
    })
    return understood(stdout ?? '', error)
  }
  return { name: interpreter, run }
}

function understood(answer: string, cause: Error | undefined): number | undefined {
  const [word = '', number] = answer.trim().split(' ')
  if (/^\d+$/.test(word)) return Number(word)
  if (word !== 'errno') throw cause ?? new SystemCallError('fcntl', errnos().EIO)
  const errno = Number(number)
  if (isWithoutLocks(errno)) return undefined
  throw new SystemCallError('fcntl', errno)
}
