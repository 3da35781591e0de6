/**
 * One member of a Dynamic Cluster, put together from its parts. Everything of the outside world is given: main.ts gives the real one,
 * tests and the simulator give theirs.
 *
 *                frontends, members, admin API
 *                            │ link
 *          ┌─────────────────┼───────────────────────────┐
 *      sessions/         link/calls.ts               accounts/deliver.ts
 *          │ authenticate     │ cluster.*                │
 *          ▼                  ▼                          ▼
 *   accounts/hosted ◄──► controller/ ◄── coordination   accounts/hosted
 *          │                  │ term
 *          ▼                  ▼
 *        storage (shared): the only place where being wrong would cost mail, and where every change is checked
 *
 * What always holds: an acknowledged change is in storage. What may be lost with this process: sessions, and what was not acknowledged.
 */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, clusterOf, type MemberName, parseMemberName } from '#common/host-server.ts';
import type { Ports, ReadinessCheck, RunningService } from '#common/lifecycle.ts';
import type { TokenVerifier } from '#common/oauth/token-verifier.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import type { DirectoryChange, DirectoryFollower, DirectoryReader, DirectoryWriter } from '#directory/client/directory.ts';
import { collectMethod } from '#protocol/link/messages.ts';
import { Archives } from './accounts/archives.ts';
import { Authenticator } from './accounts/authenticate.ts';
import { LoginCheck } from './accounts/check-login.ts';
import { Deliveries } from './accounts/deliver.ts';
import { HostedAccounts } from './accounts/hosted-accounts.ts';
import { Locator } from './accounts/locate.ts';
import { AccountOperations } from './accounts/operations.ts';
import { type AccountChange, AccountRegistry } from './accounts/registry.ts';
import { StoreCare } from './accounts/store-care.ts';
import type { AccountWhereabouts, MemberAddress } from './client/cluster-client.ts';
import { createLinkClient } from './client/link-client.ts';
import type { LinkSettings } from './client/link-settings.ts';
import type { LinkTlsPems } from './client/link-tls.ts';
import type { BackendStatus, ClusterStatus, MemberStatus } from './client/status.ts';
import { Controller } from './controller/controller.ts';
import type { DutySettings } from './controller/duties.ts';
import type { LivingState, MemberSelf } from './controller/membership.ts';
import { ClusterSettings } from './controller/settings.ts';
import { Upkeep } from './controller/upkeep.ts';
import type { LeaseStore } from './coordination/lease-store.ts';
import { serveLmtp } from './delivery/lmtp-server.ts';
import { createCalls } from './link/calls.ts';
import { type LinkPeer, type LinkServer, type SessionDecision, startLinkServer } from './link/server.ts';
import type { ParkedSession } from './sessions/handovers.ts';
import { createSessionServing, type SessionProtocols } from './sessions/serve-session.ts';
import { SessionRegistry } from './sessions/session-registry.ts';

/** Time for the Controller to do what an operator asked for: closing thousands of accounts takes a while. */
const upkeepTimeoutMs = 60_000;
/** Time that a member which stops waits for the sessions that it has handed over to be taken, milliseconds. */
const collectMs = 2_000;
const leavingText = 'Server is going down, connect again';

/** What a member is made of. */
export interface MemberOptions {
  readonly name: MemberName;
  readonly listen: { readonly address: string; readonly port: number };
  /** Where others reach it, when that is not the listening address. */
  readonly advertise: { readonly host: string; readonly port: number } | undefined;
  readonly tls: LinkTlsPems | undefined;
  /** See `helloOf`. */
  readonly linkVersionMax?: number;
  readonly clusterNetwork: readonly string[];
  /** Connections to other members. */
  readonly links?: LinkSettings | undefined;
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  readonly idleCloseMs: number;
  /** Memory that accounts which nobody uses may keep, with those in use counted in; beyond it the longest unused are closed. */
  readonly openAccountsBytesMax: number;
  readonly tombstoneGraceHours: number;
  /** 0 is none. */
  readonly defaultQuotaBytes: number;
  /** The background check of all accounts; without it only checks that are asked for. */
  readonly scrub?: { readonly bytesPerSecond: number; readonly everyMs: number };
  readonly duties: DutySettings;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'network' | 'log' | 'metrics'>;
  readonly leases: LeaseStore;
  readonly store: AccountStore;
  /** For status pages. */
  readonly storage: { readonly engine: string; readonly path: string };
  readonly directory: {
    follow(onChange: (change: DirectoryChange) => void): DirectoryFollower;
    readonly reader: DirectoryReader;
    readonly writer: DirectoryWriter;
  };
  readonly hasher: PasswordHasher;
  /** Judges access tokens; missing where none are taken. */
  readonly tokens?: TokenVerifier | undefined;
  readonly protocols: SessionProtocols;
}

/** A running member. */
export interface RunningBackend extends RunningService<BackendStatus> {
  /** The highest term accepted here, and whether this member leads in it; of `status()`, without its cost. */
  leadership(): { readonly term: number; readonly isController: boolean };
  /** Where all directory servers are written at once: how far each is. */
  copies(): readonly unknown[];
  /** Hands all accounts over within `deadlineMs` and takes no more; the process goes on until it is stopped. */
  drain(deadlineMs?: number): Promise<void>;
  /** Ends as a killed process does: no hand-over, no farewell, leases left to lapse. For demonstrations and tests of fail-over. */
  kill(): Promise<void>;
}

/** Starts a member. Resolves once it listens and has joined; the directory may come later, `readiness` says so. */
export async function startMember(options: MemberOptions): Promise<RunningBackend> {
  const member = new Member(options);
  await member.start();
  return member;
}

class Member implements RunningBackend {
  readonly role = 'backend-cluster';
  readonly name: MemberName;
  readonly #options: MemberOptions;
  readonly #cluster: ClusterName;
  readonly #incarnation: string;
  readonly #registry: AccountRegistry;
  readonly #sessions: SessionRegistry;
  readonly #hosted: HostedAccounts;
  readonly #locator: Locator;
  readonly #logins: LoginCheck;
  readonly #deliveries: Deliveries;
  readonly #operations: AccountOperations;
  readonly #care: StoreCare;
  readonly #archives: Archives;
  readonly #controller: Controller;
  readonly #link;
  readonly #serveSession: (peer: LinkPeer, request: Parameters<Deliveries['accept']>[1]) => Promise<SessionDecision>;
  readonly #settings: ClusterSettings;
  readonly #upkeep: Upkeep;
  #isLeaving = false;
  #address: MemberAddress;
  #server: LinkServer | undefined;
  #follower: DirectoryFollower | undefined;
  #storageError: string | undefined;
  #isOver = false;

  constructor(options: MemberOptions) {
    const { name, store, leases, directory, tls } = options;
    const { clock, random, metrics } = options.ports;
    this.#options = options;
    this.name = name;
    this.#cluster = clusterOf(name);
    this.#incarnation = random.bytes(8).toString('hex');
    const log = options.ports.log.child({ cluster: this.#cluster });
    this.#address = { name, host: options.advertise?.host ?? options.listen.address, port: options.advertise?.port ?? options.listen.port };
    this.#registry = new AccountRegistry(this.#cluster);
    this.#settings = new ClusterSettings(store.notes);
    this.#sessions = new SessionRegistry(clock, random, log, metrics);
    this.#locator = new Locator(this.#cluster, this.#registry, directory.reader);
    this.#logins = new LoginCheck(this.#locator, new Authenticator(options.hasher, clock, random, options.tokens));
    this.#link = createLinkClient({
      name,
      role: 'backend-cluster',
      cluster: this.#cluster,
      incarnation: this.#incarnation,
      linkVersionMax: options.linkVersionMax,
      tls,
      ...(options.links === undefined ? {} : { settings: options.links }),
      unreachable: (member) => this.#controller.suspect(member),
      ports: { ...options.ports, log },
    });
    this.#hosted = new HostedAccounts({
      ...options.ports,
      log,
      member: name,
      incarnation: this.#incarnation,
      store: { open: (uuid, opening) => this.#watchStorage(store.open(uuid, opening)) },
      controller: () => this.#controller,
      idleCloseMs: options.idleCloseMs,
      leaseMs: options.leaseMs,
      bytesMax: options.openAccountsBytesMax,
      quotaOf: (uuid) => this.#quotaOf(uuid),
      isTaking: () => this.#state() === 'active',
      onEnd: (uuid, text) => this.#sessions.byeAccount(uuid, text),
      onLeave: (uuid, text) => this.#sessions.moveAccount(uuid, text),
    });
    this.#deliveries = new Deliveries({
      locator: this.#locator,
      hosted: this.#hosted,
      link: this.#link,
      self: { name },
      clock,
      random,
      log,
    });
    this.#controller = new Controller({
      ...options.ports,
      log,
      self: this.#self(),
      leases,
      store,
      link: this.#link,
      local: this.#hosted,
      heartbeatMs: options.heartbeatMs,
      leaseMs: options.leaseMs,
      duties: options.duties,
      settings: this.#settings,
      onLead: () => this.#operations.onLead(),
      run: (method, params) => {
        if (this.#upkeep.knows(method)) return this.#upkeep.lead(method, params);
        return (method.startsWith('store.') ? this.#care : this.#operations).run(method, params);
      },
    });
    this.#upkeep = new Upkeep({
      cluster: this.#cluster,
      self: name,
      clock,
      log,
      settings: this.#settings,
      open: this.#hosted,
      members: () => this.#controller.membership.all(),
      addressOf: (member) => this.#controller.addressOf(member),
      call: (member, method, params) => this.#link.call(member, method, params),
      askController: (method, params) =>
        this.#controller.ask('cluster.run', { method, params }, { timeoutMs: upkeepTimeoutMs, isOnce: true }),
      changed: () => {
        this.#server?.announce();
        void this.#controller.beat();
      },
      yieldLead: () => this.#controller.yieldLead(),
      takeLead: () => this.#controller.beat(),
      forget: (member) => this.#controller.forget(member),
    });
    this.#operations = new AccountOperations({
      context: {
        cluster: this.#cluster,
        store,
        reader: directory.reader,
        writer: directory.writer,
        clock,
        random,
        log,
        closeEverywhere: (uuid, text) => this.#controller.closeEverywhere(uuid, text),
        learn: (record) => this.#registry.learn(record),
      },
      store,
      tombstoneGraceHours: options.tombstoneGraceHours,
      isController: () => this.#controller.isController,
    });
    this.#archives = new Archives({ locator: this.#locator, hosted: this.#hosted, clock, random, log });
    this.#care = new StoreCare({
      ...options.ports,
      log,
      store,
      storage: options.storage,
      scrub: options.scrub ?? { bytesPerSecond: 0, everyMs: 0 },
      member: name,
      incarnation: this.#incarnation,
      isController: () => this.#controller.isController,
      closeEverywhere: (uuid, text) => this.#controller.closeEverywhere(uuid, text),
    });
    this.#serveSession = createSessionServing({
      collect: async (from, frontend) => {
        const member = parseMemberName(from.member);
        if (member === name) return this.#sessions.handovers.collect(from.ticket, frontend);
        if (clusterOf(member) !== this.#cluster) throw new PlatformError('LINK_PROTOCOL', `${member} is no member of ${this.#cluster}`);
        const address = { name: member, host: from.host, port: from.port };
        return (await this.#link.call(address, collectMethod, { ticket: from.ticket, frontend })) as ParkedSession;
      },
      ...options.ports,
      log,
      protocols: options.protocols,
      registry: this.#registry,
      logins: this.#logins,
      hosted: this.#hosted,
      sessions: this.#sessions,
      hostElsewhere: (uuid) => this.#controller.locate(uuid),
    });
    this.#registry.onChange((change) => this.#onAccountChange(change));
    const accounts = metrics.gauge('archipelago_cluster_accounts', 'Accounts whose hostServer is this cluster.');
    const leads = metrics.gauge('archipelago_cluster_is_controller', '1 while this member is the Controller.');
    const term = metrics.gauge('archipelago_cluster_term', 'Highest term that this member has accepted.');
    metrics.onCollect(() => {
      accounts.set({}, this.#registry.count);
      leads.set({}, this.#controller.isController ? 1 : 0);
      term.set({}, this.#controller.term);
    });
  }

  async start(): Promise<void> {
    const { listen, advertise, tls, clusterNetwork, ports, directory } = this.#options;
    const calls = createCalls({
      cluster: this.#cluster,
      controller: this.#controller,
      logins: this.#logins,
      whereIs: (uuid, isLocal) => this.#whereIs(uuid, isLocal),
      clusterStatus: () => this.#clusterStatus(),
      collect: (ticket, frontend) => this.#sessions.handovers.collect(ticket, frontend),
      byeSession: (sessionId, frontend, text) => this.#sessions.byeSession(sessionId, frontend, text),
      upkeep: this.#upkeep,
      log: ports.log.child({ cluster: this.#cluster }),
    });
    this.#server = await startLinkServer({
      name: this.name,
      cluster: this.#cluster,
      incarnation: this.#incarnation,
      linkVersionMax: this.#options.linkVersionMax,
      listen,
      tls,
      clusterNetwork,
      ...ports,
      status: () => ({
        sessions: this.#sessions.count,
        openAccounts: this.#hosted.count,
        state: this.#state() === 'active' ? 'active' : 'draining',
        weight: this.#settings.weightOf(this.name),
      }),
      open: (peer, request) => this.#open(peer, request),
      call: calls,
    });
    if (advertise === undefined) this.#address = { ...this.#address, port: this.#server.port };
    try {
      await this.#controller.start();
    } catch (error) {
      await this.#server.close();
      throw error;
    }
    this.#operations.start();
    this.#care.start();
    this.#follower = directory.follow((change) => this.#registry.apply(change));
    ports.log.info({ cluster: this.#cluster, incarnation: this.#incarnation, port: this.#server.port }, 'member joined its cluster');
  }

  leadership(): { term: number; isController: boolean } {
    return { term: this.#controller.term, isController: this.#controller.isController };
  }

  status(): BackendStatus {
    const { storage, leases } = this.#options;
    const follower = this.#follower?.status();
    const coordinator = leases.status();
    const coordinatorError = this.#controller.membership.coordinatorError;
    return {
      role: 'backend-cluster',
      name: this.name,
      linkAddress: `${this.#address.host}:${this.#address.port}`,
      cluster: this.#clusterStatus(),
      isController: this.#controller.isController,
      storage: {
        ...storage,
        ok: this.#storageError === undefined,
        detail: this.#storageError ?? 'answers',
        damaged: this.#care.damaged.count,
      },
      coordinator: {
        engine: leases.engine,
        ok: coordinator.ok && coordinatorError === undefined,
        detail: coordinatorError ?? coordinator.detail,
      },
      directory: { server: follower?.server ?? '', state: follower?.state ?? 'connecting', silentMs: follower?.silentMs ?? 0 },
      duties: this.#controller.duties.status(),
      openAccounts: this.#hosted.count,
      openAccountsBytes: this.#hosted.bytes,
      openAccountsBytesMax: this.#options.openAccountsBytesMax,
      drain: this.#upkeep.drainStatus,
      settingsVersion: this.#settings.current.version,
      deliveries: this.#deliveries.count,
      links: this.#link.use(),
      sessions: this.#sessions.list(),
    };
  }

  copies(): readonly unknown[] {
    return this.#options.directory.writer.copies?.() ?? [];
  }

  readiness(): readonly ReadinessCheck[] {
    const follower = this.#follower?.status();
    const controller = this.#controller.controllerName;
    return [
      {
        name: 'member',
        ok: this.#state() === 'active' && !this.#isOver,
        detail: this.#isOver ? 'stopped' : this.#state() === 'active' ? 'takes accounts' : `${this.#state()}: takes no more accounts`,
        isOrdered: !this.#isOver && (this.#state() === 'draining' || this.#state() === 'cordoned'),
      },
      {
        name: 'directory',
        ok: this.#registry.isRefreshed,
        detail: this.#registry.isRefreshed
          ? `${this.#registry.count} accounts known, ${follower?.state} ${follower?.server}`
          : `waiting for ${follower?.server ?? 'the directory'}${follower?.lastError === undefined ? '' : `: ${follower.lastError}`}`,
      },
      {
        name: 'controller',
        ok: controller !== undefined,
        detail: controller === undefined ? 'no Controller is known yet' : `${controller}, term ${this.#controller.term}`,
      },
      { name: 'storage', ok: this.#storageError === undefined, detail: this.#storageError ?? 'answers' },
    ];
  }

  async drain(deadlineMs = 0): Promise<void> {
    await this.#upkeep.drain(deadlineMs, leavingText);
  }

  #state(): LivingState {
    if (this.#isLeaving) return 'leaving';
    if (this.#upkeep.isDraining) return 'draining';
    return this.#settings.isCordoned(this.name) ? 'cordoned' : 'active';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isLeaving = true;
    this.#server?.announce();
    const operationsEnd = Promise.all([this.#operations.stop(), this.#care.stop()]);
    await this.#hosted.closeAll(leavingText);
    this.#sessions.byeAll(leavingText);
    await operationsEnd;
    await this.#sessions.handovers.collected(collectMs);
    this.#hosted.stop();
    await this.#controller.stop();
    await this.#server?.close();
    await this.#release();
  }

  async kill(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isLeaving = true;
    void this.#operations.stop();
    void this.#care.stop();
    this.#controller.kill();
    this.#hosted.kill();
    this.#server?.kill();
    await this.#release();
  }

  async #release(): Promise<void> {
    const { directory, leases } = this.#options;
    await Promise.allSettled([
      this.#link[Symbol.asyncDispose](),
      this.#follower?.[Symbol.asyncDispose](),
      directory.reader[Symbol.asyncDispose](),
      directory.writer[Symbol.asyncDispose](),
      leases[Symbol.asyncDispose](),
    ]);
  }

  #self(): MemberSelf {
    const address = (): MemberAddress => this.#address;
    return {
      get address() {
        return address();
      },
      incarnation: this.#incarnation,
      state: () => this.#state(),
      openAccounts: () => this.#hosted.count,
      sessions: () => this.#sessions.count,
    };
  }

  async #open(peer: LinkPeer, request: Parameters<Deliveries['accept']>[1]): Promise<SessionDecision> {
    if (request.service === 'deliver') return this.#deliveries.accept(peer, request);
    if (request.service === 'lmtp') return this.#openLmtp(peer, request);
    if (request.service === 'export' || request.service === 'import') return this.#archives.accept(peer, request);
    return this.#serveSession(peer, request);
  }

  async #openLmtp(peer: LinkPeer, request: Parameters<Deliveries['accept']>[1]): Promise<SessionDecision> {
    const { clock, log } = this.#options.ports;
    const context = {
      checkRecipient: (name: Parameters<Deliveries['checkRecipient']>[0]) => this.#deliveries.checkRecipient(name),
      deliver: (...delivery: Parameters<Deliveries['deliver']>) => this.#deliveries.deliver(...delivery),
      log: log.child({ sessionId: request.sessionId, protocol: 'lmtp', peer: peer.name }),
      clock,
      hostName: this.name,
    };
    const facts = {
      sessionId: request.sessionId,
      service: 'lmtp',
      uuid: undefined,
      accountName: () => undefined,
      clientAddress: request.client.address,
      frontend: peer.name,
    };
    return {
      answer: { outcome: 'opened', capabilities: [], accountName: '' },
      serve: (channel) =>
        this.#sessions.serve(
          facts,
          (ended) => serveLmtp(channel, context, ended),
          () => {},
        ),
    };
  }

  #onAccountChange({ before, after }: AccountChange): void {
    const uuid = (after ?? before)?.uuid;
    if (uuid === undefined || this.#isOver) return;
    const closing = (text: string): void => {
      this.#hosted.close(uuid, text).catch((error: unknown) => {
        this.#options.ports.log.warn({ account: uuid, err: asPlatformError(error) }, 'an account could not be closed');
      });
    };
    if (after === undefined) {
      closing('Account was removed');
      this.#operations.onRemoved(uuid, before?.name ?? '');
    } else if (after.hostServer !== this.#cluster) {
      closing('Account is served elsewhere now, connect again');
    } else {
      if (after.status !== 'active' && before?.status === 'active') this.#sessions.byeAccount(uuid, 'Account is not available');
      if (before !== undefined && before.quotaBytes !== after.quotaBytes) this.#hosted.setQuota(uuid, this.#quotaOf(uuid));
    }
  }

  #quotaOf(uuid: AccountUuid): number | undefined {
    const bytes = this.#registry.find(uuid)?.quotaBytes ?? this.#settings.defaultQuotaBytes ?? this.#options.defaultQuotaBytes;
    return bytes === 0 ? undefined : bytes;
  }

  async #watchStorage<T>(work: Promise<T>): Promise<T> {
    try {
      const result = await work;
      this.#storageError = undefined;
      return result;
    } catch (error) {
      const { code } = asPlatformError(error);
      if (code === 'STORE_UNAVAILABLE' || code === 'STORE_FULL') this.#storageError = messageOf(error);
      throw error;
    }
  }

  async #whereIs(uuid: AccountUuid, isLocal: boolean): Promise<AccountWhereabouts> {
    const sessions = this.#sessions
      .ofAccount(uuid)
      .map(({ startedAtMs, account: _account, ...rest }) => ({ ...rest, sinceMs: startedAtMs }));
    if (this.#hosted.isOpen(uuid)) return { state: 'open', currentHost: this.name, epoch: this.#hosted.epochOf(uuid), sessions };
    if (!isLocal) {
      const host = await this.#controller.locate(uuid);
      if (host !== undefined && host.name !== this.name) {
        return (await this.#link.call(host, 'accounts.where-is', { uuid, isLocal: true })) as AccountWhereabouts;
      }
    }
    const stored = await this.#options.store.state(uuid);
    const state =
      stored === 'tombstone'
        ? 'tombstone'
        : (await this.#locator.byUuid(uuid)).where !== 'here'
          ? 'not-here'
          : stored === 'absent'
            ? 'never-opened'
            : 'closed';
    return { state, currentHost: undefined, epoch: undefined, sessions };
  }

  #clusterStatus(): ClusterStatus {
    const own: MemberStatus = {
      name: this.name,
      address: `${this.#address.host}:${this.#address.port}`,
      state: this.#isOver ? 'dead' : this.#state(),
      weight: this.#settings.weightOf(this.name),
      incarnation: this.#incarnation,
      openAccounts: this.#hosted.count,
      sessions: this.#sessions.count,
      lastSeenAtMs: this.#options.ports.clock.nowMs(),
    };
    const others = this.#controller.membership.all().map(
      (view): MemberStatus => ({
        name: view.address.name,
        address: `${view.address.host}:${view.address.port}`,
        state: view.state,
        weight: this.#settings.weightOf(view.address.name),
        incarnation: view.incarnation,
        openAccounts: view.openAccounts,
        sessions: view.sessions,
        lastSeenAtMs: view.seenAtMs,
      }),
    );
    return {
      cluster: this.#cluster,
      observer: this.name,
      controller: this.#controller.controllerName,
      term: this.#controller.term,
      members: [own, ...others].sort((a, b) => (a.name < b.name ? -1 : 1)),
      accounts: this.#registry.count,
    };
  }
}
