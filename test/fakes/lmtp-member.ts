/**
 * A member that takes deliveries: the real LMTP server in front of accounts in memory. Tests set what goes wrong.
 */
import { type DeliveredMessage, deliverTo } from '#backend-cluster/delivery/deliver.ts';
import { type LmtpContext, serveLmtp } from '#backend-cluster/delivery/lmtp-server.ts';
import type { RunningSession } from '#backend-cluster/sessions/session.ts';
import type { AccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import type { Connection } from '#common/network/network.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';

/** See the header of this file. */
export class LmtpMember implements LmtpContext {
  readonly accounts = new Map<string, MemoryAccount>();
  readonly log = silentLogger;
  readonly clock: Clock;
  readonly hostName = 'back1.west.isp.example';
  readonly messageBytesMax: number;
  /** What became of every delivery that was asked for. */
  readonly deliveries: { readonly recipient: AccountName; readonly deliveryId: string }[] = [];
  readonly sessions: RunningSession[] = [];
  readonly serverEnds: MemoryConnection[] = [];
  endedSessions = 0;
  connections = 0;
  /** No connection can be made. */
  isDown = false;
  /** Thrown by RCPT, by name. */
  readonly refusals = new Map<string, PlatformError>();
  /** Thrown by the delivery, by name. */
  readonly failures = new Map<string, PlatformError>();
  /** Called after a delivery is durable and before its answer goes out. */
  afterDelivery: ((recipient: AccountName) => void) | undefined;

  constructor(clock: Clock, names: readonly string[], messageBytesMax = 1_000_000) {
    this.clock = clock;
    this.messageBytesMax = messageBytesMax;
    for (const name of names) this.accounts.set(name, new MemoryAccount());
  }

  /** A connection to it. */
  open(): Connection {
    if (this.isDown) throw new PlatformError('ROUTE_NO_MEMBER', 'no member is up');
    this.connections += 1;
    const [near, far] = connectionPair();
    this.serverEnds.push(far);
    this.sessions.push(
      serveLmtp(far, this, () => {
        this.endedSessions += 1;
      }),
    );
    return near;
  }

  async checkRecipient(name: AccountName): Promise<void> {
    const refusal = this.refusals.get(name);
    if (refusal !== undefined) throw refusal;
    if (!this.accounts.has(name)) throw new PlatformError('ACCT_NOT_FOUND', `no account ${name}`);
  }

  async deliver(recipient: AccountName, message: DeliveredMessage): Promise<void> {
    const failure = this.failures.get(recipient);
    if (failure !== undefined) throw failure;
    await deliverTo(this.accounts.get(recipient) as MemoryAccount, message, silentLogger);
    this.deliveries.push({ recipient, deliveryId: message.deliveryId });
    this.afterDelivery?.(recipient);
  }

  /** Texts in an account's INBOX. */
  async texts(name: string): Promise<string[]> {
    const account = this.accounts.get(name) as MemoryAccount;
    const inbox = account.mailbox('INBOX');
    const uids = [...(inbox?.uids() ?? [])];
    return await Promise.all(uids.map(async (uid) => (await account.readRaw(inbox?.id ?? 0, uid)).toString('utf8')));
  }
}
