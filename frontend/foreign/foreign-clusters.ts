/**
 * Accounts on servers that are not ours: plain IMAP, POP3, LMTP, submission and ManageSieve hosts (Dovecot, Cyrus, Zimbra, Exchange, CommuniGate).
 * What the Dovecot director did, and the road by which such a site moves to clusters of ours, account by account.
 *
 *   route: foreign cluster ──► choose host (choose-host.ts) ──► sessions on another host? end them, wait ──► connect, log in ──► relay
 *                                    ▲                                                                           │ not reached
 *                                    └────────────── the host is left alone (host-health.ts) ◄───────────────────┘
 *
 * What always holds: on one frontend an account is on one host at a time, and all frontends that see the same hosts up choose the same one. What a foreign server says of
 * name and password is believed; everything else that goes wrong there is temporary.
 */
import { type AccountName, localPartOf } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName, MemberName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Connection } from '#common/network/network.ts';
import type { Secret } from '#common/secret.ts';
import type { ClusterMember, ClusterRecord, ForeignProtocol, ForeignService } from '#directory/client/records.ts';
import type { Credentials } from '#frontend/session/credentials.ts';
import { encodeProxyHeader } from '#protocol/proxy/encode.ts';
import { chooseHost, type HostChoice } from './choose-host.ts';
import { converse, dial, type ForeignConnection, type ForeignTarget, meet, type Preface } from './connect.ts';
import { type ForeignCredentials, type ForeignDialogue, type ForeignDialogueOptions, withoutSecrets } from './dialogues/dialogue.ts';
import { ForeignImap } from './dialogues/imap.ts';
import { ForeignPop3 } from './dialogues/pop3.ts';
import { ForeignSieve } from './dialogues/sieve.ts';
import { ForeignSubmission } from './dialogues/submission.ts';
import { HostHealth } from './host-health.ts';
import { LiveSessions } from './live-sessions.ts';
import { defaultForeignSettings, type ForeignSettings } from './settings.ts';

/** Time between the end of an account's sessions on one host and its next session on another, milliseconds. */
const moveGraceMs = 2000;
/** Hosts that one login is brought to before it is put off. */
const hostsTriedMax = 3;

/** What a client logs in to. */
export type SessionProtocol = Exclude<ForeignProtocol, 'lmtp'>;

/** An account of a foreign cluster. */
export interface ForeignAccount {
  readonly cluster: ClusterRecord;
  readonly pinned: ClusterMember | undefined;
  readonly name: AccountName;
}

/** A login there. */
export interface ForeignLogin {
  readonly sessionId: string;
  readonly credentials: Credentials;
  readonly client: { readonly address: string; readonly port: number };
}

/** A session that a foreign host serves. `ended` is to be called once it is over. */
export interface ForeignSession extends ForeignConnection {
  readonly host: ClusterMember;
  ended(): void;
}

/** What foreign clusters need. */
export interface ForeignOptions {
  /** This frontend's name. */
  readonly name: string;
  readonly settings: ReadonlyMap<ClusterName, ForeignSettings>;
  /** Whether the account's password is that; for master-user logins. Rejects when no directory server can say. */
  verifyPassword(account: AccountName, password: Secret<string>): Promise<boolean>;
  /** Whether the access token is for the account; for master-user logins. Rejects when that cannot be known. Missing where no tokens are taken. */
  verifyToken?(account: AccountName, token: Secret<string>): Promise<boolean>;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'log' | 'metrics' | 'network'>;
}

/** See the header of this file. */
export class ForeignClusters {
  readonly #options: ForeignOptions;
  readonly #clock: Clock;
  readonly #health: HostHealth;
  readonly #sessions: LiveSessions;
  /** Where accounts with live sessions belong, as routing said last. */
  readonly #accounts = new Map<AccountName, ForeignAccount>();
  readonly #outcomes: ReturnType<Ports['metrics']['counter']>;

  constructor(options: ForeignOptions) {
    this.#options = options;
    const { clock, random, log, metrics } = options.ports;
    this.#clock = clock;
    this.#sessions = new LiveSessions(clock);
    this.#health = new HostHealth({ clock, random, log: log.child({ component: 'foreign' }) }, () => this.recheck());
    this.#outcomes = metrics.counter('archipelago_foreign_logins_total', 'Logins brought to foreign hosts, by cluster and outcome.', [
      'cluster',
      'outcome',
    ]);
    const sessions = metrics.gauge('archipelago_foreign_sessions', 'Sessions relayed to foreign hosts.', ['node']);
    metrics.onCollect(() => sessions.set({ node: options.name }, this.#sessions.count));
  }

  settingsOf(cluster: ClusterName): ForeignSettings {
    return this.#options.settings.get(cluster) ?? defaultForeignSettings;
  }

  /** Where the account belongs now; `undefined` when no host of its cluster may be used. */
  choose(account: ForeignAccount): HostChoice | undefined {
    const mayFailOver = this.settingsOf(account.cluster.name).failover === 'automatic';
    return chooseHost(account.cluster.members, account.name, account.pinned, (host) => this.#health.isUp(host), mayFailOver);
  }

  /** A host as status pages show it. */
  hostStatus(host: ClusterMember): { readonly state: 'up' | 'down'; readonly sessions: number; readonly lastError: string | undefined } {
    const state = this.#health.isUp(host.name) ? 'up' : 'down';
    return { state, sessions: this.#sessions.countOn(host.name), lastError: this.#health.lastError(host.name) };
  }

  /** Opens a session. Rejects with `AUTH_FAILED` when the password is wrong, and with what is temporary otherwise. */
  async openSession(account: ForeignAccount, protocol: SessionProtocol, login: ForeignLogin): Promise<ForeignSession> {
    const { reached, host } = await this.#logIn(account, protocol, login, true);
    this.#accounts.set(account.name, account);
    const session = { account: account.name, host: host.name, connection: reached.connection };
    this.#sessions.add(session);
    const ended = (): void => {
      this.#sessions.remove(session);
      if (!this.#sessions.has(session.account)) this.#accounts.delete(session.account);
    };
    return { ...reached, host, ended };
  }

  /** Has a password judged, without a session; resolves with the host that did. Rejects as `openSession` does. */
  async authenticate(account: ForeignAccount, login: ForeignLogin): Promise<ClusterMember> {
    const protocol = (['submission', 'imap', 'pop3', 'managesieve'] as const).find(
      (each) => serviceOf(account.cluster, each) !== undefined,
    );
    if (protocol === undefined) throw noService(account.cluster, 'submission, imap, pop3 or managesieve');
    const settings = this.settingsOf(account.cluster.name);
    if (settings.login.kind === 'master-user') {
      const choice = this.choose(account);
      if (choice === undefined) throw this.#noHost(account);
      await this.#verify(account, login);
      return choice.host;
    }
    const { reached, host } = await this.#logIn(account, protocol, login, false);
    reached.connection.write(
      protocol === 'imap' || protocol === 'managesieve' ? 'Q LOGOUT\r\n'.slice(protocol === 'imap' ? 0 : 2) : 'QUIT\r\n',
    );
    reached.connection.handle({ data: () => {}, close: () => {} });
    reached.connection.resume();
    reached.connection.end();
    return host;
  }

  /**
   * Opens an LMTP connection to a host. Rejects with `NET_*` or `FOREIGN_*`.
   *
   * Resolves with `isGreeted` when the server's greeting has been read already (after STARTTLS there is none).
   */
  async openDelivery(
    cluster: ClusterRecord,
    host: ClusterMember,
  ): Promise<{ readonly connection: Connection; readonly isGreeted: boolean }> {
    const service = serviceOf(cluster, 'lmtp');
    if (service === undefined) throw noService(cluster, 'lmtp');
    const target = this.#target(cluster, host, service);
    try {
      const connection = await dial(this.#options.ports.network, this.#clock, target);
      if (service.tls !== 'starttls') return { connection, isGreeted: false };
      const options: ForeignDialogueOptions = { credentials: nobody, startTls: true, early: false, client: undefined };
      await converse(this.#clock, connection, target, new ForeignSubmission(options, `LHLO ${this.#options.name}`), undefined);
      return { connection, isGreeted: true };
    } catch (thrown) {
      throw this.#troubled(target, host, withoutSecrets(asPlatformError(thrown), nobody), undefined);
    }
  }

  /** Whether the account has sessions at a foreign host by this frontend. */
  isServing(name: AccountName): boolean {
    return this.#accounts.has(name);
  }

  /** The account's route changed: sessions that are in the wrong place end. `account` is `undefined` when it is on no foreign cluster any more. */
  moved(name: AccountName, account: ForeignAccount | undefined): void {
    if (!this.isServing(name)) return;
    if (account === undefined) {
      this.#sessions.endElsewhere(name, undefined);
      return;
    }
    this.#accounts.set(name, account);
    const choice = this.choose(account);
    if (choice !== undefined) this.#sessions.endElsewhere(name, choice.host.name);
  }

  /** Hosts or their state changed: sessions in the wrong place end, by and by. */
  recheck(clusters?: ReadonlyMap<ClusterName, ClusterRecord>): void {
    if (clusters !== undefined) {
      const hosts = new Set<MemberName>();
      for (const { foreign, members } of clusters.values()) if (foreign !== undefined) for (const { name } of members) hosts.add(name);
      this.#health.keepOnly(hosts);
      for (const [name, account] of this.#accounts) {
        const cluster = clusters.get(account.cluster.name);
        const pinned = cluster?.members.find((member) => member.name === account.pinned?.name);
        if (cluster !== undefined) this.#accounts.set(name, { name, cluster, pinned });
      }
    }
    this.#sessions.check((name) => {
      const account = this.#accounts.get(name);
      return account === undefined ? undefined : this.choose(account)?.host.name;
    });
  }

  close(): void {
    this.#health.close();
    this.#sessions.close();
  }

  async #logIn(
    account: ForeignAccount,
    protocol: SessionProtocol,
    login: ForeignLogin,
    isSession: boolean,
  ): Promise<{ reached: ForeignConnection; host: ClusterMember }> {
    const service = serviceOf(account.cluster, protocol);
    if (service === undefined) throw noService(account.cluster, protocol);
    const settings = this.settingsOf(account.cluster.name);
    if (settings.login.kind === 'master-user') await this.#verify(account, login);
    for (let tried = 1; ; tried += 1) {
      const choice = this.choose(account);
      if (choice === undefined) throw this.#noHost(account);
      const { host } = choice;
      if (isSession && this.#sessions.endElsewhere(account.name, host.name) > 0) await sleep(this.#clock, moveGraceMs);
      const target = this.#target(account.cluster, host, service);
      try {
        const reached = await this.#reach(target, protocol, credentialsOf(account, login.credentials, settings), login, settings);
        this.#health.succeeded(host.name);
        this.#outcomes.add({ cluster: account.cluster.name, outcome: 'ok' });
        return { reached, host };
      } catch (thrown) {
        const error = this.#troubled(target, host, asPlatformError(thrown), settings);
        this.#outcomes.add({ cluster: account.cluster.name, outcome: error.code });
        // A host that was not reached has been left: another one takes its accounts, if it may.
        if (!this.#health.isUp(host.name) && settings.failover === 'automatic' && tried < hostsTriedMax) continue;
        throw error;
      }
    }
  }

  async #reach(
    target: ForeignTarget,
    protocol: SessionProtocol,
    credentials: ForeignCredentials,
    login: ForeignLogin,
    settings: ForeignSettings,
  ): Promise<ForeignConnection> {
    const preface = prefaceOf(settings, login.client);
    const connection = await dial(this.#options.ports.network, this.#clock, target, preface);
    const startTls = target.service.tls === 'starttls';
    const { address, port } = login.client;
    const options: ForeignDialogueOptions = {
      credentials,
      startTls,
      early: settings.early && !startTls,
      client:
        settings.forward === 'commands'
          ? { address, port, localAddress: connection.localAddress, localPort: connection.localPort, sessionId: login.sessionId }
          : undefined,
    };
    try {
      return await converse(this.#clock, connection, target, this.#dialogue(protocol, options), preface);
    } catch (thrown) {
      throw withoutSecrets(asPlatformError(thrown), credentials);
    }
  }

  #dialogue(protocol: SessionProtocol, options: ForeignDialogueOptions): ForeignDialogue {
    switch (protocol) {
      case 'imap':
        return new ForeignImap(options);
      case 'pop3':
        return new ForeignPop3(options);
      case 'managesieve':
        return new ForeignSieve(options);
      case 'submission':
        return new ForeignSubmission(options, `EHLO ${this.#options.name}`);
    }
  }

  async #verify(account: ForeignAccount, login: ForeignLogin): Promise<void> {
    const { credentials } = login;
    const { verifyPassword, verifyToken } = this.#options;
    if (credentials.kind === 'password') {
      if (await verifyPassword(account.name, credentials.password)) return;
      throw new PlatformError('AUTH_FAILED', `the directory refused the password of ${account.name}`);
    }
    if (credentials.kind === 'scram') throw noScram(account);
    if (verifyToken === undefined) throw new PlatformError('AUTH_MECHANISM', 'no oauth: is configured on this frontend');
    if (await verifyToken(account.name, credentials.token)) return;
    throw new PlatformError('AUTH_FAILED', `the access token is not for ${account.name}`);
  }

  /** Notes what the failure says of the host, and makes of it what the client may be told. */
  #troubled(target: ForeignTarget, host: ClusterMember, error: PlatformError, settings: ForeignSettings | undefined): PlatformError {
    const isUnreached = error.code.startsWith('NET_') || error.code === 'FOREIGN_PROTOCOL';
    if (isUnreached) {
      const { network, clock } = this.#options.ports;
      const preface = settings === undefined ? undefined : prefaceOf(settings, { address: '', port: 0 });
      this.#health.failed(host.name, error, () => meet(network, clock, target, preface));
    }
    if (error.kind === 'auth' && settings?.login.kind === 'master-user') {
      return new PlatformError(
        'FOREIGN_REFUSED',
        `${host.name} refused the master user on behalf of an account whose password is right (${error.message}); check the master user there, and that the account exists`,
        { cause: error },
      );
    }
    return error.kind === 'bug' ? new PlatformError('FOREIGN_UNAVAILABLE', `${host.name}: ${error.message}`, { cause: error }) : error;
  }

  #target(cluster: ClusterRecord, host: ClusterMember, service: ForeignService): ForeignTarget {
    const { ca, connectTimeoutMs, loginTimeoutMs } = this.settingsOf(cluster.name);
    return { host: host.host, serverName: host.name, service, ca, connectTimeoutMs, loginTimeoutMs };
  }

  #noHost(account: ForeignAccount): PlatformError {
    const seen = account.cluster.members.map(({ name, weight }) => {
      const error = this.#health.lastError(name);
      return `${name} ${this.#health.isUp(name) ? 'up' : 'down'}, weight ${weight ?? 100}${error === undefined ? '' : ` (${error})`}`;
    });
    return new PlatformError(
      'FOREIGN_NO_HOST',
      `no host of the foreign cluster ${account.cluster.name} may serve ${account.name}: ${seen.length === 0 ? 'it has none; add clusterMember values' : seen.join('; ')}`,
    );
  }
}

function serviceOf(cluster: ClusterRecord, protocol: ForeignProtocol): ForeignService | undefined {
  return cluster.foreign?.find((service) => service.protocol === protocol);
}

function noService(cluster: ClusterRecord, wanted: string): PlatformError {
  const has = cluster.foreign?.map(({ protocol }) => protocol).join(', ');
  return new PlatformError(
    'FOREIGN_NO_SERVICE',
    `the foreign cluster ${cluster.name} has no foreignService ${wanted} (it has: ${has === '' ? 'none' : has}); add one such as "imap 143 starttls" to its entry`,
  );
}

/** A foreign server's SCRAM keys are its own: the exchange that the client had with us proves nothing there, and says nothing of the password. */
function noScram(account: ForeignAccount): PlatformError {
  return new PlatformError(
    'AUTH_MECHANISM',
    `${account.name} is on the foreign cluster ${account.cluster.name}, where no SCRAM exchange can be passed on; offer no scram: in this subset, or move the account`,
  );
}

function credentialsOf(account: ForeignAccount, credentials: Credentials, settings: ForeignSettings): ForeignCredentials {
  const { login } = settings;
  const name = settings.names === 'local' ? localPartOf(account.name) : account.name;
  if (login.kind === 'passed') {
    if (credentials.kind === 'scram') throw noScram(account);
    const common = { authenticationId: name, authorizationId: '' };
    if (credentials.kind === 'password') return { ...common, password: credentials.password.reveal() };
    return { ...common, password: '', token: { mechanism: credentials.mechanism, value: credentials.token.reveal() } };
  }
  const secret = login.password.reveal();
  return login.form === 'sasl'
    ? { authenticationId: login.name, authorizationId: name, password: secret }
    : { authenticationId: `${name}${login.separator}${login.name}`, authorizationId: '', password: secret };
}

/** The PROXY header, where the server is sent one; without an address it says that the connection is nobody's but ours. */
function prefaceOf({ forward }: ForeignSettings, { address, port }: ForeignLogin['client']): Preface | undefined {
  if (forward !== 'proxy-v1' && forward !== 'proxy-v2') return undefined;
  return ({ remoteAddress, remotePort }) =>
    encodeProxyHeader(forward === 'proxy-v1' ? 1 : 2, {
      sourceAddress: address,
      sourcePort: port,
      destinationAddress: remoteAddress,
      destinationPort: remotePort,
    });
}

const nobody: ForeignCredentials = { authenticationId: '', authorizationId: '', password: '' };
