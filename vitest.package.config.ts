import { defineConfig } from 'vitest/config'

/** The test of the package as npm ships it: slower than all others, and it needs the registry. */
export default defineConfig({
  test: {
    include: ['test/package.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 300_000,
  },
})
