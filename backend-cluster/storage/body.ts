/**
 * The stored form of a message's two parts: the summary (structure and envelope, opaque here) and the text. Each part stands alone, so
 * that an envelope is read without the text:
 *
 *     method (1 byte) | checksum of the data (4) | length once unpacked (4) | data
 *
 * Method 1 is zstd, 0 is plain: what does not shrink is stored as it is.
 */
import { promisify } from 'node:util';
import { crc32, zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } from 'node:zlib';
import { messageOf } from '#common/errors/platform-error.ts';
import { corrupt } from './binary.ts';

const headerBytes = 9;
/** Below this, packing here costs less than the way to another thread and back. */
const asyncFromBytes = 32 * 1024;
/** Shorter ones are not worth packing: it takes as long as for ten times as much, and hardly saves a block. */
const packFromBytes = 512;

const compressAsync = promisify(zstdCompress);
const decompressAsync = promisify(zstdDecompress);

/** Packs one part. */
export async function encodePart(plain: Uint8Array): Promise<Buffer> {
  if (plain.byteLength >= packFromBytes) {
    const packed = plain.byteLength < asyncFromBytes ? zstdCompressSync(plain) : await compressAsync(plain);
    if (packed.length < plain.byteLength) return withHeader(1, packed, plain.byteLength);
  }
  return withHeader(0, plain, plain.byteLength);
}

/** Unpacks and verifies one part, or throws `STORE_CORRUPT`. */
export async function decodePart(stored: Buffer): Promise<Buffer> {
  if (stored.length < headerBytes) throw corrupt(`a stored part has only ${stored.length} bytes`);
  const method = stored[0] as number;
  const plainBytes = stored.readUInt32LE(5);
  const data = stored.subarray(headerBytes);
  if (crc32(data) !== stored.readUInt32LE(1)) throw corrupt('a stored part fails its checksum');
  if (method === 0 && data.length === plainBytes) return data;
  if (method !== 1) throw corrupt(`a stored part of ${data.length} bytes has method ${method} and says ${plainBytes} bytes`);
  // The checksum held, so the data is what was written; method and length may not be, and the bound keeps a wrong one from taking the memory.
  const options = { maxOutputLength: Math.max(1, plainBytes) };
  let plain: Buffer;
  try {
    plain = plainBytes < asyncFromBytes ? zstdDecompressSync(data, options) : await decompressAsync(data, options);
  } catch (error) {
    throw corrupt(`a stored part does not unpack to ${plainBytes} bytes: ${messageOf(error)}`);
  }
  if (plain.length !== plainBytes) throw corrupt(`a stored part unpacks to ${plain.length} bytes instead of ${plainBytes}`);
  return plain;
}

function withHeader(method: number, data: Uint8Array, plainBytes: number): Buffer {
  const stored = Buffer.allocUnsafe(headerBytes + data.byteLength);
  stored[0] = method;
  stored.writeUInt32LE(crc32(data), 1);
  stored.writeUInt32LE(plainBytes, 5);
  stored.set(data, headerBytes);
  return stored;
}
