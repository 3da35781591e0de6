/**
 * One frontend server, put together from its parts.
 *
 *   clients ─► listeners ─► dialogue (session/) ──name, password──► opener ─► member, over the link
 *                                │                                  │   ▲
 *                                └──► relay: bytes both ways        ▼   │ a miss is asked for
 *                                                     routes (index, domains, clusters) ◄── follows this subset's directory
 *
 * What always holds: nobody hears that an account does not exist unless the master said so; a silent directory freezes routes and stops no
 * mail; one session's failure ends that session. What may be lost when this process dies: its clients' connections, which come back elsewhere.
 */
import type { LinkClient } from '#backend-cluster/client/cluster-client.ts';
import type { LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import { tryParseDomainName } from '#common/account-name.ts';
import { sleep } from '#common/clock.ts';
import type { Ports, ReadinessCheck, RunningService } from '#common/lifecycle.ts';
import type { Listener } from '#common/network/network.ts';
import type { DirectoryReader, FollowedPosition, ResumableFollower } from '#directory/client/directory.ts';
import type { FrontendSession, FrontendStatus, RouteExplanation } from '#frontend/client/status.ts';
import type { FrontendConfig, FrontendListener } from '#frontend/config.ts';
import { Destinations } from './answers/destinations.ts';
import { startPostfixTable } from './answers/postfix.ts';
import { startProxyAnswers } from './answers/proxies.ts';
import { controlFrontend } from './control.ts';
import { ForeignClusters, type ForeignOptions } from './foreign/foreign-clusters.ts';
import { registerGauges } from './gauges.ts';
import { AddressRules } from './guard/address-rules.ts';
import { LoginGuard } from './guard/login-guard.ts';
import { type HttpListener, startHttpListener } from './listeners/http.ts';
import { startImap } from './listeners/imap.ts';
import type { RunningMailListener } from './listeners/mail-listener.ts';
import { startManageSieve } from './listeners/managesieve.ts';
import { startPop3 } from './listeners/pop3.ts';
import type { RunningSmtp, StartSmtp } from './listeners/smtp-contract.ts';
import { explainRoute } from './routing/explain.ts';
import { createMailRouter } from './routing/mail-router.ts';
import { AccountRouter, type IndexElsewhere } from './routing/route-account.ts';
import { RouteCache } from './routing/route-cache.ts';
import type { ReadSnapshot, RouteSnapshots } from './routing/route-snapshot.ts';
import { Routes } from './routing/routes.ts';
import type { SegmentMemory } from './routing/segment-memory.ts';
import { sharedFactsOf } from './routing/shared-index.ts';
import { SnapshotKeeper } from './routing/snapshot-keeper.ts';
import { findHost } from './routing/topology.ts';
import type { SaslSettings } from './session/credentials.ts';
import { defaultDomains } from './session/default-domains.ts';
import type { LoginDialogue } from './session/login-dialogue.ts';
import { SessionOpener } from './session/open-session.ts';
import { type AgentAnswer, startAgent } from './subset/agent.ts';
import type { FrontendSharing } from './subset/frontend-sharing.ts';
import { Settings } from './subset/settings.ts';
import { elsewhereOf } from './subset/shared-counts.ts';
import { type SharedNews, SubsetSharing, takeNews } from './subset/sharing.ts';
import { type FrontendLegacy, Succession } from './subset/succession.ts';
import { countPlaces } from './subset/symmetric.ts';
import { type EndableSession, Withdrawal } from './subset/withdrawal.ts';
import type { ChangingTls } from './tls/frontend-tls.ts';

/** The doors to the other rooms, opened. The frontend closes them when it stops. */
export interface FrontendDoors {
  readonly link: LinkClient;
  readonly reader: DirectoryReader;
  /** Begins to follow this subset's directory; `from` where the snapshot of routes left off. */
  follow(routes: Routes, from: FollowedPosition | undefined): ResumableFollower;
  /** Routes on disk; missing where none are kept. */
  readonly snapshots: RouteSnapshots | undefined;
  readonly startSmtp: StartSmtp;
  /** Certificates for the other frontends of the subset. */
  readonly linkTls?: LinkTlsPems | undefined;
  /** Members of clusters in this process. */
  readonly localMembers?: readonly string[];
  /** How foreign clusters are spoken to, and who judges passwords for them. */
  readonly foreign: Pick<ForeignOptions, 'settings' | 'verifyPassword' | 'verifyToken'>;
  /** What is taken beside passwords. */
  readonly sasl?: SaslSettings;
  /** Set when another process goes on in this one. */
  readonly inheritance?: Inheritance | undefined;
  /** Set in a process beside the first one of this frontend, which alone keeps the route index and writes the snapshot. */
  readonly helper?: HelperDoors | undefined;
  /** Processes that serve sessions; one unless said otherwise. */
  readonly processes?: number | undefined;
  /** Of the route index, where those read it. */
  readonly indexMemory?: SegmentMemory | undefined;
}

/** What a helper is given beside what every process has. */
export interface HelperDoors {
  /** Missing where routes are looked up. */
  readonly index: IndexElsewhere | undefined;
}

/** What a process takes over from the one before it. */
export interface Inheritance {
  readonly legacy: FrontendLegacy;
  /** Resolves once the other process delivers no more from the queue. Missing where that one keeps it. */
  takeQueue?(): Promise<void>;
}

/** A running frontend. */
export interface RunningFrontend extends RunningService<FrontendStatus> {
  /** How an address, as a client would give it, would be routed now. Never rejects. */
  explain(address: string): Promise<RouteExplanation>;
  /** What operators may ask of it; see control.ts. */
  control(action: string, body: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Going on in another process. */
  readonly succession: Succession;
  /** Clients connected, logged in or not, mail among them. */
  connections(): number;
  /** Time that sessions have to end when the process stops, milliseconds. */
  drainMs(): number;
  /** What other processes of this frontend tell each other. */
  readonly sharing: FrontendSharing;
}

/** Listeners whose sessions are relayed after login. */
const sessionListeners: Partial<Record<FrontendListener['protocol'], typeof startImap>> = {
  imap: startImap,
  pop3: startPop3,
  managesieve: startManageSieve,
};

/** Time that starting waits for the routes; without them every login is a look-up, so serving goes on regardless. */
const warmUpMs = 3000;
/** Time for which a look-up goes before the route index, milliseconds: the directory that is followed has caught up by then. */
const followedFreshMs = 10_000;
/** Sessions listed in the status; there may be a million. */
const sessionsListedMax = 10_000;

/** Starts the parts. Rejects when a port cannot be bound; whatever had been started is stopped again. */
export async function startFrontendService(
  config: FrontendConfig,
  tls: ChangingTls | undefined,
  doors: FrontendDoors,
  ports: Ports,
): Promise<RunningFrontend> {
  const frontend = new Frontend(
    config,
    tls,
    doors,
    ports,
    await doors.snapshots?.read({ withoutIndex: doors.helper !== undefined, memory: doors.indexMemory }),
  );
  try {
    await frontend.start();
    return frontend;
  } catch (error) {
    await frontend[Symbol.asyncDispose]();
    throw error;
  }
}

class Frontend implements RunningFrontend {
  readonly role = 'frontend';
  readonly name: string;
  readonly #config: FrontendConfig;
  readonly #tls: ChangingTls | undefined;
  readonly #doors: FrontendDoors;
  readonly #ports: Ports;
  readonly #settings: Settings;
  readonly #routes: Routes;
  readonly #follower: ResumableFollower;
  readonly #router: AccountRouter;
  readonly #cache: RouteCache;
  readonly #keeper: SnapshotKeeper;
  readonly #guard: LoginGuard;
  readonly #rules: AddressRules;
  #subsetSharing: SubsetSharing | undefined;
  #passNews: ((from: string, news: SharedNews) => void) | undefined;
  readonly #withdrawal: Withdrawal;
  readonly succession: Succession;
  readonly sharing: FrontendSharing;
  readonly #foreign: ForeignClusters;
  readonly #opener: SessionOpener;
  #listeners: RunningMailListener[] = [];
  #smtp: RunningSmtp | undefined;
  readonly #http: HttpListener[] = [];
  readonly #agents: Listener[] = [];
  /** Ports at which proxies and mail servers that are not ours ask where an account is. */
  readonly #tables: Listener[] = [];
  readonly #answers: HttpListener[] = [];
  readonly #destinations: Destinations;
  #state: FrontendStatus['state'] = 'starting';
  #isStopping = false;

  constructor(config: FrontendConfig, tls: ChangingTls | undefined, doors: FrontendDoors, ports: Ports, known: ReadSnapshot | undefined) {
    this.name = config.name;
    this.#config = config;
    this.#tls = tls;
    this.#doors = doors;
    this.#ports = { ...ports, log: ports.log.child({ service: 'frontend', node: config.name, subset: config.subset }) };
    const { clock, random, metrics } = this.#ports;
    const { routing } = config;
    const settings = new Settings({ config, processes: doors.processes });
    this.#settings = settings;
    this.#routes = new Routes({ random, clock, known, isWithoutIndex: doors.helper !== undefined, memory: doors.indexMemory });
    this.#follower = doors.follow(this.#routes, known?.position);
    this.#keeper = new SnapshotKeeper({
      snapshots: doors.helper === undefined ? doors.snapshots : undefined,
      takenAtMs: known?.takenAtMs,
      routes: this.#routes,
      follower: this.#follower,
      everyMs: routing.snapshotEveryMs,
      ports: this.#ports,
    });
    this.#cache = new RouteCache(clock, {
      // Beside an index that is followed the cache is for what the index does not have yet.
      freshMs: routing.mode === 'lookup' ? routing.cacheFreshMs : followedFreshMs,
      staleMaxMs: routing.cacheStaleMaxMs,
      entriesMax: routing.cacheMax,
    });
    this.#router = new AccountRouter({
      routes: this.#routes,
      index: doors.helper?.index,
      reader: doors.reader,
      clock,
      metrics,
      cache: this.#cache,
      masterPerSecond: settings.masterPerSecond,
    });
    this.#guard = new LoginGuard(clock, random);
    this.#rules = new AddressRules(clock, config.name);
    this.#withdrawal = new Withdrawal({
      clock,
      random,
      weight: () => settings.weight,
      sessions: () => this.#endableSessions(),
      connections: () => this.connections(),
      setAccepting: async (isAccepting) => {
        for (const listener of this.#listeners) await (isAccepting ? listener.reopen() : listener.close());
        await this.#smtp?.setAccepting(isAccepting);
      },
    });
    this.succession = new Succession({
      name: config.name,
      clock,
      withdrawal: this.#withdrawal,
      rules: this.#rules,
      guard: this.#guard,
      keeper: this.#keeper,
      smtp: () => this.#smtp,
      left: async () => this.#subsetSharing?.stop(),
      connections: () => this.connections(),
    });
    this.sharing = {
      guard: this.#guard,
      counts: (others) => this.#listeners.map((listener) => listener.counts(others)),
      index: this.#routes,
      indexFacts: () => sharedFactsOf(this.#routes.index),
      takeNews: (from, news) => takeNews({ guard: this.#guard, rules: this.#rules }, from, news),
      onNews: (pass) => {
        this.#passNews = pass;
      },
      newsSoFar: () => this.#guard.heard().map(({ frontend, counts }) => ({ from: frontend, news: { counts } })),
      setElsewhere: (counts) => {
        for (const [index, of] of counts.entries()) this.#listeners[index]?.setElsewhere(elsewhereOf(of));
      },
    };
    this.#foreign = new ForeignClusters({ name: config.name, ...doors.foreign, ports: this.#ports });
    this.#routes.watcher = {
      account: (name, hostServer) => {
        if (!this.#foreign.isServing(name)) return;
        const host = hostServer === undefined ? undefined : findHost(this.#routes.topology, hostServer);
        this.#foreign.moved(name, host?.cluster.foreign === undefined ? undefined : { ...host, name });
      },
      clusters: (clusters) => this.#foreign.recheck(clusters),
      subsets: () => this.#takeSettings(),
    };
    this.#opener = new SessionOpener({
      name: config.name,
      defaultDomain: config.defaultDomain === undefined ? undefined : tryParseDomainName(config.defaultDomain),
      routes: this.#routes,
      router: this.#router,
      link: doors.link,
      guard: this.#guard,
      rules: this.#rules,
      countPlace: countPlaces(metrics, config.name, doors.localMembers ?? [], () => this.#routes.topology),
      foreign: this.#foreign,
      ...(doors.sasl === undefined ? {} : { sasl: doors.sasl }),
      ports: this.#ports,
    });
    this.#destinations = new Destinations({
      domains: this.#routes.domains,
      router: this.#router,
      foreign: this.#foreign,
      defaultDomain: config.defaultDomain === undefined ? undefined : tryParseDomainName(config.defaultDomain),
      listeners: () => this.#listenerStatus(),
    });
    registerGauges(metrics, config.name, {
      listeners: () => this.#listeners,
      routes: this.#routes,
      silentMs: () => this.#follower.status().silentMs,
      snapshotAgeMs: () => this.#keeper.ageMs(),
      certificates: () => this.#tls?.certificates?.(),
    });
    this.#takeSettings();
  }

  async start(): Promise<void> {
    const config = this.#config;
    const ports = this.#ports;
    const settings = this.#settings;
    const { inheritance } = this.#doors;
    if (inheritance !== undefined) this.succession.inherit(inheritance.legacy);
    const gaveUp = new AbortController();
    if (!this.#routes.isRefreshed)
      await Promise.race([this.#follower.whenRefreshed(gaveUp.signal).catch(() => {}), sleep(ports.clock, warmUpMs, gaveUp.signal)]);
    gaveUp.abort();
    await this.#startSharing();
    for (const listener of config.listeners) {
      const start = sessionListeners[listener.protocol];
      if (start === undefined) continue;
      const log = ports.log.child({ component: listener.protocol });
      const session = {
        opener: this.#opener,
        listener,
        tls: this.#tls,
        // Asked for each client.
        get loginTimeoutMs() {
          return settings.loginTimeoutMs;
        },
        defaultDomain: defaultDomains(config, listener),
        ...(this.#doors.sasl === undefined ? {} : { sasl: this.#doors.sasl }),
        ports: { clock: ports.clock, random: ports.random, log },
      };
      const limits = settings.limits(listener);
      this.#listeners.push(await start({ listener, limits, tls: this.#tls, rules: this.#rules, ports: { ...ports, log } }, session));
    }
    const forMail = config.listeners.filter(({ protocol }) => protocol === 'smtp' || protocol === 'submission' || protocol === 'lmtp');
    this.#smtp = await this.#doors.startSmtp({
      config,
      settings,
      listeners: forMail,
      tls: this.#tls,
      rules: this.#rules,
      router: createMailRouter({
        routes: this.#routes,
        router: this.#router,
        reader: this.#doors.reader,
        follower: this.#follower,
        foreign: this.#foreign,
      }),
      authenticate: (login) => this.#opener.authenticate(login),
      scramSalt: (login) => this.#opener.scramSalt(login),
      ...(this.#doors.sasl === undefined ? {} : { sasl: this.#doors.sasl }),
      openDelivery: (cluster) => this.#opener.openDelivery(cluster),
      ...(inheritance?.takeQueue === undefined ? {} : { takeQueue: inheritance.takeQueue }),
      ports,
    });
    for (const listener of config.listeners) {
      if (listener.protocol === 'agent') this.#agents.push(await startAgent(listener, ports, () => this.#agentAnswer()));
      if (listener.protocol === 'tcp-table' || listener.protocol === 'socketmap') {
        this.#tables.push(await startPostfixTable(listener, ports, this.#destinations));
      }
      if (listener.protocol === 'routes') {
        const log = ports.log.child({ component: 'routes' });
        this.#answers.push(await startProxyAnswers(listener, this.#tls, log, this.#destinations, ports.network, ports.sockets));
      }
    }
    for (const listener of config.listeners) {
      if (listener.protocol !== 'http') continue;
      const log = ports.log.child({ component: 'http' });
      const { name: hostName, defaultDomain: domain } = config;
      const { metrics, network, sockets } = ports;
      const parts = { frontend: this, log, metrics, network, sockets };
      this.#http.push(await startHttpListener({ listener, tls: this.#tls, hostName, domain, ...parts }));
    }
    this.#state = 'ready';
    ports.log.info({ accounts: this.#routes.index.accounts, clusters: this.#routes.topology.clusters.size }, 'frontend serves');
  }

  status(): FrontendStatus {
    const followed = this.#follower.status();
    const certificates = this.#tls?.certificates?.();
    return {
      role: 'frontend',
      name: this.name,
      subset: this.#config.subset,
      region: this.#config.region,
      state: this.succession.isLeaving ? 'leaving' : this.#state,
      withdrawal: this.#withdrawal.status(),
      listeners: this.#listenerStatus(),
      routes: {
        accounts: this.#routes.index.accounts,
        domains: this.#routes.domains.count,
        clusters: this.#routes.topology.clusters.size,
        server: followed.server,
        state: followed.state,
        silentMs: followed.silentMs,
        addresses: this.#routes.index.addresses,
        bytes: this.#routes.index.bytes,
        leftovers: this.#routes.leftovers,
        cached: this.#cache.size,
        snapshotAgeMs: this.#keeper.ageMs(),
      },
      clusters: [...this.#routes.topology.clusters.values()].map((cluster) => ({
        name: cluster.name,
        members: cluster.members.map((member) => {
          if (cluster.foreign !== undefined) {
            const { state, sessions } = this.#foreign.hostStatus(member);
            return { name: member.name, state, load: sessions };
          }
          const { state, load } = this.#doors.link.health(member);
          return { name: member.name, state, load };
        }),
      })),
      sessions: this.#sessions(),
      logins: { ...this.#opener.counts },
      links: this.#doors.link.use(),
      settingsRefused: this.#settings.report().refused.length,
      ...(certificates === undefined ? {} : { certificates }),
      queue: this.#smtp?.queue() ?? { messages: 0, oldestAgeMs: 0, delivered: 0, deferred: 0, bounced: 0 },
    };
  }

  readiness(): readonly ReadinessCheck[] {
    const followed = this.#follower.status();
    const clusters = this.#routes.topology.clusters.size;
    return [
      {
        name: 'serving',
        ok: this.#state === 'ready' && this.#withdrawal.state === 'serving',
        detail: `the frontend is ${this.#state === 'ready' ? this.#withdrawal.state : this.#state}`,
        isOrdered: this.#state === 'ready' && this.#withdrawal.state !== 'serving',
      },
      {
        name: 'routes',
        // A server that is sending its content answers look-ups as well.
        ok: this.#routes.isRefreshed || followed.state === 'refreshing' || followed.state === 'following',
        detail: `${this.#routes.index.accounts} accounts by ${followed.server}, ${followed.state}${followed.lastError === undefined ? '' : `: ${followed.lastError}`}`,
      },
      {
        name: 'clusters',
        ok: clusters > 0,
        detail: clusters > 0 ? `${clusters} in the topology` : 'the topology names no cluster; add one below ou=topology',
      },
      this.#certificateCheck(),
    ];
  }

  explain(address: string): Promise<RouteExplanation> {
    return explainRoute(
      {
        frontend: this.name,
        subset: this.#config.subset,
        defaultDomain: this.#config.defaultDomain === undefined ? undefined : tryParseDomainName(this.#config.defaultDomain),
        routes: this.#routes,
        router: this.#router,
        lastHosts: this.#opener.lastHosts,
        reader: this.#doors.reader,
        follower: this.#follower,
        link: this.#doors.link,
        foreign: this.#foreign,
      },
      address,
    );
  }

  connections(): number {
    return this.#listeners.reduce((sum, { connections }) => sum + connections, 0) + (this.#smtp?.connections() ?? 0);
  }

  drainMs(): number {
    return this.#settings.drainMs;
  }

  control(action: string, body: Readonly<Record<string, unknown>>): ReturnType<typeof controlFrontend> {
    const { name, subset } = { name: this.name, subset: this.#config.subset };
    this.#ports.log.info({ action }, 'asked by an operator');
    return controlFrontend(
      {
        frontend: name,
        subset,
        withdrawal: this.#withdrawal,
        guard: this.#guard,
        rules: this.#rules,
        clock: this.#ports.clock,
        settings: () => this.#settings.report(),
        peers: () => this.#subsetSharing?.status(),
        sessions: () => this.#dialogues(),
        connectionsOf: (address) => this.#listeners.reduce((sum, listener) => sum + listener.connectionsOf(address), 0),
      },
      action,
      body,
    );
  }

  async reload(): Promise<void> {
    await this.#tls?.reload?.();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#state = 'draining';
    this.#tls?.stop?.();
    this.#withdrawal.stop();
    for (const listener of this.#listeners) await listener.close();
    for (const listener of this.#listeners) listener.stop();
    await this.#smtp?.[Symbol.asyncDispose]();
    this.#foreign.close();
    await this.#subsetSharing?.stop();
    const { clock } = this.#ports;
    const deadlineMs = clock.monotonicMs() + this.drainMs();
    while (this.#listeners.some(({ connections }) => connections > 0) && clock.monotonicMs() < deadlineMs) await sleep(clock, 20);
    for (const listener of this.#listeners) listener.drop();
    // The load balancer was told `draining` until here.
    for (const listener of [...this.#agents, ...this.#tables]) await listener.close();
    for (const listener of this.#answers) await listener[Symbol.asyncDispose]();
    for (const listener of this.#http) await listener[Symbol.asyncDispose]();
    await this.#keeper.stop();
    await this.#follower[Symbol.asyncDispose]();
    await this.#doors.link[Symbol.asyncDispose]();
    await this.#doors.reader[Symbol.asyncDispose]();
  }

  /** With the other frontends of the subset; the first process does it for all. */
  async #startSharing(): Promise<void> {
    const { name, subset, sharing: listen } = this.#config;
    if (listen === undefined || this.#doors.helper !== undefined) return;
    const ports = { ...this.#ports, log: this.#ports.log.child({ component: 'sharing' }) };
    const { linkTls: tls } = this.#doors;
    const heard = (from: string, news: SharedNews): void => this.#passNews?.(from, news);
    this.#subsetSharing = await SubsetSharing.start({ name, subset, listen, tls, guard: this.#guard, rules: this.#rules, heard, ports });
    this.#subsetSharing.setPeers(this.#settings.peers);
  }

  /** What the subset's entry says, from now on. */
  #takeSettings(): void {
    const { log } = this.#ports;
    for (const { entry, seen, expected, stays } of this.#settings.take(this.#routes.subsets)) {
      const still = stays === undefined ? 'it is passed over' : `${stays} stays`;
      log.warn({ errCode: 'CONFIG_SUBSET', entry }, `a setting of the subset is refused, "${seen}": ${expected}; ${still}`);
    }
    let index = 0;
    for (const listener of this.#config.listeners) {
      if (listener.protocol in sessionListeners) this.#listeners[index++]?.setLimits(this.#settings.limits(listener));
    }
    this.#smtp?.applySettings();
    this.#subsetSharing?.setPeers(this.#settings.peers);
    this.#doors.link.configure(this.#settings.links());
    this.#router.setMasterPerSecond(this.#settings.masterPerSecond);
  }

  /** In the order of the configuration. */
  #listenerStatus(): FrontendStatus['listeners'] {
    const ofSessions = this.#listeners.map((listener) => listener.status());
    const ofMail = [...(this.#smtp?.listeners() ?? [])];
    const bound = { http: [...this.#http], agent: [...this.#agents], routes: [...this.#answers], table: [...this.#tables] };
    return this.#config.listeners.flatMap(({ protocol, tls }) => {
      const kind = protocol === 'tcp-table' || protocol === 'socketmap' ? 'table' : protocol;
      if (kind === 'http' || kind === 'agent' || kind === 'routes' || kind === 'table') {
        const listener = bound[kind].shift();
        return listener === undefined ? [] : [{ protocol, tls, address: listener.address, port: listener.port, sessions: 0 }];
      }
      const next = protocol in sessionListeners ? ofSessions.shift() : ofMail.shift();
      return next === undefined ? [] : [next];
    });
  }

  #sessions(): FrontendSession[] {
    const found: FrontendSession[] = [];
    for (const dialogue of this.#dialogues()) {
      const session = dialogue.snapshot();
      if (session !== undefined) found.push(session);
      if (found.length >= sessionsListedMax) return found;
    }
    return found;
  }

  *#endableSessions(): IterableIterator<EndableSession> {
    yield* this.#dialogues();
    yield* this.#smtp?.sessions() ?? [];
  }

  *#dialogues(): IterableIterator<LoginDialogue> {
    for (const listener of this.#listeners) yield* listener.sessions();
  }

  #agentAnswer(): AgentAnswer {
    const failed = this.readiness().find(({ name, ok }) => !ok && name !== 'serving');
    return {
      isReady: this.#state === 'ready' && failed === undefined,
      isWithdrawn: this.#withdrawal.state !== 'serving' || this.#state === 'draining',
      weight: this.#withdrawal.weight,
      reason: failed === undefined ? this.#state : `${failed.name}: ${failed.detail}`,
    };
  }

  #certificateCheck(): ReadinessCheck {
    const [first] = this.#tls?.certificates?.().shown ?? [];
    if (first === undefined) return { name: 'certificate', ok: true, detail: 'no TLS is configured' };
    const [from, to] = [new Date(first.validFromMs).toISOString(), new Date(first.validToMs).toISOString()];
    return {
      name: 'certificate',
      ok: first.validFromMs <= this.#ports.clock.nowMs() && first.leftMs > 0,
      detail: `valid from ${from} to ${to}`,
    };
  }
}
