/**
 * Who is in the cluster, and who is alive.
 *
 * Every member keeps a lease `member/<name>` in the coordinator, with its address and state, and reads the others' at each heartbeat. It
 * also pings the others directly, the Controller all of them and its backups at least the Controller. A member counts as dead when its
 * machine refuses the connection, or when its lease is gone and it has not answered a ping for as long as a lease lasts. A silent
 * coordinator alone kills nobody. A refusal may be older than the process it is held against (a member that was started again at
 * once): while a dead member's lease is there it is asked on, and an answer makes it a member again.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { Lease, LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import { errnoOf } from '#common/files/files.ts';
import { type MemberName, parseMemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import { type DutySettings, readSettings } from './duties.ts';

/**
 * active: takes accounts. cordoned: keeps what it has open and takes no more. draining: closes what it has open. leaving: stops. A member of
 * a release that does not know a state takes it for active; the member itself refuses what it does not take.
 */
const livingStates = ['active', 'cordoned', 'draining', 'leaving'] as const;
export type LivingState = (typeof livingStates)[number];

/** A member as another one sees it. */
export interface MemberView {
  readonly address: MemberAddress;
  readonly incarnation: string;
  readonly state: LivingState | 'dead';
  readonly openAccounts: number;
  readonly sessions: number;
  /** Its Service Processing settings; `undefined` until it has answered a ping. */
  readonly duties: DutySettings | undefined;
  /** Last sign of life: lease seen or ping answered; this process's monotonic and wall clock. */
  readonly seenMs: number;
  readonly seenAtMs: number;
}

/** What a member says of itself in its lease and in answers to pings. */
export interface MemberSelf {
  readonly address: MemberAddress;
  readonly incarnation: string;
  state(): LivingState;
  openAccounts(): number;
  sessions(): number;
}

const pingTimeoutMs = 1_000;
const membersMax = 256;

/** See the header of this file. */
export class Membership {
  readonly #self: MemberSelf;
  readonly #leases: LeaseStore;
  readonly #link: LinkClient;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #leaseMs: number;
  readonly #others = new Map<MemberName, MemberView>();
  /** Names whose lease was there at the last look. */
  #listed = new Set<MemberName>();
  /** Incarnations of members that an operator had forgotten. */
  readonly #forgotten = new Map<MemberName, string>();
  /** When the first ping was sent that a member has not answered yet. */
  readonly #askedAtMs = new Map<MemberName, number>();
  #coordinatorError: string | undefined;
  #refreshedAtMs: number | undefined;
  /** Told once for each member that is found dead, or alive as a new incarnation. */
  readonly #onGone: (member: MemberName, livingIncarnation: string | undefined, goneIncarnation: string) => void;
  /** Told when a member that counted as dead answers after all. */
  readonly #onBack: (view: MemberView) => void;

  constructor(options: {
    self: MemberSelf;
    leases: LeaseStore;
    link: LinkClient;
    clock: Clock;
    log: Logger;
    leaseMs: number;
    onGone: (member: MemberName, livingIncarnation: string | undefined, goneIncarnation: string) => void;
    onBack: (view: MemberView) => void;
  }) {
    this.#self = options.self;
    this.#leases = options.leases;
    this.#link = options.link;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#leaseMs = options.leaseMs;
    this.#onGone = options.onGone;
    this.#onBack = options.onBack;
  }

  /** Other members that are not known to be dead. */
  living(): MemberView[] {
    return [...this.#others.values()].filter((member) => member.state !== 'dead');
  }

  /** Those worth asking whether they live: the living, and the dead whose lease is still there. */
  askable(): MemberView[] {
    return [...this.#others.values()].filter((member) => member.state !== 'dead' || this.#listed.has(member.address.name));
  }

  all(): MemberView[] {
    return [...this.#others.values()];
  }

  find(name: MemberName): MemberView | undefined {
    return this.#others.get(name);
  }

  /** Why the coordinator did not answer last; `undefined` when it did. */
  get coordinatorError(): string | undefined {
    return this.#coordinatorError;
  }

  /** Prolongs this member's lease and reads the others'. */
  async refresh(): Promise<void> {
    const { address, incarnation } = this.#self;
    const key = `member/${address.name}`;
    const value = { host: address.host, port: address.port, state: this.#self.state() };
    this.#noticeOwnSleep();
    try {
      const answer = await this.#leases.take(key, incarnation, value, this.#leaseMs);
      if (!answer.isTaken) {
        // The lease of the process that had this name before: it is gone, for this one has its address.
        await this.#leases.release(key, answer.by.holder);
        await this.#leases.take(key, incarnation, value, this.#leaseMs);
      }
      const leases = await this.#leases.list('member/');
      this.#coordinatorError = undefined;
      this.#listed = new Set();
      for (const lease of leases.slice(0, membersMax)) this.#onLease(lease);
      this.buryLapsed();
    } catch (error) {
      this.#coordinatorError = asPlatformError(error).message;
    }
  }

  /**
   * Asks a member whether it lives; false when it did not answer.
   *
   * @param message what to say, e.g. the Controller's term; the answer goes to `onAnswer`
   */
  async ping(view: MemberView, message: object, onAnswer: (answer: Record<string, unknown>) => void): Promise<boolean> {
    const name = view.address.name;
    if (!this.#askedAtMs.has(name)) this.#askedAtMs.set(name, this.#clock.monotonicMs());
    try {
      const answer = (await this.#link.call(view.address, 'cluster.ping', message, pingTimeoutMs)) as Record<string, unknown>;
      this.#alive(view, answer);
      onAnswer(answer);
      return true;
    } catch (error) {
      const failure = asPlatformError(error);
      const current = this.#others.get(name);
      if (current === undefined || current.incarnation !== view.incarnation || current.state === 'dead') return false;
      const silentMs = this.#clock.monotonicMs() - current.seenMs;
      // A link that waits before it dials again answers as it did last, and a refusal takes its time on the way: it may be about the
      // process before this one.
      const { dialledAtMs } = failure.fields;
      const isNews = typeof dialledAtMs !== 'number' || dialledAtMs >= current.seenMs;
      if (isRefused(failure) && isNews) this.#dead(current, 'its machine refuses the connection');
      else if (!this.#listed.has(name) && silentMs >= this.#leaseMs) this.#dead(current, `silent for ${Math.round(silentMs)} ms`);
      return false;
    }
  }

  /** Counts as dead who has neither a lease nor answered for as long as one lasts; a ping that is still out need not run into its timeout. */
  buryLapsed(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [name, view] of this.#others) {
      const silentMs = nowMs - view.seenMs;
      const askedAtMs = this.#askedAtMs.get(name) ?? nowMs;
      if (view.state === 'dead' || this.#listed.has(name) || silentMs < this.#leaseMs || nowMs - askedAtMs < pingTimeoutMs) continue;
      this.#dead(view, `silent for ${Math.round(silentMs)} ms`);
    }
  }

  /** A member said that it leaves: it has closed everything. */
  left(name: MemberName, incarnation: string): void {
    const view = this.#others.get(name);
    if (view?.incarnation === incarnation && view.state !== 'dead') this.#dead(view, 'it left in good order');
  }

  /** A member that is dead is not listed any more; one that lives is listed again at its next sign of life. */
  forget(name: MemberName): void {
    const view = this.#others.get(name);
    if (view?.state !== 'dead') return;
    this.#others.delete(name);
    // Its lease may be there for a while yet.
    if (this.#forgotten.size >= membersMax) this.#forgotten.clear();
    this.#forgotten.set(name, view.incarnation);
  }

  /** A member was heard of by other ways than its lease, e.g. it asked for something. */
  heard(address: MemberAddress, incarnation: string): void {
    const known = this.#others.get(address.name);
    if (known?.incarnation === incarnation && known.state !== 'dead') return;
    if (address.name === this.#self.address.name || this.#others.size >= membersMax) return;
    this.#put({ address, incarnation, state: 'active', openAccounts: 0, sessions: 0, duties: undefined });
  }

  #onLease(lease: Lease): void {
    let name: MemberName;
    try {
      name = parseMemberName(lease.key.slice('member/'.length));
    } catch {
      return;
    }
    if (name === this.#self.address.name) return;
    const { host, port, state } = (lease.value ?? {}) as { host?: unknown; port?: unknown; state?: unknown };
    if (typeof host !== 'string' || typeof port !== 'number') return;
    if (this.#forgotten.get(name) === lease.holder) return;
    this.#listed.add(name);
    const known = this.#others.get(name);
    // Its lease outlives a dead process by up to its length: the refused connection knows better.
    if (known?.incarnation === lease.holder && known.state === 'dead') return;
    this.#put({
      address: { name, host, port },
      incarnation: lease.holder,
      state: stateOf(state),
      openAccounts: known?.openAccounts ?? 0,
      sessions: known?.sessions ?? 0,
      duties: known?.duties,
    });
    // A lease outlives its process as well: only answers prolong the time after which silence counts.
    if (known?.incarnation === lease.holder) this.#others.set(name, { ...(this.#others.get(name) as MemberView), seenMs: known.seenMs });
  }

  #alive(view: MemberView, answer: Record<string, unknown>): void {
    const incarnation = typeof answer.incarnation === 'string' ? answer.incarnation : view.incarnation;
    this.#askedAtMs.delete(view.address.name);
    this.#put({
      address: view.address,
      incarnation,
      state: stateOf(answer.state),
      openAccounts: Number(answer.openAccounts) || 0,
      sessions: Number(answer.sessions) || 0,
      duties: readSettings(answer.duties),
    });
  }

  #put(view: Omit<MemberView, 'seenMs' | 'seenAtMs'>): void {
    const name = view.address.name;
    const known = this.#others.get(name);
    this.#others.set(name, { ...view, seenMs: this.#clock.monotonicMs(), seenAtMs: this.#clock.nowMs() });
    if (known !== undefined && known.incarnation !== view.incarnation) this.#onGone(name, view.incarnation, known.incarnation);
    if (known === undefined || known.incarnation !== view.incarnation) {
      this.#log.info({ member: name, incarnation: view.incarnation }, `member ${name} joined`);
    } else if (known.state === 'dead') {
      this.#log.info({ member: name, incarnation: view.incarnation }, `member ${name} answers again`);
      this.#onBack(this.#others.get(name) as MemberView);
    }
  }

  // A process that was stopped for as long as a lease has heard nobody, which says nothing about the others.
  #noticeOwnSleep(): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#refreshedAtMs !== undefined && nowMs - this.#refreshedAtMs >= this.#leaseMs) {
      for (const [name, view] of this.#others) this.#others.set(name, { ...view, seenMs: nowMs });
      this.#askedAtMs.clear();
    }
    this.#refreshedAtMs = nowMs;
  }

  #dead(view: MemberView, why: string): void {
    const name = view.address.name;
    this.#others.set(name, { ...view, state: 'dead' });
    this.#log.warn({ member: name, incarnation: view.incarnation }, `member ${name} is gone: ${why}`);
    this.#onGone(name, undefined, view.incarnation);
  }
}

function stateOf(told: unknown): LivingState {
  return livingStates.find((state) => state === told) ?? 'active';
}

/** Whether the peer's machine answered that nobody listens there. */
export function isRefused(error: { readonly code: string; readonly cause?: unknown }): boolean {
  return error.code === 'NET_CONNECT_FAILED' && errnoOf(error.cause) === 'ECONNREFUSED';
}
