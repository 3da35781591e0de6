/** The clients of the measurement: log-ins one after the other on many connections at a time, idle sessions, and large messages. */
import { connect, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';

/** Size of the large message, octets. */
export const messageBytes = 1_048_576;

/** Where a proxy is reached. */
export interface Entrance {
  readonly port: number;
  readonly tls: boolean;
}

/** An account of the measurement. */
export type Account = (number: number) => { readonly name: string; readonly password: string };

/** Log-ins that were made. */
export interface Logins {
  readonly count: number;
  readonly failed: number;
  readonly seconds: number;
  /** TLS handshakes that resumed an earlier session. */
  readonly resumed: number;
  /** From connecting to the answer of LOGIN, milliseconds, sorted. */
  readonly tookMs: Float64Array;
}

const answerWithinMs = 20_000;
/** An answer ends in its last line, which is shorter than this. */
const tailMax = 4096;
// Addresses of their own give each slot of the load ports of its own: those of closed connections rest for a minute.
const addressesUsed = 64;
const addressOf = (number: number): string => `127.0.1.${1 + (number % addressesUsed)}`;

// One for all: making it reads the system's certificates, which takes the client longer than the handshake.
// Debian's nginx knows no hybrid key exchange (X25519MLKEM768), which ours would choose: everybody does the same cryptography.
const secureContext = createSecureContext({ minVersion: 'TLSv1.3', ecdhCurve: process.env.BENCH_GROUPS ?? 'X25519' });

/** Connects; every handshake is a new one unless it is given a session. */
function open(entrance: Entrance, number: number, session?: Buffer): Socket | TLSSocket {
  const where = { host: '127.0.0.1', port: entrance.port, localAddress: addressOf(number), noDelay: true };
  if (!entrance.tls) return connect(where);
  return connectTls({ ...where, rejectUnauthorized: false, secureContext, ...(session === undefined ? {} : { session }) });
}

/**
 * Connects, logs in, says NOOP and LOGOUT, over and over on `atATime` connections, for `seconds`.
 *
 * @param resumes whether TLS sessions are resumed, each from the ticket that came last on its slot
 */
export async function logIns(entrance: Entrance, account: Account, atATime: number, seconds: number, resumes = false): Promise<Logins> {
  const tickets: (Buffer | undefined)[] = [];
  let resumed = 0;
  const times: number[] = [];
  let failed = 0;
  let number = 0;
  const startedAtMs = performance.now();
  const endAtMs = startedAtMs + seconds * 1000;
  const one = (slot: number, done: () => void): void => {
    if (performance.now() >= endAtMs) {
      done();
      return;
    }
    number += 1;
    const { name, password } = account(number);
    const beganAtMs = performance.now();
    let step = 0;
    let isOver = false;
    const socket = open(entrance, slot, tickets[slot]);
    if (resumes && entrance.tls) {
      const secure = socket as TLSSocket;
      secure.on('session', (ticket) => {
        tickets[slot] = ticket;
      });
      secure.on('secureConnect', () => {
        if (secure.isSessionReused()) resumed += 1;
      });
    }
    socket.setTimeout(10_000, () => socket.destroy());
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString('latin1');
      if (step === 0) {
        socket.write(`a LOGIN ${name} ${password}\r\n`);
        step = 1;
      } else if (step === 1 && text.includes('a OK')) {
        times.push(performance.now() - beganAtMs);
        socket.write('b NOOP\r\n');
        step = 2;
      } else if (step === 2 && text.includes('b OK')) {
        socket.write('c LOGOUT\r\n');
        step = 3;
      } else if (step === 3 && text.includes('c OK')) {
        step = 4;
        socket.end();
      }
    });
    socket.on('close', () => {
      if (isOver) return;
      isOver = true;
      if (step !== 4) failed += 1;
      one(slot, done);
    });
  };
  await Promise.all(Array.from({ length: atATime }, (_, slot) => new Promise<void>((done) => one(slot, done))));
  return {
    count: times.length,
    failed,
    resumed,
    seconds: (performance.now() - startedAtMs) / 1000,
    tookMs: Float64Array.from(times).sort(),
  };
}

/** A session that is logged in. */
export class Session {
  readonly #socket: Socket;
  #wanted: { readonly until: string; settle(): void } | undefined;
  #tail = '';
  isClosed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
    socket.on('data', (chunk: Buffer) => {
      this.#tail = `${this.#tail}${chunk.toString('latin1', Math.max(0, chunk.length - tailMax))}`.slice(-tailMax);
      if (this.#wanted === undefined || !this.#tail.includes(this.#wanted.until)) return;
      const { settle } = this.#wanted;
      this.#wanted = undefined;
      settle();
    });
  }

  static async open(entrance: Entrance, account: Account, number: number): Promise<Session> {
    const session = new Session(open(entrance, number));
    await session.#hear('* OK');
    const { name, password } = account(number);
    await session.say(`a LOGIN ${name} ${password}\r\n`, 'a OK');
    return session;
  }

  /** Sends it and waits for `until`. Rejects when the session closes first. */
  say(text: string | Buffer, until: string): Promise<void> {
    this.#tail = '';
    this.#socket.write(text);
    return this.#hear(until);
  }

  close(): void {
    this.#socket.destroy();
  }

  #hear(until: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => this.#socket.destroy(), answerWithinMs);
      this.#socket.once('close', () => clearTimeout(late));
      this.#socket.once('close', () =>
        reject(new Error(`no "${until}" came from port ${this.#socket.remotePort}, but ${JSON.stringify(this.#tail)}`)),
      );
      this.#wanted = {
        until,
        settle: () => {
          clearTimeout(late);
          this.#socket.removeAllListeners('close').on('close', () => {
            this.isClosed = true;
          });
          resolve();
        },
      };
    });
  }
}

/** Octets a second of large messages, fetched or appended, on `atATime` sessions. */
export async function bulk(
  entrance: Entrance,
  account: Account,
  direction: 'download' | 'upload',
  atATime: number,
  seconds: number,
): Promise<{ readonly bytes: number; readonly seconds: number }> {
  const sessions = await Promise.all(Array.from({ length: atATime }, (_, number) => Session.open(entrance, account, number)));
  const upload = Buffer.concat([
    Buffer.from(`u APPEND INBOX {${messageBytes}+}\r\n`),
    Buffer.alloc(messageBytes, 'x'),
    Buffer.from('\r\n'),
  ]);
  const startedAtMs = performance.now();
  let bytes = 0;
  await Promise.all(
    sessions.map(async (session) => {
      while (performance.now() - startedAtMs < seconds * 1000) {
        if (direction === 'download') await session.say('d FETCH 1 BODY[]\r\n', 'd OK');
        else await session.say(upload, 'u OK');
        bytes += messageBytes;
      }
    }),
  );
  const took = (performance.now() - startedAtMs) / 1000;
  for (const session of sessions) session.close();
  return { bytes, seconds: took };
}
