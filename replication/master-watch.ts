/**
 * Which of the directory servers is the master now. Every server of the configuration is asked for its role, anonymously; the master of the
 * highest term is the one. Servers that do not know it yet are told, so that an old master that comes back stops taking writes and refers
 * its writers to the new one. Servers that are not ours have no role: then the configuration says who is the master.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import { openBound } from '#directory/client/access.ts';
import { askAuthority, type DirectoryRole, readRole } from '#directory/client/authority.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import type { ServerAccess } from '#replication/server-access.ts';

const askEveryMs = 1000;
const answerWithinMs = 2000;

/** See the header of this file. Dispose of it to stop. */
export class MasterWatch implements AsyncDisposable {
  readonly #servers: readonly ServerAccess[];
  readonly #ports: Ports;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onMaster: (access: ServerAccess, term: number) => void;
  readonly #connections = new Map<string, LdapConnection>();
  readonly #roles = new Map<string, DirectoryRole>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  /** Resolves once everybody was asked for the first time. */
  readonly firstLook: Promise<void>;
  #current: { readonly url: string; readonly term: number };

  /** `servers`: the configured master first. `onMaster` is called whenever it is another one, or of another term, than before. */
  constructor(servers: readonly ServerAccess[], ports: Ports, onMaster: (access: ServerAccess, term: number) => void) {
    this.#servers = servers;
    this.#ports = ports;
    this.#clock = ports.clock;
    this.#log = ports.log.child({ component: 'master-watch' });
    this.#onMaster = onMaster;
    this.#current = { url: servers[0]?.url ?? '', term: 0 };
    this.firstLook = this.look();
    this.#running = this.#run();
  }

  get term(): number {
    return this.#current.term;
  }

  get masterUrl(): string {
    return this.#current.url;
  }

  /** What that server said last; `undefined` for one that is not ours or has not answered. */
  roleOf(url: string): DirectoryRole | undefined {
    return this.#roles.get(url);
  }

  /** Asks everybody now. */
  async look(): Promise<void> {
    await Promise.all(this.#servers.map((server) => this.#ask(server)));
    this.#judge();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const connection of this.#connections.values()) connection.destroy();
    await this.#running;
    for (const connection of this.#connections.values()) connection.destroy();
  }

  async #run(): Promise<void> {
    await this.firstLook;
    while (!this.#stop.signal.aborted) {
      await this.#tellOthers();
      await sleep(this.#clock, askEveryMs, this.#stop.signal);
      await this.look();
    }
  }

  async #ask(server: ServerAccess): Promise<void> {
    try {
      let connection = this.#connections.get(server.url);
      if (connection?.isOpen !== true) {
        connection = await LdapConnection.open(this.#ports.network, this.#clock, {
          url: server.url,
          ca: server.ca,
          timeoutMs: answerWithinMs,
        });
        this.#connections.set(server.url, connection);
      }
      const role = await readRole(connection);
      if (role !== undefined) this.#roles.set(server.url, role);
    } catch (error) {
      // What it said last still counts: a term never goes down.
      this.#connections.get(server.url)?.destroy();
      this.#log.debug({ peer: server.url }, `does not say its role: ${messageOf(error)}`);
    }
  }

  #judge(): void {
    const [configured] = this.#servers;
    if (configured === undefined || this.#stop.signal.aborted) return;
    let best: { readonly server: ServerAccess; readonly term: number } | undefined;
    for (const server of this.#servers) {
      const role = this.#roles.get(server.url);
      if (role === undefined || role.term <= (best?.term ?? 0)) continue;
      // A replica of a later term knows its master, also while that one is away.
      const named = role.mode === 'master' ? server : role.term > 1 ? this.#servers.find((one) => one.url === role.master) : undefined;
      if (named !== undefined) best = { server: named, term: role.term };
    }
    // One that is not ours says nothing, and is the master because the configuration says so.
    best ??= this.#roles.has(configured.url) && this.#current.term > 0 ? undefined : { server: configured, term: 1 };
    if (best === undefined || best.term < this.#current.term) return;
    if (best.term === this.#current.term && best.server.url === this.#current.url) return;
    // Of one term there is one master; a second one is a mistake of somebody's hands.
    if (best.term === this.#current.term && this.#current.term > 0) return;
    if (this.#current.term > 0)
      this.#log.warn({ term: best.term, peer: best.server.url }, 'there is a new master; replicas follow it from now on');
    this.#current = { url: best.server.url, term: best.term };
    this.#onMaster(best.server, best.term);
  }

  async #tellOthers(): Promise<void> {
    const { url, term } = this.#current;
    if (term <= 1) return;
    for (const server of this.#servers) {
      const role = this.#roles.get(server.url);
      if (role === undefined || server.url === url || (role.term === term && role.master === url)) continue;
      if (role.term > term || this.#connections.get(server.url)?.isOpen !== true) continue;
      try {
        await using connection = await openBound(server.url, server, this.#ports);
        await askAuthority(connection, { op: 'follow', term, master: url });
        this.#log.info({ peer: server.url, term }, `told that ${url} is the master`);
      } catch (error) {
        this.#log.warn({ peer: server.url, term }, `cannot be told that ${url} is the master: ${messageOf(error)}`);
      }
    }
  }
}
