/**
 * How a master learns that it was superseded while it was away or out of reach: it asks the other directory servers, at its start and
 * every so often, which master of which term they know. Asked anonymously, of the root DSE.
 *
 *   start ──► in doubt (no writes) ──► every peer answered, or had its time ──► takes writes      with `writesNeed: majority` only while
 *                                 └──► somebody knows a later term ──► replica                     most of the servers, itself counted, answer
 *
 * With `majority` a forced promotion is safe against a master that lives on unseen: the promotion tells a majority of the new term, waits
 * `answersLastMs`, and by then no majority answers the old master any more that has not heard of it.
 */
import { type Clock, sleep, type Timer } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Network } from '#common/network/network.ts';
import { type DirectoryRole, readRole } from '#directory/client/authority.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { answersLastMs } from '#directory/client/peers.ts';
import type { EntryStore } from '../store/entry-store.ts';
import type { Authority } from './authority.ts';

const askEveryMs = 1000;
const answerWithinMs = 1500;

/** What watching needs. */
export interface PeerWatchOptions {
  /** URLs of the other directory servers. */
  readonly peers: readonly string[];
  readonly needsMajority: boolean;
  readonly ca: string | undefined;
  readonly authority: Authority;
  readonly store: EntryStore;
  readonly network: Network;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Peer {
  readonly url: string;
  connection: LdapConnection | undefined;
  isAsked: boolean;
  /** When the question was sent that it answered last, monotonic. */
  answeredMs: number | undefined;
  hadItsTime: boolean;
}

/** See the header of this file. Dispose of it to stop. */
export class PeerWatch implements Disposable {
  readonly #options: PeerWatchOptions;
  readonly #peers: readonly Peer[];
  readonly #timer: Timer;
  readonly #stop = new AbortController();

  constructor(options: PeerWatchOptions) {
    this.#options = options;
    this.#peers = options.peers.map((url) => ({ url, connection: undefined, isAsked: false, answeredMs: undefined, hadItsTime: false }));
    this.#judge();
    this.#timer = options.clock.every(askEveryMs, () => this.#askAll());
    this.#askAll();
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
    this.#timer.cancel();
    for (const peer of this.#peers) peer.connection?.destroy('the server is stopping');
  }

  #askAll(): void {
    for (const peer of this.#peers) if (!peer.isAsked) void this.#ask(peer);
    // Answers get old also while nobody answers.
    this.#judge();
  }

  async #ask(peer: Peer): Promise<void> {
    const { clock, network, ca, log, store, authority } = this.#options;
    peer.isAsked = true;
    const sentMs = clock.monotonicMs();
    try {
      if (peer.connection?.isOpen !== true) {
        peer.connection = await LdapConnection.open(network, clock, { url: peer.url, ca, timeoutMs: answerWithinMs });
      }
      const role = await readRole(peer.connection);
      if (this.#stop.signal.aborted) return;
      if (role !== undefined) {
        const later = this.#laterThanOurs(role, peer.url);
        if (later !== undefined) await store.write(() => authority.follow(later.term, later.master));
      }
      peer.answeredMs = sentMs;
    } catch (error) {
      peer.connection?.destroy();
      if (this.#stop.signal.aborted) return;
      log.debug({ peer: peer.url }, `does not say which master it knows: ${messageOf(error)}`);
      await sleep(clock, askEveryMs, this.#stop.signal);
    } finally {
      peer.isAsked = false;
      peer.hadItsTime = true;
    }
    if (!this.#stop.signal.aborted) this.#judge();
  }

  #laterThanOurs(role: DirectoryRole, url: string): { term: number; master: string } | undefined {
    const { authority } = this.#options;
    const master = role.mode === 'master' ? url : role.master;
    if (master === undefined || role.term < authority.term) return undefined;
    // Of one term a replica may have been told otherwise than this server, by two who promote at once; the master itself knows.
    const isNews = role.term > authority.term || (role.mode === 'master' && authority.masterUrl !== url);
    return isNews ? { term: role.term, master } : undefined;
  }

  #judge(): void {
    const { authority, needsMajority, clock } = this.#options;
    if (!needsMajority) {
      const silent = this.#peers.filter((peer) => !peer.hadItsTime);
      authority.doubt =
        silent.length === 0
          ? undefined
          : `has not heard yet from ${silent.map((peer) => peer.url).join(', ')} whether there is a later master`;
      return;
    }
    const since = clock.monotonicMs() - answersLastMs;
    const answered = this.#peers.filter((peer) => peer.answeredMs !== undefined && peer.answeredMs >= since).length;
    const needed = Math.floor((this.#peers.length + 1) / 2) + 1;
    authority.doubt =
      answered + 1 >= needed
        ? undefined
        : `${answered + 1} of ${this.#peers.length + 1} directory servers can be reached from here, ${needed} are needed: there may be a later master`;
  }
}
