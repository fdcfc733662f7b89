/** This package's version, as package.json has it. */

import manifest from '../../package.json' with { type: 'json' }

/** For example `1.2.3`. */
export const VERSION: string = manifest.version
