/**
 * QEMU's programs, started so that they hold an image open until they are stopped: the other side of the tests about locks.
 */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

/** A program that has an image open. */
export interface ImageHolder extends AsyncDisposable {
  readonly pid: number
}

/** Starts qemu-io with `args` and waits until it has read from the image. */
export async function holdByIo(...args: readonly string[]): Promise<ImageHolder> {
  const child = spawn('qemu-io', args, { stdio: 'pipe' })
  child.stdin?.write('read 0 512\n')
  await told(child, /read 512\/512/)
  return holder(child)
}

/** Starts qemu-storage-daemon with the image as a block device that it exports. */
export async function holdByDaemon(path: string, readOnly: boolean): Promise<ImageHolder> {
  const access = readOnly ? 'on' : 'off'
  const socket = `${path}.qsd`
  const child = spawn('qemu-storage-daemon', [
    ...['--blockdev', `driver=file,node-name=file,filename=${path},read-only=${access}`],
    ...['--blockdev', `driver=qcow2,node-name=disk,file=file,read-only=${access}`],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', `type=nbd,id=export,node-name=disk,writable=${readOnly ? 'off' : 'on'}`],
    ...['--pidfile', `${socket}.pid`],
  ])
  const ended = told(child, /^$/)
  const listens = async (): Promise<void> => {
    while (!existsSync(`${socket}.pid`) && child.exitCode === null) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  await Promise.race([ended, listens().then(() => (child.exitCode === null ? undefined : ended))])
  ended.catch(() => {})
  return holder(child)
}

/** Starts a virtual machine that never runs, and waits until its disks are open. */
export async function holdByMachine(...args: readonly string[]): Promise<ImageHolder> {
  const bare = ['-S', '-nodefaults', '-display', 'none', '-m', '32', '-monitor', 'stdio']
  const child = spawn('qemu-system-x86_64', [...bare, ...args], {
    stdio: 'pipe',
  })
  child.stdin?.write('info status\n')
  await told(child, /VM status/)
  return holder(child)
}

/** Whether virtual machines can be started here. */
export function hasMachines(): boolean {
  return spawnSync('qemu-system-x86_64', ['--version']).status === 0
}

function holder(child: ChildProcess): ImageHolder {
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return {
    pid: child.pid ?? 0,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null) child.kill('SIGKILL')
      await ended
    },
  }
}

/** Resolves when the program says these words, rejects with all that it said when it ends. */
function told(child: ChildProcess, words: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.once('close', () => reject(new Error(`${child.spawnfile} ended: ${text}`)))
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        text += chunk.toString()
        if (words.test(text)) resolve()
      })
    }
    // A program that ends at once closes its input.
    child.stdin?.on('error', () => {})
  })
}
