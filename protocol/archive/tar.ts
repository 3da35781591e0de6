/**
 * Tar as POSIX.1-2017 (pax, "ustar Interchange Format") has it, as much as an archive of an account needs: plain files with short ASCII
 * names. What other programs put between (directories, extended headers of a re-packed archive) is passed over.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

const blockBytes = 512;
/** Largest file that is taken: a message, and some more. */
export const tarFileBytesMax = 160 * 1024 * 1024;

/** One file. */
export interface TarFile {
  readonly name: string;
  readonly body: Buffer;
}

/** A file as it stands in the archive. */
export function tarFile(name: string, body: Uint8Array, mtimeMs: number): Buffer[] {
  const header = Buffer.alloc(blockBytes);
  if (Buffer.byteLength(name) > 99) throw new PlatformError('BUG_UNEXPECTED', `"${name}" is too long a name for an archive`);
  const octal = (value: number, at: number, width: number): void => {
    header.write(
      `${Math.max(0, Math.floor(value))
        .toString(8)
        .padStart(width - 1, '0')}\0`,
      at,
      'latin1',
    );
  };
  header.write(name, 0, 'latin1');
  octal(0o600, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(body.byteLength, 124, 12);
  octal(Math.min(mtimeMs / 1000, 0o77777777777), 136, 12);
  header.write('        ', 148, 'latin1');
  header.write('0', 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return [header, Buffer.from(body.buffer, body.byteOffset, body.byteLength), Buffer.alloc(padding(body.byteLength))];
}

/** Two empty blocks. */
export const tarEnd = Buffer.alloc(2 * blockBytes);

/** Takes an archive apart as it comes in. Rejected input throws `PROTO_SYNTAX` or `PROTO_TOO_LONG`. */
export class TarDecoder {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #file: { readonly name: string; readonly bytes: number; readonly isPlain: boolean } | undefined;
  /** The two empty blocks came. */
  isOver = false;

  /** Bytes of the archive; answers with the files that are complete now. */
  push(chunk: Buffer): TarFile[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const files: TarFile[] = [];
    while (!this.isOver) {
      if (this.#file === undefined) {
        if (this.#bytes < blockBytes) break;
        this.#readHeader(this.#take(blockBytes));
        continue;
      }
      const { name, bytes, isPlain } = this.#file;
      if (this.#bytes < bytes + padding(bytes)) break;
      const body = this.#take(bytes);
      this.#take(padding(bytes));
      this.#file = undefined;
      if (isPlain) files.push({ name, body });
    }
    if (this.isOver) {
      this.#chunks = [];
      this.#bytes = 0;
    }
    return files;
  }

  #readHeader(header: Buffer): void {
    if (header.every((byte) => byte === 0)) {
      this.isOver = true;
      return;
    }
    const text = (at: number, length: number): string => header.toString('latin1', at, at + length).replace(/\0.*$/s, '');
    const number = (at: number, length: number): number => {
      const digits = text(at, length).trim();
      if (!/^[0-7]+$/.test(digits))
        throw new PlatformError('PROTO_SYNTAX', 'the archive is no tar file, or is damaged: a header has no number where one belongs');
      return Number.parseInt(digits, 8);
    };
    const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
    if (number(148, 8) !== sum)
      throw new PlatformError('PROTO_SYNTAX', 'the archive is no tar file, or is damaged: a header fails its checksum');
    const bytes = number(124, 12);
    if (bytes > tarFileBytesMax)
      throw new PlatformError('PROTO_TOO_LONG', `a file of the archive has ${bytes} bytes, more than ${tarFileBytesMax}`);
    const kind = text(156, 1);
    const prefix = header.toString('latin1', 257, 262) === 'ustar' ? text(345, 155) : '';
    const name = `${prefix === '' ? '' : `${prefix}/`}${text(0, 100)}`.replace(/^(?:\.\/)+/, '');
    this.#file = { name, bytes, isPlain: kind === '' || kind === '0' };
  }

  #take(bytes: number): Buffer {
    if (bytes === 0) return Buffer.alloc(0);
    const first = this.#chunks[0] as Buffer;
    this.#bytes -= bytes;
    if (first.length > bytes) {
      this.#chunks[0] = first.subarray(bytes);
      return first.subarray(0, bytes);
    }
    const taken: Buffer[] = [];
    let wanted = bytes;
    while (wanted > 0) {
      const next = this.#chunks[0] as Buffer;
      if (next.length <= wanted) {
        taken.push(next);
        this.#chunks.shift();
        wanted -= next.length;
      } else {
        taken.push(next.subarray(0, wanted));
        this.#chunks[0] = next.subarray(wanted);
        wanted = 0;
      }
    }
    return taken.length === 1 ? (taken[0] as Buffer) : Buffer.concat(taken);
  }
}

function padding(bytes: number): number {
  return (blockBytes - (bytes % blockBytes)) % blockBytes;
}
