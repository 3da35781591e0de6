/**
 * What an operator does to members, and to the cluster as a whole:
 *
 *   cordon      no more accounts are opened here; what is open stays            (a setting: it outlives the process)
 *   drain       as cordon, and what is open is closed, account by account       (until the process ends, or the drain is called off)
 *   weight      share of sessions and accounts                                  (a setting)
 *   rebalance   members with more than their share close some
 *   hand over   another member becomes Controller
 *   remove      a dead member is forgotten
 *
 * Every close is the one of every day: the commit that runs is finished, the sessions are told, the Controller hears of it, and whoever is
 * asked for the account next opens it. So nothing here can lose anything, and all of it may be called off or repeated.
 */
import type { MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { DrainStatus } from '#backend-cluster/client/status.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, type MemberName, parseMemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { MemberView } from './membership.ts';
import { type ClusterSettings, checkChange, type Settings } from './settings.ts';

/** Longest time that a drain may take. */
export const drainMsMax = 24 * 3_600_000;
/** Accounts closed at the same time when nobody uses them. */
const closedAtOnce = 16;
/** Accounts that one member is asked to close in one rebalancing. */
const shedMax = 5_000;
/** Share above its own that a member may have. */
const tolerance = 1.1;
const movedText = 'Server is being relieved, connect again';

/** The accounts that are open on this member. */
export interface OpenHere {
  /** Those that nobody uses first, the longest unused first of them. */
  inOrderOfUse(): readonly { readonly uuid: AccountUuid; readonly users: number }[];
  close(uuid: AccountUuid, text: string): Promise<void>;
}

/** What upkeep works on. */
export interface UpkeepOptions {
  readonly cluster: ClusterName;
  readonly self: MemberName;
  readonly clock: Clock;
  readonly log: Logger;
  readonly settings: ClusterSettings;
  readonly open: OpenHere;
  /** Other members, as known here. */
  members(): readonly MemberView[];
  addressOf(member: MemberName): MemberAddress | undefined;
  call(member: MemberAddress, method: string, params: object): Promise<unknown>;
  /** Asks the Controller to carry out one of `onController`. */
  askController(method: string, params: object): Promise<unknown>;
  /** The settings, or what this member does, have changed: everybody is told now. */
  changed(): void;
  /** Gives up the lead, if this member has it and another one can take it. */
  yieldLead(): void;
  /** Tries for the lead now. */
  takeLead(): Promise<void>;
  forget(member: MemberName): void;
}

/** Calls about one member, which that member answers. */
const onMember = new Set(['members.drain', 'members.drain-abort', 'members.drain-status', 'members.shed', 'members.take-lead']);
/** Calls about the cluster, which the Controller answers. */
const onController = new Set(['members.rebalance', 'members.hand-over', 'members.remove', 'settings.set']);

/** See the header of this file. */
export class Upkeep {
  readonly #options: UpkeepOptions;
  #drain: { status: DrainStatus; readonly abort: AbortController } | undefined;

  constructor(options: UpkeepOptions) {
    this.#options = options;
  }

  /** Whether a call is one of these. */
  knows(method: string): boolean {
    return onMember.has(method) || onController.has(method) || method === 'settings.get';
  }

  get isDraining(): boolean {
    return this.#drain !== undefined && this.#drain.status.state !== 'aborted';
  }

  get drainStatus(): DrainStatus | undefined {
    return this.#drain?.status;
  }

  /** A call of an operator, made to any member. */
  async run(method: string, params: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (method === 'settings.get') {
      await this.#options.settings.refresh();
      return this.#options.settings.current;
    }
    if (onController.has(method)) return this.#options.askController(method, params);
    const member = this.#memberOf(params);
    if (member === this.#options.self) return this.#here(method, params);
    const address = this.#options.addressOf(member);
    if (address === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `${this.#options.cluster} knows no member ${member}`);
    return this.#options.call(address, method, params);
  }

  /** On the Controller. */
  async lead(method: string, params: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (method === 'settings.set') return this.#set(params);
    if (method === 'members.rebalance') return this.#rebalance();
    if (method === 'members.hand-over') return this.#handOver(params);
    return this.#remove(this.#memberOf(params));
  }

  /**
   * Closes everything within `deadlineMs`: at once what nobody uses, and what is in use evenly over the time, so that its clients do not come
   * to the others all at once. Resolves when it is over, also when it was called off.
   */
  async drain(deadlineMs: number, text: string): Promise<void> {
    if (this.isDraining) return;
    const { clock, open, log } = this.#options;
    const abort = new AbortController();
    const accounts = open.inOrderOfUse();
    const drain = {
      status: { state: 'running', accounts: accounts.length, closed: 0, startedAtMs: clock.nowMs(), deadlineMs } as DrainStatus,
      abort,
    };
    this.#drain = drain;
    log.info({ openAccounts: accounts.length, deadlineMs }, 'draining');
    this.#options.yieldLead();
    this.#options.changed();
    const endMs = clock.monotonicMs() + deadlineMs;
    const close = async (uuid: AccountUuid): Promise<void> => {
      await open.close(uuid, text);
      drain.status = { ...drain.status, closed: drain.status.closed + 1 };
    };
    // Openings that were under way appear while it runs, so it looks again until nothing is left.
    for (let left = accounts; left.length > 0 && !abort.signal.aborted; left = open.inOrderOfUse()) {
      drain.status = { ...drain.status, accounts: drain.status.closed + left.length };
      await inParallel(
        left.filter(({ users }) => users === 0),
        ({ uuid }) => (abort.signal.aborted ? Promise.resolve() : close(uuid)),
      );
      const used = left.filter(({ users }) => users > 0);
      const remainingMs = endMs - clock.monotonicMs();
      if (remainingMs <= 0) await inParallel(used, ({ uuid }) => close(uuid));
      for (const [index, { uuid }] of remainingMs <= 0 ? [] : used.entries()) {
        if (abort.signal.aborted) break;
        await close(uuid);
        const waitMs = (endMs - clock.monotonicMs()) / (used.length - index);
        if (index < used.length - 1 && waitMs > 0) await sleep(clock, waitMs, abort.signal);
      }
    }
    drain.status = { ...drain.status, state: abort.signal.aborted ? 'aborted' : 'done' };
    log.info({ accounts: drain.status.closed, outcome: drain.status.state }, 'drain ended');
    this.#options.changed();
  }

  async #here(method: string, params: Readonly<Record<string, unknown>>): Promise<unknown> {
    const { open } = this.#options;
    if (method === 'members.drain') {
      const deadlineMs = Number(params.deadlineMs ?? 0);
      if (!Number.isInteger(deadlineMs) || deadlineMs < 0 || deadlineMs > drainMsMax) {
        throw new PlatformError('ADMIN_BAD_REQUEST', `a drain takes from 0 to ${drainMsMax} ms`);
      }
      void this.drain(deadlineMs, movedText);
    } else if (method === 'members.drain-abort') {
      if (this.#drain === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `${this.#options.self} does not drain`);
      this.#drain.abort.abort();
      this.#drain.status = { ...this.#drain.status, state: 'aborted' };
      this.#options.changed();
    } else if (method === 'members.take-lead') {
      await this.#options.takeLead();
      return {};
    } else if (method === 'members.shed') {
      const count = Math.min(shedMax, Math.max(0, Math.trunc(Number(params.count) || 0)));
      const chosen = open.inOrderOfUse().slice(0, count);
      await inParallel(chosen, ({ uuid }) => open.close(uuid, movedText));
      return { closed: chosen.length };
    }
    return this.#drain?.status ?? { state: 'none', accounts: 0, closed: 0, startedAtMs: 0, deadlineMs: 0 };
  }

  async #set(params: Readonly<Record<string, unknown>>): Promise<Settings> {
    const given = typeof params.change === 'object' && params.change !== null ? params.change : {};
    const settings = await this.#options.settings.change(checkChange(this.#options.cluster, given as Record<string, unknown>));
    this.#options.log.info({ version: settings.version, change: given }, 'settings changed');
    this.#options.changed();
    return settings;
  }

  /** Members above their share close what is too much, what nobody uses first; the next to ask for it finds a less loaded member. */
  async #rebalance(): Promise<{ members: { member: string; openAccounts: number; share: number; closed: number }[] }> {
    const { self, settings, open } = this.#options;
    const own = { member: self, address: undefined, openAccounts: open.inOrderOfUse().length };
    const others = this.#options.members().filter((view) => view.state === 'active');
    const all = [own, ...others.map(({ address, openAccounts }) => ({ member: address.name, address, openAccounts }))].filter(
      ({ member }) => !settings.isCordoned(member),
    );
    const total = all.reduce((sum, { openAccounts }) => sum + openAccounts, 0);
    const weights = all.reduce((sum, { member }) => sum + settings.weightOf(member), 0);
    const members = await Promise.all(
      all.map(async ({ member, address, openAccounts }) => {
        const share = Math.ceil((total * settings.weightOf(member)) / Math.max(1, weights));
        const tooMany = openAccounts > share * tolerance ? openAccounts - share : 0;
        const params = { member, count: tooMany };
        const answer =
          tooMany === 0
            ? { closed: 0 }
            : address === undefined
              ? await this.#here('members.shed', params)
              : await this.#options.call(address, 'members.shed', params);
        return { member, openAccounts, share, closed: (answer as { closed: number }).closed };
      }),
    );
    return { members };
  }

  async #handOver(params: Readonly<Record<string, unknown>>): Promise<{ from: string; to: string }> {
    const { self } = this.#options;
    const active = this.#options.members().filter((view) => view.state === 'active');
    const wanted = params.to === undefined ? undefined : this.#memberOf({ member: params.to });
    if (wanted === self) return { from: self, to: self };
    const to =
      wanted === undefined ? active.sort((a, b) => a.openAccounts - b.openAccounts)[0] : active.find((one) => one.address.name === wanted);
    if (to === undefined) {
      const names = active.map((view) => view.address.name).join(', ');
      throw new PlatformError('ADMIN_BAD_REQUEST', `${wanted ?? 'another member'} cannot lead now; active are: ${names || 'no others'}`);
    }
    this.#options.yieldLead();
    await this.#options.call(to.address, 'members.take-lead', { member: to.address.name });
    return { from: self, to: to.address.name };
  }

  async #remove(member: MemberName): Promise<{ removed: string; settings: number }> {
    const { self, settings } = this.#options;
    const view = this.#options.members().find((one) => one.address.name === member);
    if (member === self || (view !== undefined && view.state !== 'dead')) {
      throw new PlatformError('ADMIN_CONFLICT', `${member} is ${view?.state ?? 'alive'}; drain it, stop it, and remove it then`);
    }
    this.#options.forget(member);
    const own = Object.keys(settings.current.values).filter((name) => name.startsWith(`member.${member}.`));
    if (own.length > 0) await settings.change(Object.fromEntries(own.map((name) => [name, null])));
    this.#options.changed();
    return { removed: member, settings: own.length };
  }

  #memberOf(params: Readonly<Record<string, unknown>>): MemberName {
    try {
      return parseMemberName(String(params.member));
    } catch (cause) {
      throw new PlatformError('ADMIN_BAD_REQUEST', `"${String(params.member).slice(0, 100)}" is no name of a member`, { cause });
    }
  }
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items].reverse();
  const worker = async (): Promise<void> => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(closedAtOnce, left.length) }, worker));
}
