/**
 * Bytes that go from one socket to another without coming here: the system moves them by way of a pipe (`splice`), in whole pages where it can.
 *
 * What is in a pipe has left the one socket and not reached the other, so a pipe belongs to one connection until it is empty, or is closed with what
 * is in it.
 */
import { wouldBlock } from './plain-socket.ts';
import { errnos, linux, type SystemCalls } from './system-calls.ts';
import { systemError } from './system-error.ts';

/** Below this it costs more to move bytes so than to copy them. */
const passedBytesMin = 65_536;
/** What one pipe is given at most; it waits there where the other side is slow. */
const passedBytesMax = 1_048_576;
/** The end of what lies in a socket is left to be read: a relay looks at that. */
const readBytesMin = 4_096;
/** Pipes that there may be: two descriptors and up to `passedBytesMax` of the system's memory each. */
const pipesMax = 64;
/** Empty ones that are kept: a pipe is needed for one call after the other mostly. */
const idlePipesMax = 4;
/** Size asked for, of which a page stands for each piece of a packet. The system has a limit for all pipes of a user. */
const pipeBytes = 262_144;
const spliceFlags = linux.spliceMove | linux.spliceNonBlocking;
/** These send by a clock of their own, and twice as expensively what was not copied. */
const pacedCongestionControl = /^bbr/;
/** What a system says that cannot do this, of a socket that is sound. */
const refusals: readonly number[] = [errnos.notPermitted, errnos.noMemory, errnos.invalid, errnos.noSuchCall];
const number = Buffer.alloc(4);
const name = Buffer.alloc(16);

/** See the header of this file. */
export class Pipe {
  /** Octets in it. */
  length = 0;
  readonly #calls: SystemCalls;
  readonly #readEnd: number;
  readonly #writeEnd: number;

  constructor(calls: SystemCalls, readEnd: number, writeEnd: number) {
    this.#calls = calls;
    this.#readEnd = readEnd;
    this.#writeEnd = writeEnd;
  }

  /** Takes up to `count` octets from a socket: how many, or `wouldBlock` where they have to be read. Throws what broke the socket. */
  takeFrom(fd: number, count: number): number {
    const taken = this.#move(fd, this.#writeEnd, count);
    if (taken > 0) this.length += taken;
    else if (-taken !== errnos.again && !refusals.includes(-taken)) throw systemError('read', -taken);
    return taken > 0 ? taken : wouldBlock;
  }

  /** Has a socket take what it can: how many octets, or `wouldBlock`. Throws what broke the socket. */
  giveTo(fd: number): number {
    const given = this.#move(this.#readEnd, fd, this.length);
    if (given > 0) this.length -= given;
    else if (-given !== errnos.again) throw systemError('write', -given);
    return given > 0 ? given : wouldBlock;
  }

  close(): void {
    this.#calls.close(this.#readEnd);
    this.#calls.close(this.#writeEnd);
  }

  /** Octets moved, or an error as a negative number. */
  #move(from: number, to: number, count: number): number {
    for (;;) {
      const moved = this.#calls.splice(from, null, to, null, count, spliceFlags);
      if (moved > 0) return moved;
      const errno = moved === 0 ? errnos.again : this.#calls.errno();
      if (errno !== errnos.interrupted) return -errno;
    }
  }
}

/** The pipes of a process. */
export class Pipes {
  readonly #calls: SystemCalls;
  readonly #idle: Pipe[] = [];
  #count = 0;

  constructor(calls: SystemCalls) {
    this.#calls = calls;
  }

  /**
   * A pipe with what lies in a socket, but for the end of that; `undefined` where it has to be read instead: there is too little of it, or no pipe to be
   * had. Throws what broke the socket.
   */
  fill(fd: number): Pipe | undefined {
    const count = this.#passableBytes(fd);
    const pipe = count === 0 ? undefined : (this.#idle.pop() ?? this.#make());
    if (pipe === undefined) return undefined;
    try {
      if (pipe.takeFrom(fd, count) > 0) return pipe;
    } catch (error) {
      this.giveBack(pipe);
      throw error;
    }
    this.giveBack(pipe);
    return undefined;
  }

  /** One that is not needed any more, whatever is in it. */
  giveBack(pipe: Pipe): void {
    if (pipe.length === 0 && this.#idle.length < idlePipesMax) {
      this.#idle.push(pipe);
      return;
    }
    pipe.close();
    this.#count -= 1;
  }

  #passableBytes(fd: number): number {
    if (this.#calls.ioControl(fd, linux.bytesToRead, number) < 0) return 0;
    const lying = number.readInt32LE();
    return lying < passedBytesMin ? 0 : Math.min(lying - readBytesMin, passedBytesMax);
  }

  #make(): Pipe | undefined {
    if (this.#count >= pipesMax) return undefined;
    const ends = Buffer.alloc(8);
    if (this.#calls.pipe(ends, linux.pipeNonBlocking | linux.pipeCloseOnExec) < 0) return undefined;
    const writeEnd = ends.readInt32LE(4);
    this.#calls.fileControl(writeEnd, linux.setPipeSize, pipeBytes);
    this.#count += 1;
    return new Pipe(this.#calls, ends.readInt32LE(0), writeEnd);
  }
}

/** Whether a socket sends by a clock of its own. It says so of itself for as long as it lives. */
export function isPaced(calls: SystemCalls, fd: number): boolean {
  number.writeInt32LE(name.length);
  if (calls.getSocketOption(fd, linux.levelTcp, linux.optionCongestion, name, number) < 0) return true;
  return pacedCongestionControl.test(name.toString('latin1', 0, number.readInt32LE()));
}
