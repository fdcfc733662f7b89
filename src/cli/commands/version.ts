/** `cowpoint version`: what runs here, for bug reports. */

import { defineCommand } from '../command.ts'
import { toggle } from '../options.ts'
import { prettyJson } from '../report.ts'
import { VERSION } from '../version.ts'

/** The verb `version`. */
export const command = defineCommand({
  name: 'version',
  summary: 'show the versions of cowpoint and of Node',
  manners: 'cowpoint',
  options: {
    json: toggle({ flags: '--json', summary: 'as one JSON object' }),
  },
  positionals: [],
  examples: [{ line: 'cowpoint version --json', summary: 'for a bug report' }],
  run: async ({ options }, { stdout }) => {
    const facts = {
      cowpoint: VERSION,
      node: process.versions.node,
      platform: `${process.platform}-${process.arch}`,
    }
    const lines = Object.entries(facts).map(([name, value]) => `${name} ${value}`)
    await stdout.line(options.json ? prettyJson(facts) : lines.join('\n'))
    return 0
  },
})
