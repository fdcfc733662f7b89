/** Measures how much memory an action asks for in one piece: what a damaged header claims must not decide that. */

/** Runs `action` and returns the length in bytes of the largest buffer that was made meanwhile. */
export async function measureAllocations(action: () => Promise<unknown>): Promise<number> {
  let largest = 0
  const original = globalThis.Uint8Array
  const watched: Uint8ArrayConstructor = new Proxy(original, {
    construct(target, args: unknown[], newTarget): object {
      if (typeof args[0] === 'number' && args[0] > largest) largest = args[0]
      return Reflect.construct(target, args, newTarget === watched ? target : newTarget) as object
    },
  })
  const allocate = Buffer.alloc
  globalThis.Uint8Array = watched
  Buffer.alloc = ((size: number, ...rest: []) => {
    if (size > largest) largest = size
    return allocate(size, ...rest)
  }) as typeof Buffer.alloc
  try {
    await action()
  } finally {
    globalThis.Uint8Array = original
    Buffer.alloc = allocate
  }
  return largest
}
