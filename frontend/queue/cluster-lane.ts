/**
 * The way from this queue to one cluster: a few kept connections, jobs in order, and a rest when the cluster cannot be reached. Each
 * cluster has its own lane, so one that is down or slow holds up nobody's mail but its own.
 *
 *   up ── no connection ──► resting (1 s, doubled to 30 s) ── over ──► probing: one job ── connected ──► up, all waiting mail is woken
 *                              ▲                                           │
 *                              └──────────────── no connection ◄───────────┘
 *
 * While it rests jobs are answered `temporary` at once, without being tried.
 */
import type { Clock, Timer } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { Delivery } from '../listeners/smtp-contract.ts';
import { LmtpClient, type LmtpMessage, type RecipientResult } from './lmtp-client.ts';

/** Connections to one cluster at a time. */
const connectionsMax = 8;
const idleMaxMs = 30_000;
const restFirstMs = 1000;
const restLongestMs = 30_000;

/** What a lane is made of. */
export interface LaneOptions {
  readonly cluster: ClusterName;
  readonly hostName: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  openDelivery(cluster: ClusterName): Promise<Delivery>;
  /** A rest is over: one message should be tried. */
  onProbe(): void;
  /** The cluster answers again: all messages that wait for it should be tried. */
  onRecovered(): void;
}

/** A message of the lane; its text is read when its turn comes. */
export type LaneJob = Omit<LmtpMessage, 'raw'> & { readRaw(): Promise<Buffer> };

interface WaitingJob {
  readonly job: LaneJob;
  readonly done: (results: readonly RecipientResult[]) => void;
}

/** See the header of this file. */
export class ClusterLane {
  readonly #options: LaneOptions;
  readonly #waiting: WaitingJob[] = [];
  readonly #clients = new Set<LmtpClient>();
  #idle: { client: LmtpClient; timer: Timer }[] = [];
  #running = 0;
  #failures = 0;
  #rest: Timer | undefined;
  #isClosed = false;

  constructor(options: LaneOptions) {
    this.#options = options;
  }

  get isResting(): boolean {
    return this.#rest !== undefined;
  }

  /** Never rejects. Results are in the order of the job's recipients. */
  deliver(job: LaneJob): Promise<readonly RecipientResult[]> {
    if (this.isResting || this.#isClosed) return Promise.resolve(allUnreachable(job));
    return new Promise((done) => {
      this.#waiting.push({ job, done });
      this.#pump();
    });
  }

  /** Drops connections; what runs ends `temporary`. */
  close(): void {
    this.#isClosed = true;
    this.#rest?.cancel();
    for (const { timer } of this.#idle) timer.cancel();
    for (const client of this.#clients) client.destroy();
    this.#refuseWaiting();
  }

  #pump(): void {
    // After a failure one job goes ahead and the others wait to see what becomes of it.
    const limit = this.#failures > 0 ? 1 : connectionsMax;
    while (this.#running < limit) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#running += 1;
      void this.#perform(next.job).then((results) => {
        this.#running -= 1;
        next.done(results);
        this.#pump();
      });
    }
  }

  async #perform(job: LaneJob): Promise<readonly RecipientResult[]> {
    let raw: Buffer;
    try {
      raw = await job.readRaw();
    } catch (thrown) {
      this.#options.log.error({ queueId: job.deliveryId, err: thrown }, `queued message cannot be read: ${messageOf(thrown)}`);
      return job.recipients.map(() => ({ kind: 'temporary', status: '4.3.0', text: 'The message cannot be read from the queue' }));
    }
    for (;;) {
      const kept = this.#idle.pop();
      kept?.timer.cancel();
      const client = kept?.client ?? (await this.#connect());
      if (client === undefined) return allUnreachable(job);
      const outcome = await client.send({ ...job, raw });
      if (outcome.usable && !this.#isClosed) this.#keep(client);
      else this.#clients.delete(client);
      // A kept connection may have been closed while it was idle: that says nothing about the cluster.
      if (kept !== undefined && outcome.wasStale && !this.#isClosed) continue;
      return outcome.results;
    }
  }

  async #connect(): Promise<LmtpClient | undefined> {
    const { cluster, clock, log } = this.#options;
    try {
      const client = await LmtpClient.greet(await this.#options.openDelivery(cluster), clock, this.#options.hostName);
      if (client !== undefined) {
        if (this.#isClosed) {
          client.destroy();
          return undefined;
        }
        this.#clients.add(client);
        client.onClose(() => this.#forget(client));
        if (this.#failures > 0) this.#recovered();
        return client;
      }
      log.warn({ cluster }, 'cluster does not answer as an LMTP server does');
    } catch (thrown) {
      log.warn({ cluster, err: thrown }, `cluster cannot be reached for deliveries: ${messageOf(thrown)}`);
    }
    this.#startRest();
    return undefined;
  }

  #recovered(): void {
    this.#failures = 0;
    this.#options.log.info({ cluster: this.#options.cluster }, 'cluster takes deliveries again');
    this.#options.onRecovered();
  }

  #startRest(): void {
    if (this.#isClosed || this.isResting) return;
    this.#failures += 1;
    const delayMs = jitteredMs(this.#options.random, Math.min(restLongestMs, restFirstMs * 2 ** Math.min(this.#failures - 1, 10)));
    this.#rest = this.#options.clock.after(delayMs, () => {
      this.#rest = undefined;
      this.#options.onProbe();
    });
    this.#refuseWaiting();
  }

  #refuseWaiting(): void {
    for (const { job, done } of this.#waiting.splice(0)) done(allUnreachable(job));
  }

  #keep(client: LmtpClient): void {
    const timer = this.#options.clock.after(idleMaxMs, () => {
      this.#forget(client);
      client.quit();
    });
    this.#idle.push({ client, timer });
  }

  #forget(client: LmtpClient): void {
    this.#clients.delete(client);
    for (const entry of this.#idle) if (entry.client === client) entry.timer.cancel();
    this.#idle = this.#idle.filter((entry) => entry.client !== client);
  }
}

function allUnreachable(job: LaneJob): RecipientResult[] {
  return job.recipients.map(() => ({ kind: 'temporary', status: '4.4.1', text: 'The server of this account cannot be reached' }));
}
