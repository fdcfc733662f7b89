/** Stands in for the package of that name in the bundle: our help has narrow characters only, and Intl.Segmenter loads slowly. */

export default (text) => String(text).length
