/**
 * Where the attributes of an entry lie within its body (entry-body.ts), without taking it apart: for those who go through millions of entries.
 * One instance is used for one entry after the other.
 */
import { commonDescriptions, commonValues, positionsMax } from './entry-body.ts';

/** See the header of this file. */
export class BodyScan {
  /** Attributes of the entry. */
  count = 0;
  /** Of each: number of a common description, or -1. */
  readonly common = new Int32Array(positionsMax);
  /** Of those without a common one: where the description stands. */
  readonly textStart = new Int32Array(positionsMax);
  readonly textEnd = new Int32Array(positionsMax);
  /** How many values; 0: a common list, whose number is in `start`. */
  readonly values = new Int32Array(positionsMax);
  /** Where the first length of the values stands, and where the last value ends. */
  readonly start = new Int32Array(positionsMax);
  readonly end = new Int32Array(positionsMax);
  #at = 0;

  /** Scans a body; `false` when it has more attributes than are kept, or is none. */
  scan(body: Uint8Array): boolean {
    this.count = 0;
    this.#at = 0;
    while (this.#at < body.length) {
      if (this.count === positionsMax) return false;
      const position = this.count;
      this.count += 1;
      const length = this.#varint(body);
      if (length === 0) {
        const number = this.#varint(body);
        if (number >= commonDescriptions.length) return false;
        this.common[position] = number;
      } else {
        this.common[position] = -1;
        this.textStart[position] = this.#at;
        this.#at += length;
        this.textEnd[position] = this.#at;
      }
      const values = this.#varint(body);
      if (values === 0) {
        if (!this.#refer(position, this.#varint(body))) return false;
        continue;
      }
      this.values[position] = values;
      this.start[position] = this.#at;
      for (let left = values; left > 0; left -= 1) {
        const octets = this.#varint(body);
        this.#at += octets;
      }
      this.end[position] = this.#at;
    }
    return this.#at === body.length;
  }

  /** Reads the length that stands there; where the value begins is `valueAt` then. */
  lengthAt(body: Uint8Array, at: number): number {
    this.#at = at;
    return this.#varint(body);
  }

  /** Where the last length that was read ended. */
  get valueAt(): number {
    return this.#at;
  }

  #refer(position: number, reference: number): boolean {
    if (reference >= positionsMax) {
      this.values[position] = 0;
      this.start[position] = reference - positionsMax;
      this.end[position] = 0;
      return reference - positionsMax < commonValues.length;
    }
    this.values[position] = this.values[reference] as number;
    this.start[position] = this.start[reference] as number;
    this.end[position] = this.end[reference] as number;
    return reference < position;
  }

  #varint(body: Uint8Array): number {
    let value = body[this.#at] as number;
    this.#at += 1;
    if (value < 128) return value;
    value &= 127;
    for (let shift = 7; shift < 35; shift += 7) {
      const octet = body[this.#at] as number;
      this.#at += 1;
      value |= (octet & 127) << shift;
      if (octet < 128) return value;
    }
    return -1;
  }
}
