/**
 * This server's place among the directory servers: master or replica, of which term, and whose writes it takes.
 *
 *   replica ──promote──► master ──follow (a later term)──► replica          what was decided is in the database and outlives the
 *              term + 1            "superseded"                              configuration's `mode`, which is for the first start
 *
 * What always holds: the term never goes down; a master that has heard of a later one takes no write any more; a replicator's write with a
 * lower term than stored here, with another lease, or to a replica that became the master is refused; a freeze ends by itself, so that a
 * promotion that failed half-way leaves no dead master.
 */
import type { Clock } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import {
  type AuthorityAnswer,
  type AuthorityRequest,
  type DirectoryRole,
  fenceOid,
  readFence,
  roleText,
} from '#directory/client/authority.ts';
import { findControl } from '#protocol/ldap/controls.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Tree } from './tree.ts';
import type { WriteRequest } from './write-rules.ts';

/** A freeze lasts at most so long, seconds. */
export const freezeSecondsMax = 300;
const requestBytesMax = 262_144;
const keptMax = 16;
const keptPrefix = 'kept:';
/** Of the kept values, the one whose number fences: `<number> …`. */
const leaseName = 'lease';

/** See the header of this file. */
export class Authority {
  readonly #tree: Tree;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #configuredMaster: string | undefined;
  #frozenUntilMs = 0;
  /** Why this master does not know yet, or any more, whether it still is one. */
  #doubt: string | undefined;

  constructor(tree: Tree, clock: Clock, log: Logger, configuredMaster: string | undefined) {
    this.#tree = tree;
    this.#clock = clock;
    this.#log = log;
    this.#configuredMaster = configuredMaster;
  }

  get role(): DirectoryRole {
    return { mode: this.#tree.mode, term: this.term, master: this.masterUrl };
  }

  get roleText(): string {
    return roleText(this.role);
  }

  get term(): number {
    return Number(this.#tree.store.meta('term') ?? 1);
  }

  /** Where the master is; `undefined` on the master itself. */
  get masterUrl(): string | undefined {
    return this.#tree.mode === 'master' ? undefined : (this.#tree.store.meta('masterUrl') ?? this.#configuredMaster);
  }

  /** Whether a later master took this one's place, or this replica became master: what the configuration says is out of date. */
  get isChanged(): boolean {
    return this.#tree.store.meta('role') !== undefined && this.#tree.mode !== this.#tree.configuredMode;
  }

  get isFrozen(): boolean {
    return this.#clock.monotonicMs() < this.#frozenUntilMs;
  }

  get doubt(): string | undefined {
    return this.#tree.mode === 'master' ? this.#doubt : undefined;
  }

  /** Sets or ends the doubt whether this server is still the master; while there is one, it takes no writes. */
  set doubt(why: string | undefined) {
    if (why !== this.#doubt && this.#tree.mode === 'master') {
      this.#log[why === undefined ? 'info' : 'warn'](
        { term: this.term },
        why ?? 'takes writes: the other directory servers know no later master',
      );
    }
    this.#doubt = why;
  }

  /** Refuses a write that somebody sent who was replaced, and every write while frozen or in doubt; inside `store.write`. */
  checkWrite(request: WriteRequest): void {
    // No control: a writer that writes by hand, or all servers at once; the state it brings is asked for anew each time.
    const given = request.who.rights === 'replicator' ? readFence(findControl(request.controls, fenceOid)?.value) : undefined;
    if (this.#tree.mode === 'master') {
      if (given !== undefined)
        throw new Refusal(
          'unavailable',
          given.term === this.term
            ? `this server is a master of term ${this.term} as well; see docs/operate/replication.md, "The master is lost"`
            : `this server is the master of term ${this.term}; replication of term ${given.term} writes it no more`,
        );
      if (this.isFrozen) throw new Refusal('busy', 'this server hands the mastership over; try again in a moment');
      if (this.#doubt !== undefined) throw new Refusal('unavailable', this.#doubt);
      return;
    }
    if (given === undefined) return;
    if (given.term < this.term) {
      throw new Refusal('unavailable', `the write comes from term ${given.term}; the master of term ${this.term} is another`);
    }
    const lease = this.#leaseNumber();
    // A higher one was given out here once, before this database was put back from an older copy: since then numbers are given out again.
    if (given.lease !== lease) {
      throw new Refusal('unavailable', `another replication service writes this replica: lease ${lease}, not ${given.lease}`);
    }
  }

  /** The extended operation. */
  async answer(value: Buffer | undefined, who: WriteRequest['who']): Promise<Buffer> {
    if (who.rights !== 'admin' && who.rights !== 'replicator') {
      throw new Refusal('insufficientAccessRights', 'the role of a server is a matter for the rights admin and replicator');
    }
    const request = parseRequest(value);
    // In a transaction, so that looking and storing are one.
    const isDone = request.op === 'look' ? true : await this.#tree.store.write(() => this.#do(request));
    await this.#tree.store.settled();
    return Buffer.from(JSON.stringify(this.#picture(isDone)));
  }

  /** Another server is master in that term; inside `store.write`. */
  follow(term: number, master: string): void {
    const { store } = this.#tree;
    if (term < this.term || (term === this.term && this.#tree.mode === 'master')) return;
    const wasMaster = this.#tree.mode === 'master';
    store.setMeta('term', String(term));
    store.setMeta('masterUrl', master);
    if (!wasMaster) return;
    store.setMeta('role', 'replica');
    store.setMeta('supersededAt', this.#tree.contextCsn);
    this.#log.error(
      { term, contextCsn: this.#tree.contextCsn },
      `superseded: ${master} is the master of term ${term}. This server is its replica now and refers writers to it; what it took after the ` +
        'promotion is replaced by what the new master holds once replication feeds it',
    );
  }

  #do(request: AuthorityRequest): boolean {
    const { store } = this.#tree;
    switch (request.op) {
      case 'keep': {
        const names = Object.keys(request.set);
        if (names.length > keptMax || names.some((name) => !/^[a-z][a-z.]{0,40}$/.test(name))) {
          throw new Refusal('protocolError', `at most ${keptMax} values are kept, under names of small letters`);
        }
        for (const [name, wanted] of Object.entries(request.expect ?? {})) {
          if ((this.#kept(name) ?? null) !== wanted) return false;
        }
        for (const [name, text] of Object.entries(request.set)) store.setMeta(keptPrefix + name, text ?? '');
        return true;
      }
      case 'freeze':
        if (this.#tree.mode !== 'master') throw new Refusal('unwillingToPerform', 'this server is no master');
        if (this.isFrozen) {
          const leftSeconds = Math.ceil((this.#frozenUntilMs - this.#clock.monotonicMs()) / 1000);
          throw new Refusal(
            'busy',
            `it is being handed over, for up to ${leftSeconds} s more: another promotion is under way, or broke off`,
          );
        }
        this.#frozenUntilMs = this.#clock.monotonicMs() + Math.min(freezeSecondsMax, Math.max(0, request.seconds)) * 1000;
        this.#log.warn({ seconds: request.seconds, term: this.term }, 'takes no writes: the mastership is being handed over');
        return true;
      case 'thaw':
        this.#frozenUntilMs = 0;
        return true;
      case 'promote':
        this.#promote(request);
        return true;
      case 'follow':
        if (request.handsOver !== undefined) this.#handOver(request.term, request.handsOver);
        this.follow(request.term, request.master);
        if (request.handsOver !== undefined) store.setMeta('supersededAt', '');
        return true;
      default:
        return true;
    }
  }

  // Whoever was stopped for longer than the freeze lasts must not take a mastership that went on, or went elsewhere, meanwhile.
  #handOver(term: number, csn: string): void {
    if (this.#tree.mode !== 'master') throw new Refusal('unwillingToPerform', 'this server is no master any more');
    if (term <= this.term) throw new Refusal('unwillingToPerform', `term ${term} is not after ${this.term}, the one of this master`);
    if (this.isFrozen && this.#tree.contextCsn === csn) return;
    throw new Refusal('busy', `the freeze is over, or was another one: at ${this.#tree.contextCsn} now, at ${csn} then`);
  }

  #promote({ term, csn, claimed }: Extract<AuthorityRequest, { op: 'promote' }>): void {
    const { store, contextCsn, csns } = this.#tree;
    if (term <= this.term) throw new Refusal('unwillingToPerform', `term ${term} is not after ${this.term}, which this server knows of`);
    if (claimed !== undefined && term === this.term + 1 && this.masterUrl !== claimed) {
      throw new Refusal(
        'unwillingToPerform',
        `another promotion is under way: it has named ${this.masterUrl} as the master of term ${this.term}`,
      );
    }
    if (!this.#tree.isFilled)
      throw new Refusal('unwillingToPerform', 'replication has not filled this replica yet; it cannot be the master');
    if (csn !== undefined && !this.#tree.holds(csn)) {
      throw new Refusal('unwillingToPerform', `this replica is at ${contextCsn} and lacks changes up to ${csn}`);
    }
    csns.observe(contextCsn);
    store.setMeta('role', 'master');
    store.setMeta('term', String(term));
    store.setMeta('masterUrl', '');
    store.setMeta('supersededAt', '');
    this.#frozenUntilMs = 0;
    this.#doubt = undefined;
    this.#log.warn({ term, contextCsn }, `promoted: this server is the master of term ${term}. Set "mode: master" in its configuration`);
  }

  #picture(isDone: boolean): AuthorityAnswer {
    const tree = this.#tree;
    return {
      mode: tree.mode,
      term: this.term,
      ...(this.masterUrl === undefined ? {} : { master: this.masterUrl }),
      contextCsn: tree.contextCsn,
      changeNumber: tree.store.lastChangeNumber(),
      isFrozen: this.isFrozen,
      isFilled: tree.isFilled,
      kept: Object.fromEntries(
        tree.store
          .metaNames()
          .filter((name) => name.startsWith(keptPrefix) && tree.store.meta(name) !== '')
          .map((name) => [name.slice(keptPrefix.length), tree.store.meta(name) ?? '']),
      ),
      isDone,
    };
  }

  #kept(name: string): string | undefined {
    const text = this.#tree.store.meta(keptPrefix + name);
    return text === '' ? undefined : text;
  }

  #leaseNumber(): number {
    return Number.parseInt(this.#kept(leaseName) ?? '0', 10) || 0;
  }
}

function parseRequest(value: Buffer | undefined): AuthorityRequest {
  const malformed = (): Refusal => new Refusal('protocolError', 'the request about the role of this server is malformed');
  if (value === undefined || value.length > requestBytesMax) throw malformed();
  let request: Record<string, unknown>;
  try {
    request = JSON.parse(value.toString('utf8')) as Record<string, unknown>;
  } catch {
    throw malformed();
  }
  const isTexts = (given: unknown): boolean =>
    typeof given === 'object' && given !== null && Object.values(given).every((one) => one === null || typeof one === 'string');
  const isTerm = Number.isSafeInteger(request?.term) && (request.term as number) > 0;
  const fits: Record<string, () => boolean> = {
    look: () => true,
    keep: () => isTexts(request.set) && (request.expect === undefined || isTexts(request.expect)),
    freeze: () => typeof request.seconds === 'number' && request.seconds > 0,
    thaw: () => true,
    promote: () => isTerm && [request.csn, request.claimed].every((one) => one === undefined || typeof one === 'string'),
    follow: () =>
      isTerm &&
      typeof request.master === 'string' &&
      /^ldaps?:\/\/\S{1,500}$/.test(request.master) &&
      (request.handsOver === undefined || typeof request.handsOver === 'string'),
  };
  const op = typeof request?.op === 'string' ? request.op : '';
  if (!Object.hasOwn(fits, op) || fits[op]?.() !== true) throw malformed();
  return request as unknown as AuthorityRequest;
}
