/**
 * Brings a delivered message to its account: stored here when this member hosts the account, carried over the link to the current host
 * otherwise. Resolves only when the message is durable; the delivery id makes a repeat harmless.
 *
 *   LMTP on this member ─► deliver ─► open here ─► append
 *                                └─► `at(host)` ─► channel `deliver` to the host: {message facts}\n raw bytes, end ─► {ok} or {error}
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { type DeliveredMessage, deliverTo } from '#backend-cluster/delivery/deliver.ts';
import type { LinkPeer, SessionDecision } from '#backend-cluster/link/server.ts';
import { type AccountName, type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Connection } from '#common/network/network.ts';
import { jitteredMs, type Random } from '#common/random.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import { hopsMax, type OpenSession } from '#protocol/link/messages.ts';
import type { HostedAccounts } from './hosted-accounts.ts';
import type { Locator } from './locate.ts';

/** Largest message carried between members, bytes; what LMTP takes, and trace headers. */
export const carriedBytesMax = 100 * 1024 * 1024 + 65_536;
const headLineMax = 8_192;
const carryTimeoutMs = 60_000;
/** Tries to find the account's host, over about a second; then the frontend's queue has the message again. */
const attemptsMax = 4;
const againFirstMs = 150;
/** Bytes of messages that are being carried to this member at a time; beyond it the frontend's queue tries again. */
const carriedTotalMax = 512 * 1024 * 1024;

/** What deliveries are made of. */
export interface DeliveriesOptions {
  readonly locator: Locator;
  readonly hosted: HostedAccounts;
  readonly link: LinkClient;
  readonly self: { readonly name: string };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** See the header of this file. */
export class Deliveries {
  readonly #options: DeliveriesOptions;
  #count = 0;
  #carriedBytes = 0;

  constructor(options: DeliveriesOptions) {
    this.#options = options;
  }

  /** Messages stored by this member since its start. */
  get count(): number {
    return this.#count;
  }

  /** Rejects when mail for this address cannot be taken now (`unavailable`, `moved`) or ever (`not-found`, `auth`). */
  async checkRecipient(name: AccountName): Promise<void> {
    await this.#recipient(name);
  }

  async deliver(recipient: AccountName, message: DeliveredMessage): Promise<void> {
    const { uuid } = await this.#recipient(recipient);
    await this.#deliverTo(uuid, { ...message, recipient }, 0);
  }

  /** Another member carries a message here, because this member is said to host the account. */
  async accept(peer: LinkPeer, request: OpenSession): Promise<SessionDecision> {
    if (peer.role !== 'backend-cluster') throw new PlatformError('LINK_REFUSED', `${peer.name} is no member and may not carry messages`);
    const uuid = parseAccountUuid(request.account?.uuid ?? '');
    return {
      answer: { outcome: 'opened', capabilities: [], accountName: request.account?.name ?? '' },
      serve: (channel) => this.#receive(channel, uuid, request.hops),
    };
  }

  async #recipient(name: AccountName): Promise<AccountRecord> {
    const located = await this.#options.locator.byAddress(name);
    if (located.where === 'absent') throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${name}`);
    if (located.where === 'elsewhere') throw new PlatformError('LINK_MOVED', `${name} is hosted by ${located.hostServer ?? 'no cluster'}`);
    const { status } = located.record;
    if (status === 'maintenance') throw new PlatformError('AUTH_ACCOUNT_MAINTENANCE', `${name} is in maintenance`);
    if (status === 'closed') throw new PlatformError('ACCT_NOT_FOUND', `${name} is closed`);
    return located.record;
  }

  async #deliverTo(uuid: AccountUuid, message: DeliveredMessage, hops: number): Promise<void> {
    const { clock, random } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      const acquired = await this.#options.hosted.acquire(uuid);
      try {
        if (acquired.outcome === 'here') await deliverTo(acquired.account, message, this.#options.log);
        else await this.#carry(acquired.host, uuid, message, hops);
        if (acquired.outcome === 'here') this.#count += 1;
        return;
      } catch (error) {
        // The account went elsewhere while we tried, or its host has just died: again, with what is known then. The id keeps it single.
        const { code } = asPlatformError(error);
        if (attempt >= attemptsMax || (code !== 'CLUSTER_DEPOSED' && !code.startsWith('NET_'))) throw error;
        await sleep(clock, jitteredMs(random, againFirstMs * 2 ** (attempt - 1)));
      } finally {
        if (acquired.outcome === 'here') acquired.release();
      }
    }
  }

  async #carry(host: MemberAddress, uuid: AccountUuid, message: DeliveredMessage, hops: number): Promise<void> {
    if (hops >= hopsMax) throw new PlatformError('ROUTE_LOOP', `a message for ${uuid} was carried ${hops} times`);
    const { link, random, self } = this.#options;
    // A member that does not answer is dialled in the background, for seconds each time. The frontend need not wait for that.
    const { state, lastError } = link.health(host);
    if (state === 'down')
      throw new PlatformError('NET_CONNECT_FAILED', `${host.name} cannot be reached: ${lastError ?? 'no reason known'}`);
    const { answer, channel } = await link.openSession(host, {
      service: 'deliver',
      sessionId: random.uuid(),
      account: { uuid, name: '' },
      client: { address: '', port: 0, tls: false },
      from: self.name,
      hops: hops + 1,
    });
    if (channel === undefined) {
      throw answer.outcome === 'refused'
        ? new PlatformError(answer.code, answer.message)
        : new PlatformError('CLUSTER_DEPOSED', `${host.name} does not host ${uuid} any more`);
    }
    const { raw, deliveryId, sender, recipient, receivedAtMs } = message;
    const reply = this.#readAll(channel, headLineMax);
    channel.write(`${JSON.stringify({ deliveryId, sender, recipient, receivedAtMs, bytes: raw.length })}\n`);
    channel.write(raw);
    channel.end();
    const result = JSON.parse((await reply).toString('utf8')) as { ok?: unknown; code?: unknown; message?: unknown };
    if (result.ok === true) return;
    const code = typeof result.code === 'string' && result.code in errorCatalogue ? (result.code as ErrorCode) : 'BUG_UNEXPECTED';
    throw new PlatformError(code, String(result.message ?? 'no reason given'));
  }

  #receive(channel: Connection, uuid: AccountUuid, hops: number): void {
    void (async () => {
      let answer: object = { ok: true };
      try {
        const bytes = await this.#readAll(channel, carriedBytesMax);
        const headEnd = bytes.indexOf(0x0a);
        if (headEnd < 0 || headEnd > headLineMax) throw new PlatformError('LINK_PROTOCOL', 'a carried message has no head');
        const head = JSON.parse(bytes.subarray(0, headEnd).toString('utf8')) as Record<string, unknown>;
        const raw = bytes.subarray(headEnd + 1);
        const { deliveryId, sender, recipient, receivedAtMs } = head;
        if (raw.length !== head.bytes || typeof deliveryId !== 'string' || typeof sender !== 'string' || typeof receivedAtMs !== 'number') {
          throw new PlatformError('LINK_PROTOCOL', 'a carried message is incomplete');
        }
        const to = typeof recipient === 'string' ? { recipient } : {};
        await this.#deliverTo(uuid, { raw, deliveryId, sender, receivedAtMs, ...to }, hops);
      } catch (error) {
        const { code, message } = asPlatformError(error);
        answer = { ok: false, code, message: message.slice(0, 1000) };
      }
      channel.write(JSON.stringify(answer));
      channel.end();
    })();
  }

  // All that comes until the half-close. What is gathered is counted against the member's total.
  #readAll(channel: Connection, bytesMax: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let total = 0;
      const finish = (error: Error | undefined): void => {
        timer.cancel();
        this.#carriedBytes -= total;
        total = 0;
        if (error === undefined) resolve(Buffer.concat(chunks));
        else reject(error);
      };
      const timer = this.#options.clock.after(carryTimeoutMs, () => {
        channel.destroy(new PlatformError('NET_TIMEOUT', `a message was not carried within ${carryTimeoutMs} ms`));
      });
      channel.handle({
        data: (chunk) => {
          chunks.push(chunk);
          total += chunk.length;
          this.#carriedBytes += chunk.length;
          if (total > bytesMax || this.#carriedBytes > carriedTotalMax) {
            channel.destroy(new PlatformError('MBOX_LIMIT', 'more is being carried to this member than it takes at a time'));
          }
        },
        end: () => finish(undefined),
        close: (error) => finish(error ?? new PlatformError('NET_CLOSED', 'the link ended before the message was whole')),
      });
    });
  }
}
