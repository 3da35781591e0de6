/**
 * Members of one cluster in one process: real link on loopback, real storage in a temporary directory, and a directory that is a table.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { createEmbeddedCoordinators } from '#backend-cluster/coordination/embedded.ts';
import { type MemberOptions, type RunningBackend, startMember } from '#backend-cluster/member.ts';
import { serveManageSieve } from '#backend-cluster/sessions/managesieve/server.ts';
import { pop3Capabilities, servePop3 } from '#backend-cluster/sessions/pop3/server.ts';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { type AccountName, type AccountUuid, parseAccountName, parseAccountUuid } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { type ClusterName, parseClusterName, parseMemberName } from '#common/host-server.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { Connection } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import type { DirectoryChange, DirectoryFollower, DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { LinkRole } from '#protocol/link/hello.ts';
import type { OpenSession, OpenSessionAnswer } from '#protocol/link/messages.ts';

export const west = parseClusterName('west.isp.example');
/** Cheap to verify, unlike what the product makes. */
const storedPassword = '{CLEARTEXT}secret';

/** A directory that is a table, with switches for its failures. */
export class TableDirectory {
  readonly records = new Map<AccountUuid, AccountRecord>();
  readonly #followers = new Set<(change: DirectoryChange) => void>();
  #csn = 0;
  isDown = false;
  /** Called after a write was done and before it is answered; may throw, as a lost answer does. */
  afterWrite: (() => void) | undefined;

  add(name: string, hostServer: ClusterName | undefined = west, fields: Partial<AccountRecord> = {}): AccountRecord {
    const uuid = parseAccountUuid(systemRandom.uuid());
    return this.put({
      kind: 'account',
      uuid,
      dn: '',
      name: parseAccountName(name),
      hostServer,
      hostServerProblem: undefined,
      addresses: [],
      status: 'active',
      quotaBytes: undefined,
      passwords: new Secret([storedPassword]),
      region: undefined,
      displayName: undefined,
      csn: '',
      ...fields,
    });
  }

  put(record: AccountRecord): AccountRecord {
    this.#csn += 1;
    const stored = { ...record, csn: String(this.#csn).padStart(9, '0') };
    this.records.set(stored.uuid, stored);
    this.#tell({ type: 'put', record: stored });
    return stored;
  }

  remove(uuid: AccountUuid): void {
    this.records.delete(uuid);
    this.#tell({ type: 'remove', uuid });
  }

  follow(onChange: (change: DirectoryChange) => void): DirectoryFollower {
    this.#followers.add(onChange);
    for (const record of this.records.values()) onChange({ type: 'put', record });
    onChange({ type: 'refreshed', cookie: undefined });
    return {
      status: () => ({ server: 'table', state: 'following', refreshedOnce: true, silentMs: 0, changes: 0, lastError: undefined }),
      whenRefreshed: async () => {},
      [Symbol.asyncDispose]: async () => void this.#followers.delete(onChange),
    };
  }

  get reader(): DirectoryReader {
    const answer = (find: () => AccountRecord | undefined) => {
      if (this.isDown) throw new PlatformError('DIR_NO_MASTER', 'the master does not answer');
      return { record: find(), server: 'table', authoritative: true };
    };
    return {
      findAccount: async (address) => answer(() => this.#byName(address)),
      findAccountByUuid: async (uuid) => answer(() => this.records.get(uuid)),
      findDomain: async () => undefined,
      listAccounts: async () => [...this.records.values()],
      listClusters: async () => [],
      servers: async () => [],
      [Symbol.asyncDispose]: async () => {},
    };
  }

  get writer(): DirectoryWriter {
    const write = <T>(work: () => T): T => {
      if (this.isDown) throw new PlatformError('DIR_NO_MASTER', 'the master does not answer');
      const result = work();
      this.afterWrite?.();
      return result;
    };
    const existing = (uuid: AccountUuid): AccountRecord => {
      const record = this.records.get(uuid);
      if (record === undefined) throw new PlatformError('DIR_NOT_FOUND', 'no such entry');
      return record;
    };
    return {
      createAccount: async (account) =>
        write(() => {
          if (this.#byName(account.name) !== undefined) throw new PlatformError('DIR_EXISTS', 'there is one');
          const record = this.add(account.name, account.hostServer);
          return account.status === undefined ? record : this.put({ ...record, status: account.status });
        }),
      renameAccount: async (uuid, to) =>
        write(() => {
          const other = this.#byName(to);
          if (other !== undefined && other.uuid !== uuid) throw new PlatformError('DIR_EXISTS', 'there is one');
          return this.put({ ...existing(uuid), name: to });
        }),
      removeAccount: async (uuid) => write(() => this.remove(existing(uuid).uuid)),
      setPassword: async () => {},
      setStatus: async (uuid, status) => void write(() => this.put({ ...existing(uuid), status })),
      createDomain: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
  }

  #byName(name: AccountName): AccountRecord | undefined {
    return [...this.records.values()].find((record) => record.name === name || record.addresses.includes(name));
  }

  #tell(change: DirectoryChange): void {
    for (const follower of this.#followers) follower(change);
  }
}

/** See the header of this file. */
export class TestCluster implements AsyncDisposable {
  readonly directory = new TableDirectory();
  readonly root: string;
  readonly coordinators = createEmbeddedCoordinators();
  readonly members = new Map<string, RunningBackend>();
  readonly client: LinkClient;
  /** What the members logged at `warn` and above. */
  readonly warnings: string[] = [];
  /** Lines of level info. */
  readonly said: { readonly fields: Record<string, unknown>; readonly message: string }[] = [];
  #sessions = 0;

  private constructor(root: string) {
    this.root = root;
    this.client = this.dialAs('frontend', 'front1.eu.isp.example');
  }

  /** A link client of another server. */
  dialAs(role: LinkRole, name: string, options: { linkVersionMax?: number } = {}): LinkClient {
    return createLinkClient({ name, role, tls: undefined, ports: this.#ports(), ...options });
  }

  static async create(): Promise<TestCluster> {
    return new TestCluster(await mkdtemp(join(tmpdir(), 'archipelago-cluster-')));
  }

  async openStore(): Promise<AccountStore> {
    return openAccountStore({ root: this.root, files: nodeFiles, ...this.#ports() });
  }

  /** Starts a member. Leases are long, so that a test which passes does so without waiting for one to lapse. */
  async start(label: string, options: Partial<MemberOptions> = {}): Promise<RunningBackend> {
    const member = await startMember({
      name: parseMemberName(`${label}.west.isp.example`),
      listen: { address: '127.0.0.1', port: 0 },
      advertise: undefined,
      tls: undefined,
      clusterNetwork: ['127.0.0.1'],
      heartbeatMs: 50,
      leaseMs: 3_000,
      idleCloseMs: 60_000,
      openAccountsBytesMax: 64 * 1024 * 1024,
      tombstoneGraceHours: 1,
      defaultQuotaBytes: 0,
      duties: { httpClient: 'auto', remotePolling: 'auto' },
      ports: this.#ports(),
      leases: this.coordinators.open(west, systemClock),
      store: await this.openStore(),
      storage: { engine: 'posix', path: this.root },
      directory: { follow: (onChange) => this.directory.follow(onChange), reader: this.directory.reader, writer: this.directory.writer },
      hasher: createPasswordHasher(systemRandom),
      protocols: {
        imap: { serve: servePop3, capabilities: [] },
        pop3: { serve: servePop3, capabilities: pop3Capabilities },
        managesieve: { serve: serveManageSieve, capabilities: [] },
      },
      ...options,
    });
    this.members.set(label, member);
    return member;
  }

  address(member: RunningBackend): MemberAddress {
    const [host, port] = member.status().linkAddress.split(':') as [string, string];
    return { name: parseMemberName(member.name), host, port: Number(port) };
  }

  async open(
    member: RunningBackend | MemberAddress,
    record: AccountRecord,
    fields: Partial<OpenSession> = {},
  ): Promise<{ answer: OpenSessionAnswer; channel: Connection | undefined }> {
    this.#sessions += 1;
    return this.client.openSession('host' in member ? member : this.address(member), {
      service: 'pop3',
      sessionId: `s${this.#sessions}`,
      account: { uuid: record.uuid, name: record.name },
      login: { mechanism: 'PLAIN', authorizationId: '', authenticationId: record.name, password: 'secret' },
      client: { address: '192.0.2.7', port: 4711, tls: true },
      from: 'front1.eu.isp.example',
      hops: 0,
      ...fields,
    });
  }

  /** Delivers a message by LMTP through a member; the replies after DATA. */
  async deliver(member: RunningBackend, to: string, subject: string, id = systemRandom.uuid()): Promise<string> {
    const { channel } = await this.client.openSession(this.address(member), {
      service: 'lmtp',
      sessionId: 'lmtp',
      client: { address: '192.0.2.7', port: 4711, tls: true },
      from: 'front1.eu.isp.example',
      hops: 0,
    });
    if (channel === undefined) throw new Error('LMTP was refused');
    const dialogue = new Dialogue(channel);
    channel.write(`LHLO front1.eu.isp.example\r\nMAIL FROM:<x@isp.example> XDELIVERYID=${id}\r\nRCPT TO:<${to}>\r\n`);
    await dialogue.until(/^(?:250|5\d\d|4\d\d) .*\r\n(?:250|5\d\d|4\d\d) [^\r]*\r\n(?:250|5\d\d|4\d\d) [^\r]*\r\n$/ms);
    dialogue.clear();
    channel.write('DATA\r\n');
    const go = await dialogue.until(/\r\n$/);
    if (!go.startsWith('354')) {
      channel.destroy();
      return go;
    }
    dialogue.clear();
    channel.write(`Subject: ${subject}\r\n\r\nHello\r\n.\r\n`);
    const reply = await dialogue.until(/\r\n$/);
    channel.destroy();
    return reply;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
    for (const member of this.members.values()) await member[Symbol.asyncDispose]();
    await rm(this.root, { recursive: true, force: true });
  }

  #ports() {
    const note = (_fields: Record<string, unknown>, message: string): void => void this.warnings.push(message);
    const info = (fields: Record<string, unknown>, message: string): void => void this.said.push({ fields, message });
    const log: Logger = { ...silentLogger, child: () => log, info, warn: note, error: note };
    return { clock: systemClock, random: systemRandom, network: systemNetwork, log, metrics: createMetrics() };
  }
}

/** Text of a channel, waited for. */
export class Dialogue {
  text = '';
  isClosed = false;
  #changed: () => void = () => {};

  constructor(channel: Connection) {
    channel.handle({
      data: (chunk) => {
        this.text += chunk.toString('latin1');
        this.#changed();
      },
      close: () => {
        this.isClosed = true;
        this.#changed();
      },
    });
  }

  clear(): void {
    this.text = '';
  }

  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.text)) {
      if (this.isClosed) throw new Error(`closed after ${JSON.stringify(this.text)}`);
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    return this.text;
  }

  async closed(): Promise<string> {
    while (!this.isClosed) {
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    return this.text;
  }
}

/** Waits for a condition; fails after `limitMs`. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 10_000): Promise<void> {
  const end = Date.now() + limitMs;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error('the condition did not come true in time');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
