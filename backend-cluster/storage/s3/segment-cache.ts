/**
 * Reads out of segments. A small one holds hundreds of slots: it is fetched whole, once, and the last few are kept, so that reading a log
 * costs a request per segment and not per slot. Of a large one only the range asked for is read.
 */
import type { Bucket } from './bucket.ts';
import { inlineBytesMax } from './head.ts';

/** Segments up to this are fetched whole: the inline slots that became one, and a last one that was small too. */
const wholeBytesMax = 2 * inlineBytesMax;
/** Segments kept; with their limit about a megabyte at most, and only while the account is read. */
const segmentsMax = 8;

/** See the header of this file. */
export class SegmentCache {
  readonly #bucket: Bucket;
  readonly #root: string;
  readonly #kept = new Map<string, Promise<Buffer | undefined>>();

  constructor(bucket: Bucket, root: string) {
    this.#bucket = bucket;
    this.#root = root;
  }

  /** Bytes of a segment; `undefined` when it is not there any more. */
  async read(
    segment: { readonly object: string; readonly segmentBytes: number },
    offset: number,
    length: number,
  ): Promise<Buffer | undefined> {
    const key = `${this.#root}${segment.object}`;
    if (segment.segmentBytes > wholeBytesMax) return this.#bucket.getRange(key, offset, length);
    return (await this.#whole(key))?.subarray(offset, offset + length);
  }

  #whole(key: string): Promise<Buffer | undefined> {
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const fetched = this.#bucket.get(key).then((stored) => stored?.body);
    this.#kept.set(key, fetched);
    // What failed or is gone is asked for again.
    const forget = (): void => void this.#kept.delete(key);
    fetched.then((body) => (body === undefined ? forget() : undefined), forget);
    if (this.#kept.size > segmentsMax) this.#kept.delete(this.#kept.keys().next().value as string);
    return fetched;
  }
}
