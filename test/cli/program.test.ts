/** One run of the program: exit statuses, what is said about failures, help, cancelling, progress. */

import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { BusyError, ImageError, IoError, RemoteError, UsageError } from '../../src/base/errors.ts'
import { type CommandWords, defineCommand } from '../../src/cli/command.ts'
import type { Context } from '../../src/cli/context.ts'
import { Interrupted } from '../../src/cli/exit.ts'
import { type OptionTable, text, toggle } from '../../src/cli/options.ts'
import { COMMANDS } from '../../src/cli/registry.ts'
import { runCli } from '../support/run-cli.ts'

type Run = (context: Context) => Promise<number> | number

/** Runs `probe disk.qcow2` with `run` as the command's work. */
function probe(
  run: Run,
  words: readonly string[] = ['disk.qcow2'],
  changes: Partial<CommandWords<OptionTable>> & { signal?: AbortSignal; isTerminal?: boolean } = {},
) {
  const { signal, isTerminal, ...rest } = changes
  const command = defineCommand<OptionTable>({
    name: 'probe',
    summary: 'does what the test says',
    manners: 'qemu-img',
    options: { json: toggle({ flags: '--json', summary: 'as JSON' }) },
    positionals: [{ name: 'filename', summary: 'a disk' }],
    run: (_args, context) => run(context),
    ...rest,
  })
  const entry = { name: 'probe', aliases: [], summary: '', load: async () => ({ command }) }
  return runCli(['probe', ...words], {
    lookUp: (name) => (name === 'probe' ? entry : undefined),
    ...(signal === undefined ? {} : { signal }),
    ...(isTerminal === undefined ? {} : { isTerminal }),
  })
}

function throwing(error: unknown): Run {
  return () => {
    throw error
  }
}

describe('the exit status', () => {
  test('is what the command returns', async () => {
    expect(await probe(() => 3)).toMatchObject({ status: 3, stdout: '', stderr: '' })
  })

  const errors = [
    [new UsageError('A', 'm'), 64],
    [new ImageError('A', 'm'), 65],
    [new IoError('A', 'm'), 74],
    [new BusyError('A', 'm'), 75],
    [new RemoteError('A', 'm'), 76],
    [new TypeError('m'), 70],
  ] as const
  test.each(errors)('of our own verbs follows the class: %s', async (error, status) => {
    expect(await probe(throwing(error), undefined, { manners: 'cowpoint' })).toMatchObject({
      status,
    })
  })

  test.each(errors)("of qemu-img's verbs is 1: %s", async (error) => {
    expect(await probe(throwing(error))).toMatchObject({ status: 1 })
  })

  test('is 1 without a command and with an unknown one', async () => {
    expect(await runCli([])).toEqual(
      expect.objectContaining({
        status: 1,
        stderr:
          "cowpoint: no command was given [MISSING_COMMAND]\ncowpoint: hint: 'cowpoint --help' lists the commands\n",
      }),
    )
    const unknown = await runCli(['frobnicate'])
    expect(unknown.status).toBe(1)
    expect(unknown.stderr).toContain("command 'frobnicate' is not known [UNKNOWN_COMMAND]")
  })

  test('is what the innermost `about` says', async () => {
    const result = await probe(({ about }) =>
      about(
        'a.raw',
        () =>
          about('b.qcow2', throwing(new ImageError('BAD', 'magic 0x0 is wrong')) as () => never, {
            status: 2,
          }),
        { status: 4 },
      ),
    )
    expect(result).toMatchObject({
      status: 2,
      stderr: 'cowpoint: b.qcow2: magic 0x0 is wrong [BAD]\n',
    })
  })
})

describe('a failure', () => {
  test('names the only file that the command has', async () => {
    const { stderr } = await probe(throwing(new ImageError('TRUNCATED', 'header ends at 0x10')))
    expect(stderr).toBe('cowpoint: disk.qcow2: header ends at 0x10 [TRUNCATED]\n')
  })

  test('names no file where the command has several', async () => {
    const positionals = [
      { name: 'source', summary: '' },
      { name: 'target', summary: '' },
    ]
    const { stderr } = await probe(throwing(new IoError('NO_SPACE', 'disk is full')), ['a', 'b'], {
      positionals,
    })
    expect(stderr).toBe('cowpoint: disk is full [NO_SPACE]\n')
  })

  test('of the command line names no file and shows the way', async () => {
    const { stderr, status } = await probe(() => 0, ['disk.qcow2', '-Z'])
    expect(status).toBe(1)
    expect(stderr).toBe(
      "cowpoint: option '-Z' is not known [UNKNOWN_OPTION]\ncowpoint: hint: 'cowpoint probe --help' shows how it is used\n",
    )
  })

  test('is one JSON object on stderr with --json', async () => {
    const error = new BusyError('LOCKED', 'file is locked', { context: { holderPid: 7 } })
    const result = await probe(throwing(error), ['--json', 'd'], { manners: 'cowpoint' })
    expect(JSON.parse(result.stderr)).toEqual({
      error: {
        status: 75,
        kind: 'busy',
        code: 'LOCKED',
        message: 'file is locked',
        subject: 'd',
        context: { holderPid: 7 },
      },
    })
    expect(result.stderr.trimEnd()).not.toContain('\n')
  })

  test('that is none of the five says that it is our bug, with the stack', async () => {
    const { stderr } = await probe(throwing(new TypeError('x is undefined')))
    expect(stderr).toMatch(/^cowpoint: x is undefined \[BUG\]\ncowpoint: this is a bug in cowpoint/)
    expect(stderr).toContain('program.test.ts')
  })

  test('comes after what was already written', async () => {
    const result = await probe(async ({ stdout }) => {
      await stdout.line('half')
      throw new IoError('GONE', 'file vanished')
    })
    expect(result).toMatchObject({ status: 1, stdout: 'half\n' })
  })
})

describe('help', () => {
  test.each([[['--help']], [['-h']], [['help']]])('%j lists every verb', async (words) => {
    const { stdout, status } = await runCli(words)
    expect(status).toBe(0)
    expect(stdout).toMatch(/cowpoint version\s+show the versions/)
  })

  test('of a verb shows options, words and examples, but nothing hidden', async () => {
    const result = await probe(() => 0, ['--help'], {
      options: {
        format: text({ flags: '-f --format', placeholder: 'fmt', summary: 'format of the image' }),
        old: toggle({ flags: '--ancient', summary: 'no longer', hidden: true }),
      },
      notes: ['It is thorough.'],
      examples: [{ line: 'cowpoint probe x', summary: 'looks at x' }],
    })
    expect(result.status).toBe(0)
    for (const part of [
      'cowpoint probe [options] filename',
      'It is thorough.',
      '-f, --format  <fmt>  format of the image',
      'cowpoint probe x  looks at x',
    ]) {
      expect(result.stdout).toContain(part)
    }
    expect(result.stdout).not.toContain('ancient')
  })

  test.each(COMMANDS.map((entry) => [entry.name, entry] as const))(
    'of %s agrees with the overview',
    async (name, entry) => {
      const { command } = await entry.load()
      expect(command).toMatchObject({ name, summary: entry.summary })
    },
  )

  test('of a verb that is not there is refused', async () => {
    expect(await runCli(['help', 'frobnicate'])).toMatchObject({ status: 1 })
  })
})

test('the version is that of package.json', async () => {
  const { default: manifest } = await import('../../package.json', { with: { type: 'json' } })
  for (const flag of ['--version', '-V']) {
    expect(await runCli([flag])).toMatchObject({
      status: 0,
      stdout: `cowpoint ${manifest.version}\n`,
    })
  }
})

describe('cancelling', () => {
  const untilAborted: Run = ({ signal }) =>
    new Promise((_resolve, reject) =>
      signal.addEventListener('abort', () => reject(new Error('stopped in the middle'))),
    )

  test.each([
    ['SIGINT', 130, 'cowpoint: interrupted by SIGINT\n'],
    ['SIGTERM', 143, 'cowpoint: interrupted by SIGTERM\n'],
    ['SIGPIPE', 141, ''],
  ] as const)('by %s ends with %i', async (name, status, stderr) => {
    const controller = new AbortController()
    const run = probe(untilAborted, undefined, { signal: controller.signal })
    setImmediate(() => controller.abort(new Interrupted(name)))
    expect(await run).toMatchObject({ status, stderr })
  })

  test('work that was done anyway has succeeded, unless nobody took its output', async () => {
    const done = (name: 'SIGINT' | 'SIGPIPE') =>
      probe(() => 0, undefined, { signal: AbortSignal.abort(new Interrupted(name)) })
    expect(await done('SIGINT')).toMatchObject({ status: 0 })
    expect(await done('SIGPIPE')).toMatchObject({ status: 141 })
  })
})

describe('progress', () => {
  const halves = (options: { percent?: boolean; quiet?: boolean }): Run => {
    return ({ withProgress }) =>
      withProgress(options, async (onProgress) => {
        for (const done of [0, 1, 500, 505, 1000]) onProgress({ done, total: 1000 })
        return 0
      })
  }

  test('with -p is what qemu-img prints', async () => {
    const { stdout } = await probe(halves({ percent: true }))
    const shown = ['0.00', '50.00', '100.00'].map((value) => `    (${value}/100%)\r`)
    expect(stdout).toBe(`${shown.join('')}\n`)
  })

  test('after a failure ends the line where it is', async () => {
    const { stdout } = await probe(({ withProgress }) =>
      withProgress({ percent: true }, throwing(new IoError('GONE', 'm')) as () => never),
    )
    expect(stdout).toBe('    (0.00/100%)\r\n')
  })

  test('on a terminal is one line on stderr that goes away, and only if it takes long', async () => {
    let now = 1000
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now)
    onTestFinished(() => clock.mockRestore())
    const { stdout, stderr } = await probe(
      ({ withProgress }) =>
        withProgress({ label: 'copy' }, async (onProgress) => {
          for (const [elapsedMs, done] of [
            [0, 0],
            [390, 1024],
            [500, 2048],
            [550, 3072],
            [1000, 4096],
          ] as const) {
            now = 1000 + elapsedMs
            onProgress({ done, total: 8192 })
          }
          return 0
        }),
      undefined,
      { isTerminal: true },
    )
    expect(stdout).toBe('')
    expect(stderr.split('\r\x1b[K')).toEqual([
      '',
      'copy   25%  2 KiB of 8 KiB  4 KiB/s  0:02 left',
      'copy   50%  4 KiB of 8 KiB  4 KiB/s  0:01 left',
      '',
    ])
  })

  test('is nothing where there is no terminal, and nothing with -q', async () => {
    expect(await probe(halves({}))).toMatchObject({ stdout: '', stderr: '' })
    const quiet = await probe(halves({ percent: true, quiet: true }), undefined, {
      isTerminal: true,
    })
    expect(quiet).toMatchObject({ stdout: '', stderr: '' })
  })
})
