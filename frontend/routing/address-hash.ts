/**
 * A keyed 64-bit hash of an address: SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012) in 32-bit halves. The key
 * is drawn anew by every process, so that nobody can choose addresses that meet in one place of the route index.
 *
 * One instance writes its result to `low` and `high` instead of returning an object: the index asks a million times a second.
 */

const addressBytesMax = 512;

/** See the header of this file. */
export class AddressHash {
  /** Halves of the last hash, as unsigned 32-bit integers. */
  low = 0;
  high = 0;
  readonly #k0l: number;
  readonly #k0h: number;
  readonly #k1l: number;
  readonly #k1h: number;
  readonly #bytes = new Uint8Array(addressBytesMax);
  // The state v0..v3 in halves; fields would be slower than locals, so the rounds keep it in this array.
  readonly #v = new Uint32Array(8);

  /** @param key 16 bytes */
  constructor(key: Uint8Array) {
    const view = new DataView(key.buffer, key.byteOffset, 16);
    this.#k0l = view.getUint32(0, true);
    this.#k0h = view.getUint32(4, true);
    this.#k1l = view.getUint32(8, true);
    this.#k1h = view.getUint32(12, true);
  }

  /** Hashes an address; one longer than 512 octets, which no account name is, by its first 512. */
  update(address: string): void {
    const bytes = this.#bytes;
    let length = address.length;
    let isAscii = length <= addressBytesMax;
    for (let i = 0; isAscii && i < length; i += 1) {
      const code = address.charCodeAt(i);
      if (code > 0x7f) isAscii = false;
      bytes[i] = code;
    }
    if (!isAscii) {
      const encoded = Buffer.from(address).subarray(0, addressBytesMax);
      bytes.set(encoded);
      length = encoded.length;
    }
    this.updateBytes(bytes, length);
  }

  /** Hashes the first `length` bytes. */
  updateBytes(bytes: Uint8Array, length: number): void {
    const v = this.#v;
    v[0] = this.#k0l ^ 0x70736575;
    v[1] = this.#k0h ^ 0x736f6d65;
    v[2] = this.#k1l ^ 0x6e646f6d;
    v[3] = this.#k1h ^ 0x646f7261;
    v[4] = this.#k0l ^ 0x6e657261;
    v[5] = this.#k0h ^ 0x6c796765;
    v[6] = this.#k1l ^ 0x79746573;
    v[7] = this.#k1h ^ 0x74656462;
    const whole = length & ~7;
    for (let at = 0; at < whole; at += 8) block(v, word(bytes, at, 4), word(bytes, at + 4, 4));
    const left = length - whole;
    block(v, word(bytes, whole, Math.min(left, 4)), (word(bytes, whole + 4, Math.max(0, left - 4)) | ((length & 0xff) << 24)) >>> 0);
    v[4] = (v[4] as number) ^ 0xff;
    rounds(v, 4);
    this.low = ((v[0] as number) ^ (v[2] as number) ^ (v[4] as number) ^ (v[6] as number)) >>> 0;
    this.high = ((v[1] as number) ^ (v[3] as number) ^ (v[5] as number) ^ (v[7] as number)) >>> 0;
  }
}

function word(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i += 1) value |= (bytes[at + i] as number) << (8 * i);
  return value >>> 0;
}

function block(v: Uint32Array, low: number, high: number): void {
  v[6] = (v[6] as number) ^ low;
  v[7] = (v[7] as number) ^ high;
  rounds(v, 2);
  v[0] = (v[0] as number) ^ low;
  v[1] = (v[1] as number) ^ high;
}

function rounds(v: Uint32Array, count: number): void {
  let v0l = v[0] as number;
  let v0h = v[1] as number;
  let v1l = v[2] as number;
  let v1h = v[3] as number;
  let v2l = v[4] as number;
  let v2h = v[5] as number;
  let v3l = v[6] as number;
  let v3h = v[7] as number;
  let low = 0;
  let kept = 0;
  for (let i = 0; i < count; i += 1) {
    // v0 += v1; v1 <<<= 13; v1 ^= v0; v0 <<<= 32
    low = (v0l + v1l) >>> 0;
    v0h = (v0h + v1h + (low < v0l ? 1 : 0)) >>> 0;
    v0l = low;
    kept = v1h;
    v1h = ((v1h << 13) | (v1l >>> 19)) ^ v0h;
    v1l = ((v1l << 13) | (kept >>> 19)) ^ v0l;
    kept = v0h;
    v0h = v0l;
    v0l = kept;
    // v2 += v3; v3 <<<= 16; v3 ^= v2
    v2l >>>= 0;
    low = (v2l + (v3l >>> 0)) >>> 0;
    v2h = (v2h + v3h + (low < v2l ? 1 : 0)) >>> 0;
    v2l = low;
    kept = v3h;
    v3h = ((v3h << 16) | (v3l >>> 16)) ^ v2h;
    v3l = ((v3l << 16) | (kept >>> 16)) ^ v2l;
    // v0 += v3; v3 <<<= 21; v3 ^= v0
    v0l >>>= 0;
    low = (v0l + (v3l >>> 0)) >>> 0;
    v0h = (v0h + v3h + (low < v0l ? 1 : 0)) >>> 0;
    v0l = low;
    kept = v3h;
    v3h = ((v3h << 21) | (v3l >>> 11)) ^ v0h;
    v3l = ((v3l << 21) | (kept >>> 11)) ^ v0l;
    // v2 += v1; v1 <<<= 17; v1 ^= v2; v2 <<<= 32
    low = (v2l + (v1l >>> 0)) >>> 0;
    v2h = (v2h + v1h + (low < v2l ? 1 : 0)) >>> 0;
    v2l = low;
    kept = v1h;
    v1h = ((v1h << 17) | (v1l >>> 15)) ^ v2h;
    v1l = ((v1l << 17) | (kept >>> 15)) ^ v2l;
    kept = v2h;
    v2h = v2l;
    v2l = kept;
    v0l >>>= 0;
    v1l >>>= 0;
  }
  v[0] = v0l;
  v[1] = v0h;
  v[2] = v1l;
  v[3] = v1h;
  v[4] = v2l;
  v[5] = v2h;
  v[6] = v3l;
  v[7] = v3h;
}
