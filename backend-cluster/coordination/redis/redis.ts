/**
 * The coordinator of members on several machines: leases in Redis or Valkey, one server, a master under Sentinel, or a Redis Cluster.
 *
 *   call ─► a connection? ─ yes ─► script, answered within a second ─► answer
 *                │ no                      │ not answered, or the server may not write: the connection is thrown away
 *                ├─ back-off over: dial, wait for it within the same second
 *                └─ else: `STORE_UNAVAILABLE` at once, with the reason of the last failure
 *
 * Redis is a hint like every coordinator, and it forgets more often than others: an empty restart, FLUSHALL, an old snapshot, a fail-over
 * that loses what was acknowledged. Storage keeps that from doing harm; here it is only kept from causing needless elections. Redis holds a
 * random generation, and a member that meets another one than it knew takes, for the length of a lease, only what it held itself (or knows
 * to be free): those who still live say so within a heartbeat. The Controller's lease, newly taken while replicas are in step, counts only
 * when one of them has it.
 *
 * What always holds: no call lasts longer than `answerTimeoutMs`; at most `callsMax` are under way; nothing is queued for later; one
 * connection at a time is dialled, after a pause that grows to `pauseMsMax` and differs from member to member.
 */
import { type Clock, withTimeout } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import { controllerLeaseKey, type Lease, type LeaseStore, leasesMax, requireFits, type TakeAnswer } from '../lease-store.ts';
import { createRedisClient, type RedisAccess, type RedisClient } from './client.ts';
import type { RedisEndpoint } from './endpoint.ts';
import { type RedisFindings, readFindings } from './findings.ts';
import { decodeRecord, encodeRecord, holderLine, type LeaseKeys, leaseKeysOf } from './scripts.ts';

/** Longest time of a call, milliseconds; calls under way at most. */
export const answerTimeoutMs = 1_000;
export const callsMax = 256;
const waitMs = 400;
const pauseMsMin = 100;
const pauseMsMax = 3_000;
const pageSize = 500;
/** Lapsed leases taken out of the index by one listing. */
const forgottenMax = 100;

/** What it is made of. */
export interface RedisCoordinatorOptions {
  readonly cluster: string;
  readonly endpoint: RedisEndpoint;
  readonly access: RedisAccess;
  /** How long a lease lasts: so long a Redis that has lost its memory is given to hear from those who hold one. */
  readonly leaseMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Opens a member's door to the coordinator. Nothing is dialled before the first call. */
export function openRedisCoordinator(options: RedisCoordinatorOptions): LeaseStore {
  return new RedisCoordinator(options);
}

/** A connection that is up, and what was found at its other end. */
interface Session {
  readonly client: RedisClient;
  readonly findings: RedisFindings | undefined;
}

class RedisCoordinator implements LeaseStore {
  readonly engine = 'redis';
  readonly #options: RedisCoordinatorOptions;
  readonly #keys: LeaseKeys;
  readonly #clients = new Set<RedisClient>();
  #session: Session | undefined;
  #dialling: Promise<Session> | undefined;
  #failures = 0;
  #nextDialMs = 0;
  /** Why the last connection ended. */
  #lostBy = '';
  #calls = 0;
  #isClosed = false;
  /** Why the last call failed for want of Redis; `undefined` when it did not. */
  #problem: string | undefined;
  #warned = new Set<string>();
  /** What this process holds as far as it knows: key → holder. Kept until another is seen to hold it. */
  readonly #held = new Map<string, string>();
  /** The memory that this process knows, and the new one that it met instead. */
  #generation = '';
  #anew: { readonly generation: string; readonly untilMs: number; readonly freed: Set<string> } | undefined;

  constructor(options: RedisCoordinatorOptions) {
    this.#options = options;
    this.#keys = leaseKeysOf(options.cluster);
  }

  async take(key: string, holder: string, value: unknown, leaseMs: number): Promise<TakeAnswer> {
    requireFits(key, holder, value);
    return this.#call(async ({ client }) => {
      const { clock, random } = this.#options;
      this.#settle();
      const isFree = this.#held.get(key) === holder || this.#anew?.freed.has(key) === true;
      const take = (): Promise<unknown> =>
        client.takeLease(
          ...[this.#keys.lease(key), this.#keys.index, this.#keys.generation],
          ...[holderLine(holder), encodeRecord(holder, value), Math.ceil(leaseMs)],
          ...[this.#generation, random.bytes(8).toString('hex'), isFree ? '1' : '0', key, leasesMax],
        );
      let [outcome, generation, record] = (await take()) as [string, string, string?];
      if (outcome === 'full') {
        await this.#forget(client, await this.#names(client, ''));
        [outcome, generation, record] = (await take()) as [string, string, string?];
      }
      this.#meet(generation, clock.monotonicMs());
      if (outcome === 'other') {
        if (this.#held.get(key) === holder) this.#held.delete(key);
        const by = decodeRecord(record ?? '');
        if (by === undefined) throw refused(`the lease ${key} holds what no member wrote; remove ${this.#keys.lease(key)} from Redis`);
        return { isTaken: false, by: { key, ...by } };
      }
      if (outcome === 'anew') throw refused('Redis has lost its memory, and those who hold leases are waited for');
      if (outcome === 'full') throw refused(`the coordinator holds ${leasesMax} leases already`);
      if (outcome === 'taken' && key === controllerLeaseKey) await this.#confirm(client, key, holder);
      this.#held.set(key, holder);
      return { isTaken: true };
    });
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#held.get(key) === holder) this.#held.delete(key);
    // Whoever ends a lease knows its holder to be gone: nobody need be waited for.
    if (this.#anew !== undefined && this.#anew.freed.size < leasesMax) this.#anew.freed.add(key);
    await this.#call(({ client }) => this.#release(client, key, holder));
  }

  async list(prefix: string): Promise<readonly Lease[]> {
    return this.#call(async ({ client }) => {
      const names = await this.#names(client, prefix);
      const leases: Lease[] = [];
      const lapsed: string[] = [];
      for (let start = 0; start < names.length; start += pageSize) {
        const page = names.slice(start, start + pageSize);
        const records = await client.mget(page.map((key) => this.#keys.lease(key)));
        for (const [index, key] of page.entries()) {
          const lease = decodeRecord(records[index] ?? '');
          if (lease !== undefined) leases.push({ key, ...lease });
          else lapsed.push(key);
        }
      }
      await this.#forget(client, lapsed);
      return leases.sort((a, b) => (a.key < b.key ? -1 : 1));
    });
  }

  status(): { readonly ok: boolean; readonly detail: string } {
    const { label } = this.#options.endpoint;
    if (this.#problem !== undefined) return { ok: false, detail: `${label}: ${this.#problem}` };
    const findings = this.#session?.findings;
    if (this.#session === undefined) return { ok: true, detail: `${label}: not connected yet` };
    this.#settle();
    const parts = [
      findings === undefined ? 'connected' : `${findings.role}, ${findings.replicasInStep} of ${findings.replicas} replicas in step`,
      ...(this.#anew === undefined ? [] : ['has lost its memory; those who hold leases are waited for']),
      ...(findings?.warnings ?? []),
    ];
    return { ok: true, detail: `${label}: ${parts.join('; ')}` };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#session = undefined;
    for (const client of this.#clients) client.disconnect();
    this.#clients.clear();
  }

  // ---- leases

  async #release(client: RedisClient, key: string, holder: string): Promise<void> {
    await client.releaseLease(this.#keys.lease(key), this.#keys.index, holderLine(holder), key);
  }

  async #names(client: RedisClient, prefix: string): Promise<string[]> {
    const [from, to] = prefix === '' ? ['-', '+'] : [`[${prefix}`, Buffer.concat([Buffer.from(`(${prefix}`), Buffer.of(0xff)])];
    return client.zrangebylex(this.#keys.index, from, to, 'LIMIT', 0, leasesMax);
  }

  async #forget(client: RedisClient, names: readonly string[]): Promise<void> {
    const { index } = this.#keys;
    await Promise.all(names.slice(0, forgottenMax).map((key) => client.forgetLapsed(index, this.#keys.lease(key), key)));
  }

  // A master that is alone in having the lease may be replaced by one that never heard of it: then the lease was never given.
  async #confirm(client: RedisClient, key: string, holder: string): Promise<void> {
    const [replication] = await this.#batch(client, (batch) => batch.info('replication'));
    if (readFindings(String(replication)).replicasInStep === 0) return;
    const [copies] = await this.#batch(client, (batch) => batch.wait(1, waitMs));
    if (Number(copies) > 0) return;
    await this.#release(client, key, holder);
    throw refused(`no replica of Redis confirmed the lease ${key} within ${waitMs} ms, so it was given back`);
  }

  /** Commands without keys, sent to the node that has this cluster's keys, and over the connection that wrote them. */
  async #batch(
    client: RedisClient,
    add: (batch: ReturnType<RedisClient['pipeline']>) => { exec(): Promise<[Error | null, unknown][] | null> },
  ) {
    const answers = (await add(client.pipeline().exists(this.#keys.index)).exec()) ?? [];
    return answers.slice(1).map(([error, answer]) => {
      if (error !== null) throw error;
      return answer;
    });
  }

  #meet(generation: string, nowMs: number): void {
    if (this.#generation === '') this.#generation = generation;
    if (generation === this.#generation) {
      this.#anew = undefined;
      return;
    }
    if (this.#anew?.generation === generation) return;
    this.#anew = { generation, untilMs: nowMs + this.#options.leaseMs, freed: new Set() };
    this.#options.log.warn({}, `Redis has lost its memory (${this.#options.endpoint.label}); leases are told anew by those who hold them`);
  }

  // The time in which holders speak up is over: the new memory is as good as the old one.
  #settle(): void {
    if (this.#anew === undefined || this.#options.clock.monotonicMs() < this.#anew.untilMs) return;
    this.#generation = this.#anew.generation;
    this.#anew = undefined;
  }

  // ---- the connection

  async #call<T>(work: (session: Session) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw refused('the coordinator is closed');
    if (this.#calls >= callsMax) throw refused(`${callsMax} requests to Redis are under way already`);
    this.#calls += 1;
    let session: Session | undefined;
    try {
      const answer = await withTimeout(
        this.#options.clock,
        answerTimeoutMs,
        this.#connected().then((opened) => {
          session = opened;
          return work(opened);
        }),
        () => new Error(`no answer within ${answerTimeoutMs} ms`),
      );
      this.#answered();
      return answer;
    } catch (error) {
      // What Redis itself has answered, and this engine has made its sentence of, is no failure of the connection.
      if (error instanceof PlatformError) {
        if (session !== undefined) this.#answered();
        throw error;
      }
      if (session !== undefined && !isMereRefusal(error)) this.#discard(session.client, error);
      this.#failed(error);
      throw new PlatformError('STORE_UNAVAILABLE', `${this.#options.endpoint.label}: ${this.#problem}`, { cause: error });
    } finally {
      this.#calls -= 1;
    }
  }

  #connected(): Promise<Session> {
    if (this.#session !== undefined) return Promise.resolve(this.#session);
    if (this.#dialling !== undefined) return this.#dialling;
    if (this.#options.clock.monotonicMs() < this.#nextDialMs) return Promise.reject(new Error(this.#lostBy));
    this.#dialling = this.#dial().finally(() => {
      this.#dialling = undefined;
    });
    // A caller may have given up by then.
    this.#dialling.catch((error: unknown) => this.#failed(error));
    return this.#dialling;
  }

  async #dial(): Promise<Session> {
    const { endpoint, access, clock } = this.#options;
    const client = createRedisClient(endpoint, access, answerTimeoutMs);
    this.#clients.add(client);
    let lastError: Error | undefined;
    // ioredis prints errors that nobody listens to; those of single calls come with the calls.
    client.on('error', (error) => {
      lastError = error;
    });
    const limitMs = 2 * answerTimeoutMs;
    try {
      await withTimeout(clock, limitMs, client.connect(), () => new Error(`no connection within ${limitMs} ms`));
      const findings = await withTimeout(clock, limitMs, this.#inspect(client), () => new Error(`no answer within ${limitMs} ms`));
      if (this.#isClosed) throw new Error('the coordinator is closed');
      const session = { client, findings };
      this.#session = session;
      client.on('end', () => this.#discard(client, lastError ?? new Error('Redis closed the connection')));
      return session;
    } catch (error) {
      // "Connection is closed" is the end of the story; what came before it says why.
      const reason = lastError ?? error;
      this.#discard(client, reason);
      throw reason;
    }
  }

  async #inspect(client: RedisClient): Promise<RedisFindings | undefined> {
    let findings: RedisFindings;
    try {
      const [replication, memory] = await this.#batch(client, (batch) => batch.info('replication').info('memory'));
      findings = readFindings(String(replication), String(memory));
    } catch (error) {
      if (!isMereRefusal(error)) throw error;
      this.#options.log.debug({ err: error }, 'Redis does not say how it is set up');
      return undefined;
    }
    for (const warning of findings.warnings) {
      if (!this.#warned.has(warning)) this.#options.log.warn({}, `Redis (${this.#options.endpoint.label}): ${warning}`);
    }
    this.#warned = new Set(findings.warnings);
    return findings;
  }

  #discard(client: RedisClient, error: unknown): void {
    if (!this.#clients.delete(client)) return;
    client.disconnect();
    if (this.#session?.client === client) this.#session = undefined;
    if (this.#isClosed) return;
    const { clock, random, log, endpoint } = this.#options;
    const pauseMs = jitteredMs(random, Math.min(pauseMsMax, pauseMsMin * 2 ** this.#failures), 0.5);
    this.#failures = Math.min(this.#failures + 1, 10);
    this.#nextDialMs = clock.monotonicMs() + pauseMs;
    this.#lostBy = messageOf(error);
    log.debug({ pauseMs, err: error }, `the connection to ${endpoint.label} is given up`);
  }

  #answered(): void {
    if (this.#problem !== undefined) this.#options.log.info({}, `Redis answers again (${this.#options.endpoint.label})`);
    this.#problem = undefined;
    this.#failures = 0;
  }

  #failed(error: unknown): void {
    if (this.#isClosed) return;
    const problem = messageOf(error);
    if (this.#problem === undefined) {
      this.#options.log.warn({}, `Redis does not serve (${this.#options.endpoint.label}): ${problem}; open accounts go on`);
    }
    this.#problem = problem;
  }
}

/** Redis answered, and would answer the same over another connection; a server that may not write or is still loading is not meant. */
function isMereRefusal(error: unknown): boolean {
  const text = messageOf(error);
  return error instanceof Error && error.name === 'ReplyError' && !/READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|UNBLOCKED/.test(text);
}

function refused(why: string): PlatformError {
  return new PlatformError('STORE_UNAVAILABLE', why);
}
