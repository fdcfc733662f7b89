/** Moving data between two files below the engine: by the host, which may only share blocks, instead of through this process. */

/** The means that a caller has for that, who knows both files. */
export interface DataTransfer {
  /** How many bytes from guest offset `offset` on lie in one row in a file, as they are; 0 for none, at most `length`. */
  readonly plainLength: (offset: number, length: number) => Promise<number>
  /**
   * Copies such bytes to host offset `target` of the image's file; says how many, from the beginning on. Fewer than it was asked for
   * where the host cannot do it.
   */
  readonly transfer: (offset: number, length: number, target: number) => Promise<number>
}
