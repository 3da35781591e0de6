/**
 * The coordinator of members that run as processes of one machine: leases in the memory of whichever process got to host a Unix socket.
 *
 *   connect to the path ─► somebody hosts: ask it
 *        │ nobody (no file, or nobody behind it)
 *        ▼
 *   listen beside the path, link() it there (one wins) ─► host, and ask oneself
 *
 * When the hosting process dies, another takes over with an empty table, which the living fill again as they prolong what they hold. For
 * as long as a lease lasts it gives out nothing new, so that nobody loses a lease by the change. A host that is connected to and does not
 * answer (a stopped process: the kernel goes on accepting in its place) is taken over from as well, after `silentMax` questions. Of two that
 * take over at the same moment, one may remove the other's fresh socket; the one that is no longer behind the path notices
 * within a second and lets go. The path's directory must belong to
 * the service: whoever may connect may take leases, though never anything that storage protects.
 */
import { type Clock, sleep, type Timer } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Connection, Listener, Network } from '#common/network/network.ts';
import type { Random } from '#common/random.ts';
import { type Lease, type LeaseStore, leasesMax, type TakeAnswer } from './lease-store.ts';
import { LeaseTable } from './lease-table.ts';

/** Longest request or answer, and processes that may be connected at a time. */
export const lineBytesMax = 1_048_576;
export const processesMax = 256;
const answerTimeoutMs = 1_000;
const attempts = 4;
/** Questions in a row that the host leaves unanswered before another process takes over from it. */
const silentMax = 2;
const checkEveryMs = 1_000;

/** What it is made of. */
export interface SocketCoordinatorOptions {
  /** Unix socket, the same for all members of the cluster and for no other cluster. */
  readonly path: string;
  /** How long a lease lasts: so long a new host waits for those who hold one. */
  readonly leaseMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly files: Pick<Files, 'link' | 'unlink'>;
  readonly log: Logger;
}

/** Opens a member's door to the coordinator. Nothing is dialled before the first call. */
export function openSocketCoordinator(options: SocketCoordinatorOptions): LeaseStore {
  return new SocketCoordinator(options);
}

type Request =
  | {
      readonly op: 'take';
      readonly key: string;
      readonly holder: string;
      readonly value: unknown;
      readonly leaseMs: number;
      readonly isHeld: boolean;
    }
  | { readonly op: 'release'; readonly key: string; readonly holder: string }
  | { readonly op: 'list'; readonly prefix: string }
  | { readonly op: 'who' };

class SocketCoordinator implements LeaseStore {
  readonly engine = 'socket';
  readonly #options: SocketCoordinatorOptions;
  /** What this process holds as far as it knows, to say so to a new host: key → holder and until when. */
  readonly #held = new Map<string, { readonly holder: string; readonly untilMs: number }>();
  #connection: LineConnection | undefined;
  #connecting: Promise<LineConnection> | undefined;
  #host: SocketHost | undefined;
  #lastError: string | undefined;
  #isClosed = false;
  /** Questions in a row without an answer, and when the first of them was asked. */
  #silence: { readonly count: number; readonly sinceMs: number } | undefined;

  constructor(options: SocketCoordinatorOptions) {
    this.#options = options;
  }

  async take(key: string, holder: string, value: unknown, leaseMs: number): Promise<TakeAnswer> {
    const askedAtMs = this.#options.clock.monotonicMs();
    const held = this.#held.get(key);
    const isHeld = held?.holder === holder && held.untilMs > askedAtMs;
    const answer = (await this.#ask({ op: 'take', key, holder, value, leaseMs, isHeld })) as TakeAnswer;
    if (answer.isTaken) this.#held.set(key, { holder, untilMs: askedAtMs + leaseMs });
    else if (held?.holder === holder) this.#held.delete(key);
    return answer;
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#held.get(key)?.holder === holder) this.#held.delete(key);
    await this.#ask({ op: 'release', key, holder });
  }

  async list(prefix: string): Promise<readonly Lease[]> {
    return (await this.#ask({ op: 'list', prefix })) as readonly Lease[];
  }

  status(): { readonly ok: boolean; readonly detail: string } {
    const where = `${this.#options.path}, hosted ${this.#host === undefined ? 'by another process' : 'here'}`;
    return { ok: this.#lastError === undefined, detail: this.#lastError ?? where };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#connection?.close();
    await this.#host?.close();
  }

  async #ask(request: Request): Promise<unknown> {
    let last: PlatformError | undefined;
    for (let attempt = 1; attempt <= attempts && !this.#isClosed; attempt += 1) {
      let askedAtMs = this.#options.clock.monotonicMs();
      try {
        const connection = await this.#connected();
        askedAtMs = this.#options.clock.monotonicMs();
        const answer = await connection.ask(request);
        this.#lastError = undefined;
        this.#silence = undefined;
        return answer;
      } catch (error) {
        last = asPlatformError(error);
        if (!last.code.startsWith('NET_')) throw last;
        if (last.code === 'NET_TIMEOUT') {
          this.#silence = { count: (this.#silence?.count ?? 0) + 1, sinceMs: this.#silence?.sinceMs ?? askedAtMs };
        }
        await sleep(this.#options.clock, 20 * attempt);
      }
    }
    this.#lastError = `the coordinator at ${this.#options.path} does not answer: ${last?.message ?? 'it is closed'}`;
    throw new PlatformError('STORE_UNAVAILABLE', this.#lastError, { cause: last });
  }

  #connected(): Promise<LineConnection> {
    if (this.#connection?.isOpen === true) return Promise.resolve(this.#connection);
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #connect(): Promise<LineConnection> {
    const { network, path, clock, leaseMs, log } = this.#options;
    const dial = async (): Promise<LineConnection> =>
      new LineConnection(await network.connect({ path, timeoutMs: answerTimeoutMs }), clock);
    const silence = this.#silence;
    if (silence !== undefined && silence.count >= silentMax) {
      log.warn({ path, questions: silence.count }, 'the process that hosts the coordinator does not answer; this one takes over');
      // What it gave lapses a lease after it was last heard.
      await this.#becomeHost({ untilMs: silence.sinceMs + leaseMs });
      this.#silence = undefined;
      this.#connection = await dial();
      return this.#connection;
    }
    try {
      this.#connection = await dial();
    } catch (error) {
      const errno = errnoOf(asPlatformError(error).cause);
      if (errno !== 'ENOENT' && errno !== 'ECONNREFUSED') throw error;
      // A file without anybody behind it: there was a host, and others may hold leases that it gave.
      await this.#becomeHost(errno === 'ECONNREFUSED' ? { untilMs: clock.monotonicMs() + leaseMs } : undefined);
      this.#connection = await dial();
    }
    return this.#connection;
  }

  async #becomeHost(succeeds: { readonly untilMs: number } | undefined): Promise<void> {
    const host = await SocketHost.start(this.#options, succeeds, (over) => {
      if (this.#host === over) this.#host = undefined;
    });
    if (host !== undefined && this.#isClosed) await host.close();
    else this.#host = host ?? this.#host;
  }
}

/** The process that answers. */
class SocketHost {
  readonly #options: SocketCoordinatorOptions;
  readonly #id: string;
  readonly #table = new LeaseTable();
  /** Keys whose lease was ended while this host waits for holders. */
  readonly #freed = new Set<string>();
  readonly #lines = new Set<Connection>();
  readonly #untilMs: number;
  readonly #onOver: (host: SocketHost) => void;
  #listener: Listener | undefined;
  #checker: Timer | undefined;
  #isOver = false;

  private constructor(options: SocketCoordinatorOptions, untilMs: number, onOver: (host: SocketHost) => void) {
    this.#options = options;
    this.#id = options.random.bytes(8).toString('hex');
    this.#untilMs = untilMs;
    this.#onOver = onOver;
  }

  /**
   * Makes this process the host. `undefined` when another one was faster.
   *
   * @param succeeds there was a host before, whose leases may last until then
   */
  static async start(
    options: SocketCoordinatorOptions,
    succeeds: { readonly untilMs: number } | undefined,
    onOver: (host: SocketHost) => void,
  ): Promise<SocketHost | undefined> {
    const isSuccessor = succeeds !== undefined;
    const host = new SocketHost(options, succeeds?.untilMs ?? 0, onOver);
    const beside = `${options.path}.${host.#id}`;
    host.#listener = await options.network.listen({ path: beside }, (connection) => host.#accept(connection));
    try {
      if (isSuccessor) await options.files.unlink(options.path);
      // Fails when somebody else was faster: then that one hosts.
      await options.files.link(beside, options.path);
    } catch (error) {
      await host.#listener.close();
      const errno = errnoOf(error);
      if (errno === 'EEXIST' || errno === 'ENOENT') return undefined;
      throw new PlatformError('STORE_UNAVAILABLE', `cannot make the coordinator's socket ${options.path}: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      await options.files.unlink(beside).catch(() => {});
    }
    host.#checker = options.clock.every(checkEveryMs, () => void host.#check());
    options.log.info({ path: options.path, isSuccessor }, 'this process hosts the coordinator');
    return host;
  }

  async close(): Promise<void> {
    if (this.#isOver) return;
    const isAlone = this.#lines.size <= 1;
    await this.#end();
    // The file stays for others who hold leases: it tells the next host to wait for them.
    if (isAlone) await this.#options.files.unlink(this.#options.path).catch(() => {});
  }

  async #end(): Promise<void> {
    this.#isOver = true;
    this.#checker?.cancel();
    this.#onOver(this);
    for (const connection of this.#lines) connection.destroy();
    await this.#listener?.close();
  }

  // Is it still this process that is found behind the path?
  async #check(): Promise<void> {
    const { network, path, clock, log } = this.#options;
    let line: LineConnection | undefined;
    try {
      line = new LineConnection(await network.connect({ path, timeoutMs: answerTimeoutMs }), clock);
      if ((await line.ask({ op: 'who' })) === this.#id || this.#isOver) return;
      log.info({ path }, 'another process hosts the coordinator as well and has the path; this one lets go');
      await this.#end();
    } catch (error) {
      if (this.#isOver || errnoOf(asPlatformError(error).cause) !== 'ENOENT') return;
      log.warn({ path }, 'the coordinator’s socket was removed; this process lets go of it and it is made anew');
      await this.#end();
    } finally {
      line?.close();
    }
  }

  #accept(connection: Connection): void {
    if (this.#lines.size >= processesMax || this.#isOver) {
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      return;
    }
    this.#lines.add(connection);
    const lines = new LineSplitter();
    connection.handle({
      data: (chunk) => {
        try {
          for (const line of lines.push(chunk)) this.#answer(connection, line);
        } catch (error) {
          this.#options.log.warn({ path: this.#options.path, err: error }, 'a process that is no member spoke to the coordinator');
          connection.destroy();
        }
      },
      close: () => void this.#lines.delete(connection),
    });
  }

  #answer(connection: Connection, line: string): void {
    const { id, request } = JSON.parse(line) as { id: number; request: Request };
    let answer: object;
    try {
      answer = { id, ok: true, result: this.#do(request) };
    } catch (error) {
      answer = { id, ok: false, message: messageOf(error) };
    }
    connection.write(`${JSON.stringify(answer)}\n`);
  }

  #do(request: Request): unknown {
    const nowMs = this.#options.clock.monotonicMs();
    switch (request.op) {
      case 'take': {
        const { key, holder, value, leaseMs, isHeld } = request;
        const isKnown = this.#table.list(nowMs, key).some((lease) => lease.key === key);
        if (nowMs < this.#untilMs && !isHeld && !isKnown && !this.#freed.has(key)) {
          throw new PlatformError('STORE_UNAVAILABLE', 'the coordinator has just begun anew and waits for those who hold leases');
        }
        return this.#table.take(nowMs, String(key), String(holder), value, Number(leaseMs));
      }
      case 'release':
        this.#table.release(nowMs, request.key, request.holder);
        // Whoever ends a lease knows its holder to be gone: nobody need be waited for.
        if (nowMs < this.#untilMs && this.#freed.size < leasesMax) this.#freed.add(request.key);
        return null;
      case 'list':
        return this.#table.list(nowMs, request.prefix);
      case 'who':
        return this.#id;
      default:
        throw new PlatformError('STORE_UNAVAILABLE', 'the coordinator does not know this request');
    }
  }
}

/** Requests and answers over one connection. */
class LineConnection {
  readonly #connection: Connection;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, { timer: Timer; resolve(value: unknown): void; reject(error: Error): void }>();
  #lastId = 0;
  isOpen = true;

  constructor(connection: Connection, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
    const lines = new LineSplitter();
    connection.handle({
      data: (chunk) => {
        try {
          for (const line of lines.push(chunk)) this.#settle(line);
        } catch {
          this.close();
        }
      },
      close: () => this.#lost(),
    });
  }

  ask(request: Request): Promise<unknown> {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      if (!this.isOpen) return reject(new PlatformError('NET_CLOSED', 'the coordinator closed the connection'));
      const timer = this.#clock.after(answerTimeoutMs, () => {
        // One that does not answer is not asked again. This question was not answered; those after it may never have been read.
        this.#waiting.delete(id);
        reject(new PlatformError('NET_TIMEOUT', `the coordinator did not answer within ${answerTimeoutMs} ms`));
        this.close();
      });
      this.#waiting.set(id, { timer, resolve, reject });
      this.#connection.write(`${JSON.stringify({ id, request })}\n`);
    });
  }

  close(): void {
    this.#connection.destroy();
    this.#lost();
  }

  #settle(line: string): void {
    const { id, ok, result, message } = JSON.parse(line) as { id: number; ok: boolean; result: unknown; message: string };
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    waiting.timer.cancel();
    if (ok) waiting.resolve(result);
    else waiting.reject(new PlatformError('STORE_UNAVAILABLE', String(message)));
  }

  #lost(): void {
    this.isOpen = false;
    for (const { timer, reject } of this.#waiting.values()) {
      timer.cancel();
      reject(new PlatformError('NET_CLOSED', 'the coordinator closed the connection'));
    }
    this.#waiting.clear();
  }
}

/** Bytes into lines. Throws `LINK_PROTOCOL` when one is longer than `lineBytesMax`. */
class LineSplitter {
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      lines.push(Buffer.concat([...this.#pending, rest.subarray(0, end)]).toString('utf8'));
      this.#pending = [];
      this.#pendingBytes = 0;
      rest = rest.subarray(end + 1);
    }
    this.#pending.push(rest);
    this.#pendingBytes += rest.length;
    if (this.#pendingBytes > lineBytesMax) throw new PlatformError('LINK_PROTOCOL', `a line is longer than ${lineBytesMax} bytes`);
    return lines;
  }
}
