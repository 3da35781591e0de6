/**
 * Penalties of a subset: what one frontend holds against addresses and accounts counts at the others, and what an operator orders at one holds at all.
 *
 *   front1 ──hello, all it counts, all its rules──► front2        each dials every other one and tells; what it hears comes by their connections
 *          ──every 250 ms: what has changed───────►
 *
 * Counts are told as they stand, rules with the time of their order: hearing them twice, late or again after a break does no harm. Nobody waits for
 * anybody: a frontend alone works on with its own. Under mutual TLS with the certificates of the link, or in clear on loopback.
 *
 * Limits: a line of `lineBytesMax`; for each peer `dirtyMax` changes, beyond which it is told everything again (the `entriesMax` gravest); a peer that
 * does not read is told nothing while `unsentBytesMax` wait; `heardMax` connections.
 */
import { checkPeer, isLoopback, type LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import { sleep, type Timer } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { LineChannel } from '#common/network/line-channel.ts';
import type { Connection, Listener } from '#common/network/network.ts';
import { jitteredMs } from '#common/random.ts';
import type { SharingPeer } from '#frontend/client/status.ts';
import type { AddressRules, SharedRule } from '#frontend/guard/address-rules.ts';
import { type GuardKind, guardKinds, type ToldCount } from '#frontend/guard/counts-elsewhere.ts';
import type { LoginGuard } from '#frontend/guard/login-guard.ts';
import type { SubsetPeer } from './settings.ts';

const flushMs = 250;
const dirtyMax = 5_000;
const entriesMax = 5_000;
const unsentBytesMax = 262_144;
/** A reader of lines keeps no more. */
const lineBytesMax = 65_536;
/** Entries of a line; with the longest keys it has half of `lineBytesMax`. */
const perLine = 50;
const heardMax = 256;
/** Longer keys are no accounts' and are told nobody. */
const keyCharactersMax = 500;
const helloMs = 10_000;
const pingMs = 10_000;
const silenceMs = 35_000;
const retryFirstMs = 500;
const retryLongestMs = 15_000;

/** What one frontend tells another in a line. */
export interface SharedNews {
  readonly counts?: readonly ToldCount[];
  /** Pairs whose password was right, and keys that an operator forgave. */
  readonly forgiven?: readonly (readonly [key: string, account: string | null])[];
  readonly rules?: readonly SharedRule[];
}

/** What it is made of. */
export interface SharingOptions {
  readonly name: string;
  readonly subset: string;
  readonly listen: { readonly address: string; readonly port: number };
  readonly tls: LinkTlsPems | undefined;
  readonly guard: LoginGuard;
  readonly rules: AddressRules;
  /** Told of what was heard, for other processes of this frontend. */
  heard(frontend: string, news: SharedNews): void;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'network' | 'log'>;
}

/** See the header of this file. */
export class SubsetSharing {
  readonly #options: SharingOptions;
  readonly #peers = new Map<string, Peer>();
  /** Who may tell. */
  #names: ReadonlySet<string> = new Set();
  readonly #heard = new Set<LineChannel>();
  #listener: Listener | undefined;
  #isStopping = false;

  private constructor(options: SharingOptions) {
    this.#options = options;
  }

  /** Listens, and from then on tells whoever `setPeers` names. Rejects when the port cannot be bound. */
  static async start(options: SharingOptions): Promise<SubsetSharing> {
    const made = new SubsetSharing(options);
    const { listen, tls, ports, guard, rules } = options;
    if (tls === undefined && !isLoopback(listen.address)) {
      throw new PlatformError(
        'CONFIG_INVALID',
        `sharing listens on ${listen.address}, which is not loopback, and needs link: certificates`,
      );
    }
    made.#listener = await ports.network.listen(
      {
        host: listen.address,
        port: listen.port,
        ...(tls === undefined ? {} : { tls: { ...tls, requestCert: true, rejectUnauthorized: true } }),
      },
      (connection) => void made.#listenTo(connection),
    );
    guard.watcher = {
      counted: (kind, key) => key.length <= keyCharactersMax && made.#changed((news) => news.counts.set(`${kind} ${key}`, [kind, key])),
      forgiven: (key, account) => made.#changed((news) => news.forgiven.set(`${key}\0${account ?? ''}`, [key, account ?? null])),
    };
    rules.watcher = (rule) => made.#changed((news) => news.rules.set(rule.range, rule));
    return made;
  }

  get port(): number {
    return this.#listener?.port ?? 0;
  }

  /** Who is told; those that are there already go on. */
  setPeers(peers: readonly SubsetPeer[]): void {
    if (this.#isStopping) return;
    this.#names = new Set(peers.map(({ name }) => name));
    const wanted = new Map(peers.filter(({ name }) => name !== this.#options.name).map((peer) => [peer.name, peer]));
    for (const [name, peer] of this.#peers) {
      const now = wanted.get(name);
      if (now !== undefined && now.host === peer.address.host && now.port === peer.address.port) continue;
      peer.stop();
      this.#peers.delete(name);
    }
    for (const [name, address] of wanted) if (!this.#peers.has(name)) this.#peers.set(name, new Peer(this.#options, address));
  }

  status(): readonly SharingPeer[] {
    return [...this.#peers.values()].map((peer) => peer.status());
  }

  /** Tells and hears nothing more: another process of this frontend does, or none. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#options.guard.watcher = undefined;
    this.#options.rules.watcher = undefined;
    for (const peer of this.#peers.values()) peer.stop();
    await this.#listener?.close();
    for (const channel of this.#heard) channel.destroy();
  }

  #changed(note: (news: Unsent) => void): void {
    for (const peer of this.#peers.values()) peer.changed(note);
  }

  async #listenTo(connection: Connection): Promise<void> {
    const { ports, subset } = this.#options;
    const channel = new LineChannel(connection, ports.clock);
    if (this.#heard.size >= heardMax || this.#isStopping) {
      channel.destroy();
      return;
    }
    this.#heard.add(channel);
    channel.onClose(() => this.#heard.delete(channel));
    let from = connection.remoteAddress;
    try {
      const hello = parsed(await this.#read(channel, helloMs)) as { hello?: unknown; from?: unknown; subset?: unknown };
      if (hello.hello !== 1 || typeof hello.from !== 'string' || hello.from.length > 255) throw broken('it does not say who it is');
      if (hello.subset !== subset) throw broken(`it is of subset ${JSON.stringify(hello.subset)}, this is ${subset}`);
      from = hello.from;
      checkPeer({ name: from, role: 'frontend', address: connection.remoteAddress, tls: connection.tls });
      if (!this.#names.has(from)) throw broken(`it is not among this subset’s frontends; add it as subsetFrontend to the subset’s entry`);
      for (;;) {
        const line = await this.#read(channel, silenceMs);
        if (line.length === 0) {
          channel.write('\n');
          continue;
        }
        const news = newsOf(parsed(line));
        takeNews(this.#options, from, news);
        this.#options.heard(from, news);
      }
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (error.code !== 'NET_CLOSED') ports.log.warn({ peer: from, errCode: error.code }, `${from} is not listened to: ${error.message}`);
      channel.destroy();
    }
  }

  async #read(channel: LineChannel, timeoutMs: number): Promise<Buffer> {
    const result = await channel.readLine({ bytesMax: lineBytesMax, timeoutMs, strict: false });
    if (result.kind === 'line') return result.line;
    if (result.kind === 'ended') throw new PlatformError('NET_CLOSED', 'the connection ended');
    throw broken(result.kind === 'timeout' ? `nothing came for ${timeoutMs / 1000} s` : `a line is longer than ${lineBytesMax} octets`);
  }
}

/** Takes what another frontend, or another process of this one, has heard. */
export function takeNews({ guard, rules }: Pick<SharingOptions, 'guard' | 'rules'>, from: string, news: SharedNews): void {
  guard.noteElsewhere(from, news.counts ?? []);
  for (const [key, account] of news.forgiven ?? []) {
    if (account === null) guard.forgiveHere(key);
    else guard.succeededElsewhere(key, account);
  }
  for (const rule of news.rules ?? []) {
    try {
      rules.take(rule);
    } catch {
      // Too many rules here, or a range that is none: what is known stays.
    }
  }
}

/** All that counts at this frontend, or in this process. */
export function* allNews({ guard, rules }: Pick<SharingOptions, 'guard' | 'rules'>): IterableIterator<SharedNews> {
  const keys = guard.ownEntries(entriesMax).flatMap(({ kind, key }) => (key.length <= keyCharactersMax ? [[kind, key] as const] : []));
  for (const counts of inLines(guard.counted(keys))) yield { counts };
  for (const some of inLines(rules.orders())) yield { rules: some };
}

interface Unsent {
  readonly counts: Map<string, readonly [GuardKind, string]>;
  readonly forgiven: Map<string, readonly [string, string | null]>;
  readonly rules: Map<string, SharedRule>;
}

/** One other frontend that is told. */
class Peer {
  readonly address: SubsetPeer;
  readonly #options: SharingOptions;
  readonly #unsent: Unsent = { counts: new Map(), forgiven: new Map(), rules: new Map() };
  readonly #stopped = new AbortController();
  #connection: Connection | undefined;
  #flush: Timer | undefined;
  #lastError: string | undefined;
  #needsAll = true;

  constructor(options: SharingOptions, address: SubsetPeer) {
    this.address = address;
    this.#options = options;
    void this.#run();
  }

  changed(note: (unsent: Unsent) => void): void {
    // Whoever is not connected is told everything when it is.
    if (this.#connection === undefined || this.#needsAll) return;
    note(this.#unsent);
    const { counts, forgiven, rules } = this.#unsent;
    if (counts.size + forgiven.size + rules.size > dirtyMax) this.#tellAllNext();
    this.#flush ??= this.#options.ports.clock.after(flushMs, () => this.#tell());
  }

  status(): SharingPeer {
    return { name: this.address.name, isConnected: this.#connection !== undefined, lastError: this.#lastError };
  }

  stop(): void {
    this.#stopped.abort();
    this.#flush?.cancel();
    this.#connection?.destroy();
  }

  async #run(): Promise<void> {
    const { clock, random, log } = this.#options.ports;
    const { signal } = this.#stopped;
    let retryMs = retryFirstMs;
    while (!signal.aborted) {
      const beganAtMs = clock.monotonicMs();
      try {
        await this.#talk();
      } catch (thrown) {
        this.#lastError = messageOf(thrown);
        log.debug({ peer: this.address.name }, `penalties are not shared with ${this.address.name}: ${this.#lastError}`);
      }
      this.#connection = undefined;
      this.#flush?.cancel();
      this.#flush = undefined;
      if (signal.aborted) return;
      if (clock.monotonicMs() - beganAtMs > retryLongestMs) retryMs = retryFirstMs;
      await sleep(clock, jitteredMs(random, retryMs), signal);
      retryMs = Math.min(retryLongestMs, retryMs * 2);
    }
  }

  /** Resolves or rejects when the connection is over. */
  async #talk(): Promise<void> {
    const { name, host, port } = this.address;
    const { tls, ports, subset, name: from } = this.#options;
    const connection = await ports.network.connect({ host, port, ...(tls === undefined ? {} : { tls: { ...tls, serverName: name } }) });
    try {
      checkPeer({ name, role: 'frontend', address: connection.remoteAddress, tls: connection.tls });
      if (this.#stopped.signal.aborted) return;
      const over = Promise.withResolvers<void>();
      let heardAtMs = ports.clock.monotonicMs();
      connection.handle({
        data: () => {
          heardAtMs = ports.clock.monotonicMs();
        },
        end: () => over.resolve(),
        close: (error) => (error === undefined ? over.resolve() : over.reject(error)),
      });
      const ping = ports.clock.every(pingMs, () => {
        if (ports.clock.monotonicMs() - heardAtMs > silenceMs) over.reject(broken(`${name} has been silent for ${silenceMs / 1000} s`));
        else connection.write('\n');
      });
      connection.write(`${JSON.stringify({ hello: 1, from, subset })}\n`);
      this.#connection = connection;
      this.#lastError = undefined;
      this.#tellAllNext();
      this.#tell();
      await over.promise.finally(() => ping.cancel());
    } finally {
      connection.destroy();
    }
  }

  #tellAllNext(): void {
    this.#needsAll = true;
    const { counts, forgiven, rules } = this.#unsent;
    for (const each of [counts, rules]) each.clear();
    // These are not among all that counts.
    if (forgiven.size > dirtyMax) forgiven.clear();
  }

  #tell(): void {
    this.#flush = undefined;
    const connection = this.#connection;
    if (connection === undefined) return;
    if (connection.bufferedBytes > unsentBytesMax) {
      this.#flush = this.#options.ports.clock.after(flushMs, () => this.#tell());
      return;
    }
    const say = (news: SharedNews): void => void connection.write(`${JSON.stringify(news)}\n`);
    const { counts, forgiven, rules } = this.#unsent;
    // What was forgiven goes first: what has been counted since then counts.
    for (const some of inLines([...forgiven.values()])) say({ forgiven: some });
    if (this.#needsAll) {
      this.#needsAll = false;
      for (const news of allNews(this.#options)) say(news);
    }
    for (const some of inLines(this.#options.guard.counted(counts.values()))) say({ counts: some });
    for (const some of inLines([...rules.values()])) say({ rules: some });
    for (const each of [counts, forgiven, rules]) each.clear();
  }
}

function inLines<T>(all: readonly T[]): T[][] {
  const lines: T[][] = [];
  for (let at = 0; at < all.length; at += perLine) lines.push(all.slice(at, at + perLine));
  return lines;
}

function parsed(line: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line.toString('utf8'));
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below.
  }
  throw broken('a line is no JSON object');
}

/** What of a line can be believed; the rest is passed over, for it may be of a later release. */
export function newsOf(line: Record<string, unknown>): SharedNews {
  const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value.slice(0, 10 * perLine) : []);
  const isKey = (value: unknown): value is string => typeof value === 'string' && value.length <= keyCharactersMax;
  const isCount = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= 1e9;
  return {
    counts: list(line.counts).flatMap((one) => {
      const [kind, key, failures, ageMs] = list(one);
      const isKnown = guardKinds.includes(kind as GuardKind) && isKey(key) && isCount(failures) && isCount(ageMs);
      return isKnown ? [[kind as GuardKind, key, failures, ageMs] as const] : [];
    }),
    forgiven: list(line.forgiven).flatMap((one) => {
      const [key, account] = list(one);
      return isKey(key) && (account === null || isKey(account)) ? [[key, account] as const] : [];
    }),
    rules: list(line.rules).flatMap((one) => {
      const { range, verdict, reason, untilMs, setAtMs, setAt } = (one ?? {}) as Partial<SharedRule>;
      if (!isKey(range) || !isKey(reason) || !isKey(setAt) || !Number.isFinite(untilMs) || !Number.isFinite(setAtMs)) return [];
      if (verdict !== 'block' && verdict !== 'allow' && verdict !== 'none') return [];
      return [{ range: range.toLowerCase(), verdict, reason, untilMs: untilMs as number, setAtMs: setAtMs as number, setAt }];
    }),
  };
}

function broken(why: string): PlatformError {
  return new PlatformError('LINK_PROTOCOL', why);
}
