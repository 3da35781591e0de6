/**
 * Kept connections to a list of directory servers, one each, made when first needed and made again when lost. A server that failed is
 * tried last for a while, so that a dead one costs its timeout once and not at every look-up.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { jitteredMs } from '#common/random.ts';
import { type DirectoryPorts, openBound, type ResolvedAccess } from '#directory/client/access.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { isServerFailure } from '#directory/client/ldap-errors.ts';

const avoidMs = 5000;

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

  constructor(access: ResolvedAccess, ports: DirectoryPorts) {
    this.#access = access;
    this.#ports = ports;
    for (const url of [...access.urls, access.master]) {
      this.#servers.set(url, { url, connection: undefined, opening: undefined, avoidedUntilMs: 0, lastError: undefined });
    }
  }

  /** Every server once, the master last unless it is in the list. */
  get urls(): readonly string[] {
    return [...this.#servers.keys()];
  }

  lastErrorOf(url: string): string | undefined {
    return this.#servers.get(url)?.lastError;
  }

  /** Asks one server. What it answers with an error passes through; that it does not answer is `isServerFailure`. */
  async ask<T>(url: string, question: (connection: LdapConnection) => Promise<T>): Promise<T> {
    const server = this.#servers.get(url);
    if (server === undefined) throw new PlatformError('CONFIG_INVALID', `${url} is none of the directory servers configured`);
    try {
      const answer = await question(await this.#connected(server));
      server.lastError = undefined;
      server.avoidedUntilMs = 0;
      return answer;
    } catch (error) {
      if (isServerFailure(error)) {
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

  /** Asks the master; rejects with `DIR_NO_MASTER` when it does not answer. */
  async askMaster<T>(question: (connection: LdapConnection) => Promise<T>): Promise<T> {
    try {
      return await this.ask(this.#access.master, question);
    } catch (error) {
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
