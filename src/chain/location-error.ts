/** The errors of names: what a caller or an image wrote as the place of a file and cannot be taken so. */

import { type CowpointError, ImageError, UsageError } from '../base/errors.ts'

/** Who wrote the name, and so who has to act. */
export type LocationOrigin = 'caller' | 'image'

/** Makes the error that says why a name cannot be taken; the code is `INVALID_LOCATION` where left out. */
export type FailLocation = (
  message: string,
  code?: LocationCode,
  context?: Readonly<Record<string, string>>,
) => CowpointError

/** The codes of these errors. */
export type LocationCode =
  | 'INVALID_LOCATION'
  | 'PROTOCOL_NOT_SUPPORTED'
  | 'FORMAT_NOT_SUPPORTED'
  | 'OPTION_NOT_SUPPORTED'

/** What makes the errors about one name. */
export function locationFailure(name: string, origin: LocationOrigin): FailLocation {
  return (message, code = 'INVALID_LOCATION', context = {}) =>
    new (origin === 'caller' ? UsageError : ImageError)(code, message, {
      context: { location: name, ...context },
    })
}
