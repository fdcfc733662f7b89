/** The library's face: everything that `import … from 'cowpoint'` can have. */

export * from './base/errors.ts'
export type { LongWork, Progress, ProgressListener } from './base/progress.ts'
export type { BlockDevice, BlockSizes, Capabilities, Extent, ExtentKind } from './block/index.ts'
