/**
 * This member's part in leading the cluster: runs the election, and while it is Controller says which member may open which account.
 *
 *   heartbeat ─► membership (who lives) ─► election.ts (who leads) ─► effects here: lease, term, asking members
 *   link calls `cluster.*` from other members ─► open-accounts.ts (who hosts) ─► `grant` or `at`
 *
 * What always holds: a member obeys no term lower than it has accepted; the table is a fast copy of what the accounts' logs say, so
 * losing it costs a moment in which new opens wait, and nothing else. Open accounts go on without any Controller.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { controllerLeaseKey, type LeaseStore } from '#backend-cluster/coordination/lease-store.ts';
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';
import { type Clock, sleep, type Timer } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Random } from '#common/random.ts';
import { Asking, type AskOptions } from './asking.ts';
import { Closings } from './closings.ts';
import { collectFrom, collectOpenAccounts, type LocalAccounts, reportPageMax } from './collect.ts';
import { collectRunners, Duties, type DutySettings, readRunners } from './duties.ts';
import { type Election, type ElectionEffect, type ElectionEvent, newElection, stepElection } from './election.ts';
import { type MemberSelf, Membership, type MemberView } from './membership.ts';
import { type MemberId, OpenAccounts, type OpenReport } from './open-accounts.ts';
import type { ClusterSettings } from './settings.ts';

/** What a controller part is made of. */
export interface ControllerOptions {
  readonly self: MemberSelf;
  readonly leases: LeaseStore;
  readonly store: Pick<AccountStore, 'highestTerm' | 'claimTerm'>;
  readonly link: LinkClient;
  readonly local: LocalAccounts;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  readonly duties: DutySettings;
  /** This member has become Controller: what was left half done is finished now. */
  onLead(term: number): void;
  readonly settings: ClusterSettings;
  /** A call that any member may have been asked, and that the Controller runs: account operations. */
  run(method: string, params: Record<string, unknown>): Promise<unknown>;
}

/** Answer to a request to open an account. */
export type OpenGrant = { readonly outcome: 'grant' } | { readonly outcome: 'at'; readonly host: MemberAddress };

/** See the header of this file. */
export class Controller {
  readonly #options: ControllerOptions;
  readonly membership: Membership;
  /** Who makes requests to the outside world for others. */
  readonly duties: Duties;
  readonly #table = new OpenAccounts();
  #election: Election = newElection(0);
  #known: { readonly address: MemberAddress; readonly term: number } | undefined;
  readonly #asking: Asking;
  readonly #closings: Closings;
  #beat: Timer | undefined;
  #beating: Promise<void> | undefined;
  #beatAgain = false;
  #isStopped = false;
  readonly #begun = new Set<Promise<void>>();
  readonly #takeovers: { add(labels?: Record<string, string>, value?: number): void };
  readonly #grants: { add(labels?: Record<string, string>, value?: number): void };

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.membership = new Membership({
      ...options,
      onGone: (member, living, gone) => this.#memberGone(member, living, gone),
      onBack: (view) => this.#memberBack(view),
    });
    this.#asking = new Asking({
      ...options,
      isStopped: () => this.#isStopped,
      known: () => this.#known?.address,
      lead: (method, params) => (this.isController ? this.lead(method, params) : undefined),
      introduction: () => ({ term: this.term, from: this.#introduction() }),
    });
    this.#closings = new Closings({
      ...options,
      table: this.#table,
      term: () => this.term,
      addressOf: (member) => this.addressOf(member),
    });
    this.duties = new Duties(options.self.address.name, options.duties);
    this.#takeovers = options.metrics.counter(
      'archipelago_cluster_takeovers_total',
      'Accounts whose host was found gone by the Controller.',
    );
    this.#grants = options.metrics.counter('archipelago_cluster_grants_total', 'Answers to requests to open an account.', ['outcome']);
  }

  get term(): number {
    return this.#election.term;
  }
  get isController(): boolean {
    return this.#election.state === 'leading' && this.#options.clock.monotonicMs() < this.#election.untilMs;
  }
  /** Name of the Controller as known here. */
  get controllerName(): MemberName | undefined {
    return this.isController ? this.#options.self.address.name : this.#known?.address.name;
  }

  /** Joins the cluster. Resolves once storage has told the highest term. */
  async start(): Promise<void> {
    this.#election = newElection(await this.#options.store.highestTerm());
    await this.#options.settings.refresh();
    this.#beat = this.#options.clock.every(this.#options.heartbeatMs, () => void this.beat());
    void this.beat();
  }

  /** One heartbeat; a call during another one makes it run once more. */
  beat(): Promise<void> {
    if (this.#isStopped) return Promise.resolve();
    if (this.#beating !== undefined) {
      this.#beatAgain = true;
      return this.#beating;
    }
    this.#beating = this.#runBeat().finally(() => {
      this.#beating = undefined;
      if (!this.#beatAgain) return;
      this.#beatAgain = false;
      void this.beat();
    });
    return this.#beating;
  }

  async #runBeat(): Promise<void> {
    await this.membership.refresh();
    this.#step({ type: 'heartbeat', nowMs: this.#options.clock.monotonicMs() });
    if (this.#election.state === 'leading') this.#distributeDuties();
    for (const view of this.membership.askable()) if (this.#watches(view)) void this.#ping(view);
  }

  /** A member cannot be reached over the link: whether it lives is asked now, not at the next heartbeat. */
  suspect(member: MemberName): void {
    const view = this.membership.find(member);
    if (this.#isStopped || view === undefined || view.state === 'dead' || !this.#watches(view)) return;
    void this.#ping(view);
  }

  /** The Controller asks all whether they live; a backup asks the Controller, and the dead, which may be a former Controller that slept. */
  #watches({ address, state }: MemberView): boolean {
    return this.#isActing || state === 'dead' || address.name === this.#known?.address.name;
  }

  get #isActing(): boolean {
    return this.#election.state === 'leading' || this.#election.state === 'collecting';
  }

  /** Leaves in good order: the others need not wait for leases. Accounts must be closed before. */
  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#beat?.cancel();
    const { self, leases, link } = this.#options;
    this.#step({ type: 'stop' });
    await this.#beating;
    await Promise.allSettled(this.#begun);
    const message = { member: self.address.name, incarnation: self.incarnation };
    await Promise.allSettled([
      leases.release(controllerLeaseKey, this.#holder),
      leases.release(`member/${self.address.name}`, self.incarnation),
      ...this.membership.living().map((view) => link.call(view.address, 'cluster.leaving', message, 1_000)),
    ]);
  }

  /** Stops without a word, as a dead process does. */
  kill(): void {
    this.#isStopped = true;
    this.#beat?.cancel();
    this.#election = { ...this.#election, state: 'stopped', untilMs: 0 };
  }

  // ---- what this member asks of whoever is Controller

  /** See `Asking.ask`. */
  ask(method: string, params: object, options: AskOptions = {}): Promise<unknown> {
    return this.#asking.ask(method, params, options);
  }

  #setKnown(known: { readonly address: MemberAddress; readonly term: number } | undefined): void {
    const isOther = this.#known?.address.name !== known?.address.name;
    this.#known = known;
    if (isOther) this.#asking.replaced();
  }

  /** Asks whether this member may open an account. */
  async requestOpen(uuid: AccountUuid): Promise<OpenGrant> {
    const answer = (await this.ask('cluster.request', { uuid })) as OpenGrant;
    if (answer?.outcome === 'grant' || (answer?.outcome === 'at' && typeof answer.host?.host === 'string')) return answer;
    throw new PlatformError('LINK_PROTOCOL', 'the Controller answered in a way that this release does not understand');
  }

  /** Another member that has the account open, if the Controller knows and answers at once. A hint that spares work, nothing more. */
  async locate(uuid: AccountUuid): Promise<MemberAddress | undefined> {
    const { self, link } = this.#options;
    if (this.isController) return this.#usableHostOf(uuid, self.address.name);
    const known = this.#known;
    if (known === undefined || known.address.name === self.address.name) return undefined;
    try {
      const message = { uuid, term: this.term, from: this.#introduction() };
      const { host } = (await link.call(known.address, 'cluster.locate', message, 1_000)) as { host?: MemberAddress };
      return typeof host?.host === 'string' ? host : undefined;
    } catch {
      // Whoever opens the account asks again, and waits.
      return undefined;
    }
  }

  /** Gives the lead to another member, if there is one. */
  yieldLead(): void {
    if (this.membership.living().some((view) => view.state === 'active')) this.#step({ type: 'yield' });
  }

  /** Tells the Controller; when it cannot be told, the next one will ask. */
  report(what: 'opened' | 'closed', uuid: AccountUuid, epoch: number | undefined): void {
    this.ask(`cluster.${what}`, { uuid, epoch }).catch((error: unknown) => {
      this.#options.log.debug({ account: uuid, errCode: asPlatformError(error).code }, `the Controller was not told of an account ${what}`);
    });
  }

  // ---- calls of other members

  /** A `cluster.*` call of another member. Params come from a certified member of this cluster; their shape is still checked. */
  async call(method: string, params: Record<string, unknown>): Promise<unknown> {
    const term = Number(params.term ?? 0);
    if (method === 'cluster.ping') return this.#onPing(term, params);
    if (method === 'cluster.open-accounts' || method === 'cluster.close') {
      this.#accept(term);
      if (method === 'cluster.open-accounts') return this.#options.local.openReports(String(params.after ?? ''), reportPageMax);
      await this.#options.local.close(uuidOf(params), 'Account is served elsewhere now');
      return {};
    }
    if (method === 'cluster.forget') {
      this.#accept(term);
      this.membership.forget(params.member as MemberName);
      return {};
    }
    if (method === 'cluster.leaving') {
      this.membership.left(params.member as MemberName, String(params.incarnation));
      void this.beat();
      return {};
    }
    if (term > this.term) this.#step({ type: 'term-seen', term });
    const from = params.from as { name?: unknown; host?: unknown; port?: unknown; incarnation?: unknown } | undefined;
    if (
      typeof from?.name !== 'string' ||
      typeof from.host !== 'string' ||
      typeof from.port !== 'number' ||
      typeof from.incarnation !== 'string'
    ) {
      throw new PlatformError('LINK_PROTOCOL', `${method} does not say who asks`);
    }
    this.membership.heard({ name: from.name as MemberName, host: from.host, port: from.port }, from.incarnation);
    return this.lead(method, { ...params, member: from.name, incarnation: from.incarnation });
  }

  /** What only the Controller does. Rejects with `CLUSTER_NO_CONTROLLER` when this member is none. */
  async lead(method: string, params: Record<string, unknown>): Promise<unknown> {
    if (!this.isController) throw new PlatformError('CLUSTER_NO_CONTROLLER', `${this.#options.self.address.name} is not the Controller`);
    if (method === 'cluster.run') return this.#options.run(String(params.method), (params.params ?? {}) as Record<string, unknown>);
    const by: MemberId = { member: params.member as MemberName, incarnation: String(params.incarnation) };
    const uuid = uuidOf(params);
    if (method === 'cluster.locate') return { host: this.#usableHostOf(uuid, by.member) };
    const nowMs = this.#options.clock.monotonicMs();
    if (method === 'cluster.opened') {
      this.#closings.supersede(this.#table.opened({ ...by, uuid, epoch: Number(params.epoch) }, nowMs));
      return {};
    }
    if (method === 'cluster.closed') {
      this.#table.closed(uuid, by, typeof params.epoch === 'number' ? params.epoch : undefined);
      return {};
    }
    if (method !== 'cluster.request') throw new PlatformError('LINK_PROTOCOL', `the call ${method} is unknown to this release`);
    const view = this.membership.find(by.member);
    const isSelf = by.member === this.#options.self.address.name;
    if (isSelf ? this.#options.self.state() !== 'active' : view?.state !== 'active') {
      throw new PlatformError('CLUSTER_DRAINING', `${by.member} is ${view?.state ?? 'leaving'} and opens no more accounts`);
    }
    let answer = this.#table.request(uuid, by, nowMs);
    if (answer.outcome === 'at' && this.#usableHostOf(uuid, by.member) === undefined) {
      await this.#closings.takeFrom(uuid, answer.host);
      answer = this.#table.request(uuid, by, this.#options.clock.monotonicMs());
    }
    this.#grants.add({ outcome: answer.outcome });
    if (answer.outcome === 'grant') return answer;
    return { outcome: 'at', host: this.addressOf(answer.host.member) as MemberAddress } satisfies OpenGrant;
  }

  hostOf(uuid: AccountUuid): (MemberId & { readonly epoch: number | undefined }) | undefined {
    return this.#table.hostOf(uuid);
  }

  /** Has an account closed wherever it is open; for removal. */
  closeEverywhere(uuid: AccountUuid, text: string): Promise<void> {
    return this.#closings.everywhere(uuid, text);
  }

  /** On the Controller: a dead member is forgotten by all. One that cannot be told goes on listing it as dead. */
  forget(member: MemberName): void {
    this.membership.forget(member);
    for (const view of this.membership.living()) {
      this.#options.link.call(view.address, 'cluster.forget', { member, term: this.term }).catch((error: unknown) => {
        this.#options.log.debug(
          { member: view.address.name, errCode: asPlatformError(error).code },
          'a member was not told whom to forget',
        );
      });
    }
  }

  /** The host to send others to: one that lives and does not drain. */
  #usableHostOf(uuid: AccountUuid, asker: MemberName): MemberAddress | undefined {
    const host = this.#table.hostOf(uuid);
    if (host === undefined || host.member === asker) return undefined;
    if (host.member === this.#options.self.address.name) {
      return isHosting(this.#options.self.state()) ? this.#options.self.address : undefined;
    }
    const view = this.membership.find(host.member);
    return view !== undefined && isHosting(view.state) ? view.address : undefined;
  }

  // ---- the election's driver

  get #holder(): string {
    return `${this.#options.self.address.name}/${this.#options.self.incarnation}`;
  }

  #introduction() {
    return { ...this.#options.self.address, incarnation: this.#options.self.incarnation };
  }

  addressOf(member: MemberName): MemberAddress | undefined {
    return member === this.#options.self.address.name ? this.#options.self.address : this.membership.find(member)?.address;
  }

  #step(event: ElectionEvent): void {
    const { election, effects } = stepElection(this.#election, event, this.#options.leaseMs);
    this.#election = election;
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: ElectionEffect): void {
    const { log } = this.#options;
    switch (effect) {
      case 'take-lease':
        this.#track(this.#takeLease());
        return;
      case 'release-lease':
        this.#options.leases.release(controllerLeaseKey, this.#holder).catch((error: unknown) => {
          log.debug({ err: error }, 'the Controller’s lease could not be given up; it will lapse');
        });
        return;
      case 'claim-term':
        this.#track(this.#claimTerm());
        return;
      case 'collect':
        this.#track(this.#collect(this.#election.term));
        return;
      case 'ask-members':
        this.#track(this.#askMembers());
        return;
      case 'lead':
        this.#setKnown({ address: this.#options.self.address, term: this.term });
        log.info({ term: this.term, openAccounts: this.#table.size }, `this member is Controller for term ${this.term}`);
        this.#track(this.#takeLease());
        for (const view of this.membership.living()) void this.#ping(view);
        this.#options.onLead(this.term);
        return;
      case 'step-down':
        log.warn({ term: this.term }, 'this member is no longer Controller');
        this.#table.clear();
        if (this.#known?.address.name === this.#options.self.address.name) this.#setKnown(undefined);
    }
  }

  // What was begun is waited for at the stop: nothing writes to storage after it.
  #track(work: Promise<void>): void {
    this.#begun.add(work);
    void work.finally(() => this.#begun.delete(work));
  }

  async #takeLease(): Promise<void> {
    const { leases, clock, self, leaseMs } = this.#options;
    const askedAtMs = clock.monotonicMs();
    try {
      const isLeading = this.#election.state === 'leading';
      const value = { ...self.address, term: isLeading ? this.term : undefined };
      // A member that drains leaves the lead to others, if there are any.
      if (!isHosting(self.state()) && this.#election.state === 'backup' && this.membership.living().some((view) => view.state === 'active'))
        return;
      const answer = await leases.take(controllerLeaseKey, this.#holder, value, leaseMs);
      if (!answer.isTaken && (await this.#learnFrom(answer.by))) {
        this.#step({ type: 'lease', isTaken: (await leases.take(controllerLeaseKey, this.#holder, value, leaseMs)).isTaken, askedAtMs });
      } else {
        this.#step({ type: 'lease', isTaken: answer.isTaken, askedAtMs });
      }
    } catch (error) {
      this.#options.log.debug({ err: error }, 'the coordinator did not answer');
    }
  }

  /** Remembers who holds the lease; true when the holder is dead for sure and the lease was ended in its place. */
  async #learnFrom(lease: { readonly holder: string; readonly value: unknown }): Promise<boolean> {
    const value = (lease.value ?? {}) as { name?: unknown; host?: unknown; port?: unknown; term?: unknown };
    if (typeof value.name !== 'string' || typeof value.host !== 'string' || typeof value.port !== 'number') return false;
    const name = value.name as MemberName;
    const incarnation = lease.holder.slice(lease.holder.lastIndexOf('/') + 1);
    const view = this.membership.find(name);
    const isFormerSelf = name === this.#options.self.address.name && incarnation !== this.#options.self.incarnation;
    if (isFormerSelf || (view !== undefined && (view.state === 'dead' || view.incarnation !== incarnation))) {
      await this.#options.leases.release(controllerLeaseKey, lease.holder);
      return true;
    }
    if (typeof value.term === 'number') this.#learn({ name, host: value.host, port: value.port }, value.term);
    return false;
  }

  #learn(address: MemberAddress, term: number): void {
    if (term < this.term) return;
    this.#step({ type: 'term-seen', term });
    if (this.#known?.address.name !== address.name || this.#known.term !== term) {
      this.#options.log.info({ term, controller: address.name }, `${address.name} is Controller for term ${term}`);
    }
    this.#setKnown({ address, term });
  }

  async #claimTerm(): Promise<void> {
    const { store, self, log } = this.#options;
    try {
      const term = Math.max(await store.highestTerm(), this.term) + 1;
      const isMine = await store.claimTerm(term, { member: self.address.name, incarnation: self.incarnation });
      this.#step({ type: 'claim', isMine, term });
    } catch (error) {
      log.error({ err: error }, `storage refuses this member a term: ${messageOf(error)}`);
      this.#step({ type: 'claim-failed' });
    }
  }

  async #collect(term: number): Promise<void> {
    this.#table.clear();
    await collectOpenAccounts({
      ...this.#options,
      membership: this.membership,
      term,
      isCurrent: () => this.#election.state === 'collecting' && this.term === term && !this.#isStopped,
      ping: (view) => this.#ping(view),
      put: (report) => this.#put(report),
    });
    this.#step({ type: 'collected', term });
  }

  // What it has open was given up when it was taken for dead, and others may have opened it since. It has to be told: sessions that only
  // read would go on with what was true then.
  #memberBack(view: MemberView): void {
    const { term } = this;
    const collect = async (): Promise<void> => {
      while (this.#isActing && this.term === term && !this.#isStopped) {
        const current = this.membership.find(view.address.name);
        if (current === undefined || current.state === 'dead' || current.incarnation !== view.incarnation) return;
        if (await collectFrom(current, { ...this.#options, term, put: (report) => this.#put(report) })) return;
        await sleep(this.#options.clock, this.#options.heartbeatMs);
      }
    };
    this.#track(collect());
  }

  #put(report: OpenReport): void {
    this.#closings.supersede(this.#table.opened(report, this.#options.clock.monotonicMs()));
  }

  async #askMembers(): Promise<void> {
    const term = this.term;
    const askedAtMs = this.#options.clock.monotonicMs();
    const answers = await Promise.all(this.membership.living().map((view) => this.#ping(view)));
    if (answers.every((isObeyed) => isObeyed)) this.#step({ type: 'acknowledged', term, askedAtMs });
  }

  /** True when the member answered and accepts this member's term. */
  async #ping(view: MemberView): Promise<boolean> {
    const isActing = this.#isActing;
    const term = this.term;
    const message = {
      term: isActing ? term : 0,
      from: this.#introduction(),
      ...(isActing ? { controller: this.#options.self.address } : {}),
      // Before it leads, it has not heard from all.
      ...(this.#election.state === 'leading' ? { duties: this.duties.runners, settings: this.#options.settings.current.version } : {}),
    };
    let accepted = 0;
    const hasAnswered = await this.membership.ping(view, message, (answer) => {
      accepted = Number(answer.term) || 0;
    });
    if (accepted > this.term) this.#step({ type: 'term-seen', term: accepted });
    return hasAnswered && accepted === term;
  }

  #onPing(term: number, params: Record<string, unknown>): object {
    const { self } = this.#options;
    const controller = params.controller as Partial<MemberAddress> | undefined;
    if (typeof controller?.name === 'string' && typeof controller.host === 'string' && typeof controller.port === 'number') {
      this.#learn({ name: controller.name as MemberName, host: controller.host, port: controller.port }, term);
      const runners = readRunners(params.duties);
      if (runners !== undefined && term === this.term) this.duties.learn(runners);
      this.#options.settings.learn(Number(params.settings) || 0).catch((error: unknown) => {
        this.#options.log.warn({ err: error }, `the cluster’s settings cannot be read; what was read last goes on: ${messageOf(error)}`);
      });
    }
    return {
      term: this.term,
      incarnation: self.incarnation,
      state: self.state(),
      openAccounts: self.openAccounts(),
      sessions: self.sessions(),
      duties: this.duties.settings,
    };
  }

  // A new Controller hears from all before it says anything else than the one before it.
  #distributeDuties(): void {
    const { self, duties } = this.#options;
    const members = [{ name: self.address.name, state: self.state() as string, duties }];
    for (const view of this.membership.living()) {
      if (view.duties === undefined) return;
      members.push({ name: view.address.name, state: view.state, duties: view.duties });
    }
    this.duties.learn(collectRunners(members));
  }

  #accept(term: number): void {
    if (term < this.term) {
      throw new PlatformError('CLUSTER_STALE_TERM', `a message of term ${term} came, and term ${this.term} is accepted here`);
    }
    this.#step({ type: 'term-seen', term });
  }

  #memberGone(member: MemberName, living: string | undefined, gone: string): void {
    const count = this.#table.memberGone(member, living);
    if (count > 0) {
      this.#takeovers.add({}, count);
      this.#options.log.warn({ member, openAccounts: count }, `${count} accounts of ${member} may be opened by other members now`);
    }
    if (this.#known?.address.name === member) {
      this.#setKnown(undefined);
      // Its lease need not lapse first: who is to try next is decided at once.
      this.#track(
        this.#options.leases.release(controllerLeaseKey, `${member}/${gone}`).then(
          () => this.beat(),
          (error: unknown) =>
            this.#options.log.debug({ err: error }, 'the lease of the Controller that is gone could not be ended; it will lapse'),
        ),
      );
    }
  }
}

/** Whether what is open there stays there. */
function isHosting(state: MemberView['state']): boolean {
  return state === 'active' || state === 'cordoned';
}

function uuidOf(params: Record<string, unknown>): AccountUuid {
  const uuid = typeof params.uuid === 'string' ? tryParseAccountUuid(params.uuid) : undefined;
  if (uuid === undefined) throw new PlatformError('LINK_PROTOCOL', 'a call names no account');
  return uuid;
}
