import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Lru } from '../../src/base/lru.ts'

describe('Lru', () => {
  it('forgets what was used longest ago', () => {
    const evicted: string[] = []
    const lru = new Lru<string, number>({ budget: 3, onEvict: (key) => evicted.push(key) })
    lru.set('a', 1, 1)
    lru.set('b', 2, 1)
    lru.set('c', 3, 1)
    expect(lru.get('a')).toBe(1)
    expect(lru.peek('b')).toBe(2)
    lru.set('d', 4, 1)
    expect(evicted).toEqual(['b'])
    expect([...lru.entries()]).toEqual([
      ['c', 3],
      ['a', 1],
      ['d', 4],
    ])
  })

  it('keeps the newest entry even if it alone is above the budget', () => {
    const lru = new Lru<string, number>({ budget: 10 })
    lru.set('small', 1, 5)
    lru.set('large', 2, 100)
    expect([...lru.entries()]).toEqual([['large', 2]])
    lru.set('next', 3, 1)
    expect([...lru.entries()]).toEqual([['next', 3]])
  })

  it('tells of no eviction where an entry was deleted or replaced', () => {
    const evicted: string[] = []
    const lru = new Lru<string, number>({ budget: 10, onEvict: (key) => evicted.push(key) })
    lru.set('a', 1, 4)
    lru.set('a', 2, 6)
    expect(lru.cost).toBe(6)
    expect(lru.delete('a')).toBe(true)
    expect(lru.delete('a')).toBe(false)
    lru.set('b', 1, 3)
    lru.clear()
    expect([lru.cost, lru.entryCount, evicted.length]).toEqual([0, 0, 0])
  })

  it('does as a list in order of use', () => {
    const step = fc.record({
      kind: fc.constantFrom('get', 'set', 'delete'),
      key: fc.nat(8),
      cost: fc.integer({ min: 0, max: 6 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const lru = new Lru<number, number>({ budget: 12 })
        let model: { key: number; value: number; cost: number }[] = []
        steps.forEach(({ kind, key, cost }, value) => {
          const known = model.find((entry) => entry.key === key)
          const others = model.filter((entry) => entry.key !== key)
          if (kind === 'get') {
            expect(lru.get(key)).toBe(known?.value)
            if (known !== undefined) model = [...others, known]
          } else if (kind === 'delete') {
            expect(lru.delete(key)).toBe(known !== undefined)
            model = others
          } else {
            lru.set(key, value, cost)
            model = [...others, { key, value, cost }]
            const total = () => model.reduce((sum, entry) => sum + entry.cost, 0)
            while (total() > 12 && model.length > 1) model.shift()
          }
          expect([...lru.entries()]).toEqual(model.map((entry) => [entry.key, entry.value]))
          expect(lru.cost).toBe(model.reduce((sum, entry) => sum + entry.cost, 0))
        })
      }),
    )
  })
})
