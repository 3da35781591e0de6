/**
 * Kept connections to a list of directory servers, one each, made when first needed and made again when lost. A server that failed is
 * tried last for a while, so that a dead one costs its timeout once and not at every look-up.
 *
 * The configured master is where the search for the master begins: a promotion makes another server the master, and every server of ours knows
 * which (authority.ts). So the one that is asked is asked now and then whether it still is; when it is not, or does not answer, the others
 * are asked who is. A server that is not ours is the master because the configuration says so.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { jitteredMs } from '#common/random.ts';
import { type DirectoryPorts, openBound, type ResolvedAccess } from '#directory/client/access.ts';
import { type DirectoryRole, readRole } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { isServerFailure, resultCodeOf } from '#directory/client/ldap-errors.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';

const avoidMs = 5000;
/** For so long a master is taken for one without asking again. */
const confirmedMs = 1000;

interface Server {
  readonly url: string;
  connection: LdapConnection | undefined;
  opening: Promise<LdapConnection> | undefined;
  avoidedUntilMs: number;
  lastError: string | undefined;
}

/** See the header of this file. */
export class DirectoryServers implements AsyncDisposable {
  readonly #access: ResolvedAccess;
  readonly #ports: DirectoryPorts;
  readonly #servers = new Map<string, Server>();
  #isDisposed = false;
  #master: string;
  #term = 0;
  #confirmedUntilMs = 0;
  #finding: Promise<void> | undefined;

  constructor(access: ResolvedAccess, ports: DirectoryPorts) {
    this.#access = access;
    this.#ports = ports;
    this.#master = access.master;
    for (const url of [...access.urls, access.master]) this.#know(url);
  }

  /** Every server once, the master last unless it is in the list. */
  get urls(): readonly string[] {
    return [...this.#servers.keys()];
  }

  /** URL of the master, as far as is known. */
  get master(): string {
    return this.#master;
  }

  lastErrorOf(url: string): string | undefined {
    return this.#servers.get(url)?.lastError;
  }

  /** Asks one server. What it answers with an error passes through; that it does not answer is `isServerFailure`. */
  async ask<T>(url: string, question: (connection: LdapConnection) => Promise<T>): Promise<T> {
    const server = this.#servers.get(url);
    if (server === undefined) throw new PlatformError('CONFIG_INVALID', `${url} is none of the directory servers configured`);
    const askedMs = this.#ports.clock.monotonicMs();
    let connection: LdapConnection | undefined;
    try {
      connection = await this.#connected(server);
      const answer = await question(connection);
      server.lastError = undefined;
      server.avoidedUntilMs = 0;
      return answer;
    } catch (error) {
      if (isServerFailure(error)) {
        // Something on the way may have forgotten this connection, and lets another one through.
        const isMute = connection?.isOpen === true && connection.silentMs >= this.#ports.clock.monotonicMs() - askedMs;
        if (isMute && error instanceof PlatformError && error.code === 'NET_TIMEOUT')
          connection?.destroy('nothing came while it was asked');
        server.lastError = messageOf(error);
        server.avoidedUntilMs = this.#ports.clock.monotonicMs() + jitteredMs(this.#ports.random, avoidMs);
      }
      throw error;
    }
  }

  /** Asks the servers of the list in order until one answers; rejects with `DIR_UNAVAILABLE` when none does. */
  async askAny<T>(question: (connection: LdapConnection) => Promise<T>): Promise<{ readonly answer: T; readonly server: string }> {
    const nowMs = this.#ports.clock.monotonicMs();
    const isAvoided = (url: string): boolean => (this.#servers.get(url)?.avoidedUntilMs ?? 0) > nowMs;
    const urls = this.#access.urls;
    const reasons: string[] = [];
    for (const url of [...urls.filter((one) => !isAvoided(one)), ...urls.filter(isAvoided)]) {
      try {
        return { answer: await this.ask(url, question), server: url };
      } catch (error) {
        if (!isServerFailure(error)) throw error;
        reasons.push(messageOf(error));
      }
    }
    throw new PlatformError('DIR_UNAVAILABLE', `no directory server answers: ${reasons.join('; ')}`);
  }

  /** Asks the master, also when that is another server by now; rejects with `DIR_NO_MASTER` when there is none that answers. */
  async askMaster<T>(question: (connection: LdapConnection) => Promise<T>): Promise<T> {
    try {
      if (this.#ports.clock.monotonicMs() >= this.#confirmedUntilMs) await this.#findMaster();
      return await this.ask(this.#master, question);
    } catch (error) {
      if (resultCodeOf(error) === resultCodes.referral) {
        // Nothing was done: a replica sends writers on.
        const asked = this.#master;
        await this.#findMaster();
        if (this.#master !== asked) return await this.ask(this.#master, question);
      }
      if (isServerFailure(error)) this.#confirmedUntilMs = 0;
      if (!isServerFailure(error) || (error instanceof PlatformError && error.code === 'DIR_BUSY')) throw error;
      throw new PlatformError('DIR_NO_MASTER', `the master directory does not answer: ${messageOf(error)}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    for (const server of this.#servers.values()) {
      await server.opening?.catch(() => undefined);
      await server.connection?.[Symbol.asyncDispose]();
    }
  }

  // Many questions at a time share one search.
  #findMaster(): Promise<void> {
    this.#finding ??= this.#lookForMaster().finally(() => {
      this.#finding = undefined;
    });
    return this.#finding;
  }

  async #lookForMaster(): Promise<void> {
    const own = await this.#roleOf(this.#master);
    if (own === 'none' || (own !== undefined && own.mode === 'master' && own.term >= this.#term)) {
      if (own !== 'none') this.#term = own.term;
      this.#confirmedUntilMs = this.#ports.clock.monotonicMs() + confirmedMs;
      return;
    }
    const named = own === undefined ? [] : [own];
    const asked = this.#master;
    const others = await Promise.all(this.urls.filter((url) => url !== this.#master).map((url) => this.#roleOf(url)));
    for (const role of others) if (role !== undefined && role !== 'none') named.push(role);
    const best = named.filter((one) => one.master !== undefined).sort((a, b) => b.term - a.term)[0];
    if (best?.master === undefined || best.term <= 1 || best.term < this.#term || best.master === asked) {
      // Asking it again would only cost its time-out once more.
      if (own === undefined) throw new PlatformError('DIR_UNAVAILABLE', this.lastErrorOf(asked) ?? `${asked} does not answer`);
      return;
    }
    this.#ports.log.warn(
      { component: 'directory', peer: best.master, term: best.term },
      `the master is ${best.master} now, not ${this.#master}`,
    );
    this.#know(best.master);
    this.#master = best.master;
    this.#term = best.term;
  }

  // `none`: it is not ours. `undefined`: it does not answer.
  async #roleOf(url: string): Promise<DirectoryRole | 'none' | undefined> {
    try {
      const role = await this.ask(url, (connection) => readRole(connection));
      if (role === undefined) return 'none';
      return role.mode === 'master' ? { ...role, master: url } : role;
    } catch (error) {
      this.#ports.log.debug({ component: 'directory', peer: url }, `does not say its role: ${messageOf(error)}`);
      return undefined;
    }
  }

  #know(url: string): void {
    if (this.#servers.has(url)) return;
    this.#servers.set(url, { url, connection: undefined, opening: undefined, avoidedUntilMs: 0, lastError: undefined });
  }

  async #connected(server: Server): Promise<LdapConnection> {
    if (this.#isDisposed) throw new PlatformError('DIR_UNAVAILABLE', 'the directory client was closed');
    if (server.connection?.isOpen === true) return server.connection;
    server.opening ??= openBound(server.url, this.#access, this.#ports).finally(() => {
      server.opening = undefined;
    });
    server.connection = await server.opening;
    return server.connection;
  }
}
