/**
 * The sessions that this member serves: counted for load, listed for the console, ended in their protocol's words when their account goes
 * elsewhere. One `info` line is logged for each that ends.
 */
import type { MemberSession } from '#backend-cluster/client/status.ts';
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import type { SessionNotice } from '#protocol/link/messages.ts';
import { Handovers, parkedAs } from './handovers.ts';
import type { RunningSession } from './session.ts';

/** What is known of a session when it starts. */
export interface SessionFacts {
  readonly sessionId: string;
  readonly service: string;
  /** Missing for LMTP connections, which serve many accounts. */
  readonly uuid: AccountUuid | undefined;
  /** The account's name now; it may change while the session is open. */
  accountName(): AccountName | undefined;
  readonly clientAddress: string;
  readonly frontend: string;
  /** Tells the frontend that the session moves, and at last where its state is; missing where the frontend cannot go on with it elsewhere. */
  readonly mover?: { notify(notice: SessionNotice): void; endWith(notice: SessionNotice): void } | undefined;
}

interface Entry {
  readonly facts: SessionFacts;
  readonly startedAtMs: number;
  readonly startedMs: number;
  running: RunningSession | undefined;
}

/** Sessions in one status answer; the count is complete in any case. */
export const listedMax = 1_000;

/** Time for sessions to come to rest when their account leaves, milliseconds. */
export const moveMs = 5_000;

/** See the header of this file. */
export class SessionRegistry {
  /** Sessions on their way to another member. */
  readonly handovers: Handovers;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #entries = new Map<number, Entry>();
  readonly #bySessionId = new Map<string, Entry>();
  readonly #byAccount = new Map<AccountUuid, Set<number>>();
  readonly #finished: { add(labels?: Record<string, string>, value?: number): void };
  #lastKey = 0;
  #userSessions = 0;

  constructor(clock: Clock, random: Random, log: Logger, metrics: Metrics) {
    this.#clock = clock;
    this.handovers = new Handovers(clock, random);
    this.#log = log;
    const open = metrics.gauge('archipelago_member_sessions', 'Sessions that this member serves now.', ['protocol']);
    metrics.onCollect(() => {
      for (const protocol of ['imap', 'pop3', 'managesieve', 'lmtp']) {
        open.set({ protocol }, [...this.#entries.values()].filter((entry) => entry.facts.service === protocol).length);
      }
    });
    this.#finished = metrics.counter('archipelago_member_sessions_finished_total', 'Sessions that ended on this member.', ['protocol']);
  }

  /** Sessions of accounts. Frontends' LMTP connections, which are kept and serve many accounts, are not among them. */
  get count(): number {
    return this.#userSessions;
  }

  /**
   * Starts a session: `start` is given what to call when the session has ended, and `released` runs then, once.
   */
  serve(facts: SessionFacts, start: (ended: () => void) => RunningSession, released: () => void): void {
    this.#lastKey += 1;
    const key = this.#lastKey;
    const entry: Entry = { facts, startedAtMs: this.#clock.nowMs(), startedMs: this.#clock.monotonicMs(), running: undefined };
    this.#entries.set(key, entry);
    this.#bySessionId.set(facts.sessionId, entry);
    if (facts.uuid !== undefined) {
      const keys = this.#byAccount.get(facts.uuid) ?? new Set();
      this.#byAccount.set(facts.uuid, keys.add(key));
      this.#userSessions += 1;
    }
    let isOver = false;
    entry.running = start(() => {
      if (isOver) return;
      isOver = true;
      this.#remove(key, entry);
      released();
    });
    // A session may end inside `start`; then its summary was not there yet.
    if (isOver) this.#logEnd(entry);
  }

  ofAccount(uuid: AccountUuid): readonly MemberSession[] {
    return [...(this.#byAccount.get(uuid) ?? [])].map((key) => this.#describe(this.#entries.get(key) as Entry));
  }

  list(): readonly MemberSession[] {
    const listed: MemberSession[] = [];
    for (const entry of this.#entries.values()) {
      if (listed.length >= listedMax) break;
      listed.push(this.#describe(entry));
    }
    return listed;
  }

  /** Ends the sessions of one account. */
  byeAccount(uuid: AccountUuid, text: string): void {
    for (const key of [...(this.#byAccount.get(uuid) ?? [])]) this.#entries.get(key)?.running?.bye(text);
  }

  /**
   * Hands the sessions of an account over to whichever member opens it next, and ends those that cannot be. Resolves when all are gone, or
   * `moveMs` have passed and the rest has been told goodbye.
   */
  async moveAccount(uuid: AccountUuid, text: string): Promise<void> {
    const entries = [...(this.#byAccount.get(uuid) ?? [])].map((key) => this.#entries.get(key) as Entry);
    const resting = entries.map(async ({ facts, running }) => {
      const { mover } = facts;
      if (mover === undefined || running?.moveAway === undefined) {
        running?.bye(text);
        return;
      }
      mover.notify({ kind: 'move' });
      const state = await running.moveAway();
      if (state !== undefined)
        mover.endWith({ kind: 'ticket', ticket: this.handovers.park(uuid, facts.frontend, parkedAs(facts.service), state) });
    });
    const late = new AbortController();
    await Promise.race([Promise.all(resting), sleep(this.#clock, moveMs, late.signal)]);
    late.abort();
    this.byeAccount(uuid, text);
  }

  /** Ends one session that came through this frontend; `false` when there is none. */
  byeSession(sessionId: string, frontend: string, text: string): boolean {
    const entry = this.#bySessionId.get(sessionId);
    if (entry === undefined || entry.facts.frontend !== frontend) return false;
    entry.running?.bye(text);
    return true;
  }

  byeAll(text: string): void {
    for (const entry of [...this.#entries.values()]) entry.running?.bye(text);
  }

  #describe(entry: Entry): MemberSession {
    const { sessionId, service, clientAddress, frontend } = entry.facts;
    return { sessionId, service, account: entry.facts.accountName() ?? '', clientAddress, frontend, startedAtMs: entry.startedAtMs };
  }

  #remove(key: number, entry: Entry): void {
    this.#entries.delete(key);
    if (this.#bySessionId.get(entry.facts.sessionId) === entry) this.#bySessionId.delete(entry.facts.sessionId);
    const { uuid, service } = entry.facts;
    const keys = uuid === undefined ? undefined : this.#byAccount.get(uuid);
    if (uuid !== undefined) this.#userSessions -= 1;
    keys?.delete(key);
    if (uuid !== undefined && keys?.size === 0) this.#byAccount.delete(uuid);
    this.#finished.add({ protocol: service });
    if (entry.running !== undefined) this.#logEnd(entry);
  }

  #logEnd(entry: Entry): void {
    const { sessionId, service, clientAddress, frontend } = entry.facts;
    const summary = entry.running?.summary();
    this.#log.info(
      {
        sessionId,
        protocol: service,
        account: entry.facts.accountName(),
        clientIp: clientAddress,
        peer: frontend,
        durationMs: Math.round(this.#clock.monotonicMs() - entry.startedMs),
        commands: summary?.commands,
        outcome: summary?.outcome,
      },
      'session finished',
    );
  }
}
