/**
 * A queue between a made-up router and members that are real LMTP servers over accounts in memory. Disk and clock are the test's.
 */
import { type AccountName, type AccountUuid, parseAccountName, parseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, parseClusterName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { MailRoute, MailRouter } from '#frontend/listeners/smtp-contract.ts';
import { MailQueue } from '#frontend/queue/queue.ts';
import type { RelayTransport } from '#frontend/queue/relay.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { LmtpMember } from '#test/fakes/lmtp-member.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import { seededRandom } from '#test/fakes/random.ts';

/** Routes that a test changes. */
export class FakeRouter implements MailRouter {
  readonly routes = new Map<string, { uuid: AccountUuid; cluster: ClusterName }>();
  isDown = false;
  #next = 1;

  add(name: string, cluster = 'west.isp.example'): AccountUuid {
    const uuid = parseAccountUuid(`00000000-0000-4000-8000-${String(this.#next++).padStart(12, '0')}`);
    this.routes.set(name, { uuid, cluster: parseClusterName(cluster) });
    return uuid;
  }

  rename(from: string, to: string): void {
    const route = this.routes.get(from);
    if (route === undefined) throw new Error(`no route ${from}`);
    this.routes.delete(from);
    this.routes.set(to, route);
  }

  async resolve(address: AccountName): Promise<MailRoute> {
    if (this.isDown) return { kind: 'temporary', error: new PlatformError('DIR_NO_MASTER', 'the master is away') };
    const route = this.routes.get(address);
    if (route !== undefined) return { kind: 'local', name: address, ...route };
    return address.endsWith('@isp.example') ? { kind: 'unknown' } : { kind: 'foreign-domain' };
  }

  async resolveUuid(uuid: AccountUuid): Promise<MailRoute> {
    if (this.isDown) return { kind: 'temporary', error: new PlatformError('DIR_NO_MASTER', 'the master is away') };
    for (const [name, route] of this.routes) if (route.uuid === uuid) return { kind: 'local', name: parseAccountName(name), ...route };
    return { kind: 'unknown' };
  }

  async isLocalDomain(domain: string): Promise<boolean> {
    if (this.isDown) throw new PlatformError('DIR_UNAVAILABLE', 'no directory server answers');
    return domain === 'isp.example';
  }
}

/** See the header of this file. */
export class QueueHarness {
  readonly clock = new FakeClock();
  readonly router = new FakeRouter();
  readonly members = new Map<string, LmtpMember>();
  readonly disk = new MemoryDisk();
  files: MemoryClient = this.disk.client();
  relay: RelayTransport | undefined;
  limits: { messagesMax?: number; bytesMax?: number } = {};
  queue!: MailQueue;

  constructor() {
    this.account('alice@isp.example');
    this.account('bob@isp.example');
    this.account('carol@isp.example', 'east.isp.example');
  }

  account(name: string, cluster = 'west.isp.example'): AccountUuid {
    const member = this.members.get(cluster) ?? new LmtpMember(this.clock, []);
    this.members.set(cluster, member);
    for (const [known, account] of new LmtpMember(this.clock, [name]).accounts) member.accounts.set(known, account);
    return this.router.add(name, cluster);
  }

  get west(): LmtpMember {
    return this.members.get('west.isp.example') as LmtpMember;
  }

  get east(): LmtpMember {
    return this.members.get('east.isp.example') as LmtpMember;
  }

  async open(): Promise<MailQueue> {
    this.queue = await MailQueue.open({
      directory: '/queue',
      hostName: 'front1.eu.isp.example',
      router: this.router,
      openDelivery: async (cluster) => ({ connection: (this.members.get(cluster) as LmtpMember).open(), isGreeted: false }),
      relay: this.relay,
      clock: this.clock,
      random: seededRandom(7),
      files: this.files,
      log: silentLogger,
      metrics: createMetrics(),
      ...this.limits,
    });
    return this.queue;
  }

  /** Accepts a message as the listener would. */
  async accept(recipients: readonly string[], options: { sender?: string; text?: string } = {}): Promise<string> {
    const id = this.queue.newId();
    const raw = Buffer.from((options.text ?? 'Subject: hello\n\nbody\n').replaceAll('\n', '\r\n'));
    const known = recipients.map((address) => ({ address, uuid: this.router.routes.get(address)?.uuid }));
    await this.queue.accept({ id, sender: options.sender ?? 'alice@isp.example', recipients: known, sessionId: 's1', raw });
    return id;
  }

  /** Names in one of the queue's directories. */
  names(directory: 'messages' | 'progress' | 'incoming' | 'damaged'): string[] {
    return [...this.disk.directory(`/queue/${directory}`).entries.keys()].sort();
  }

  async close(): Promise<void> {
    await this.queue[Symbol.asyncDispose]();
  }
}
