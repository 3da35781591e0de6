/**
 * A new Controller's first act: it asks every member which accounts are open there, and has its table from the answers. Nothing that the
 * Controller before it knew is needed, and nothing that the coordinator remembers.
 */
import type { LinkClient } from '#backend-cluster/client/cluster-client.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { MemberSelf, Membership, MemberView } from './membership.ts';
import type { OpenReport } from './open-accounts.ts';

/** Open accounts in one answer to the Controller. */
export const reportPageMax = 5_000;

/** The accounts open on this member, as the Controller asks for them. */
export interface LocalAccounts {
  /** In order of UUID, after `after`; at most `limit`. */
  openReports(after: string, limit: number): readonly { readonly uuid: AccountUuid; readonly epoch: number }[];
  /** Closes an account that another member has, or that was removed; `text` is for its sessions. */
  close(uuid: AccountUuid, text: string): Promise<void>;
}

/** What collecting needs. */
export interface Collecting {
  readonly self: MemberSelf;
  readonly local: LocalAccounts;
  readonly membership: Membership;
  readonly link: LinkClient;
  readonly clock: Clock;
  readonly log: Logger;
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  readonly term: number;
  /** False once the term is over, or another step of it has begun. */
  isCurrent(): boolean;
  /** Asks a member directly whether it lives, and says who is Controller. */
  ping(view: MemberView): Promise<unknown>;
  /** An account that a member has open. */
  put(report: OpenReport): void;
}

/** Asks all. A silent member may have accounts open; it is waited for until it counts as dead, which takes a lease at most. */
export async function collectOpenAccounts(collecting: Collecting): Promise<void> {
  const { self, local, membership, clock, heartbeatMs, leaseMs } = collecting;
  const endMs = clock.monotonicMs() + leaseMs;
  for (let after = ''; ; ) {
    const page = local.openReports(after, reportPageMax);
    for (const report of page) collecting.put({ ...report, member: self.address.name, incarnation: self.incarnation });
    const last = page.at(-1);
    if (last === undefined || page.length < reportPageMax) break;
    after = last.uuid;
  }
  let isDone = false;
  // A question that is still out when all is decided, because its member is dead, changes nothing any more.
  const put = (report: OpenReport): void => {
    if (!isDone) collecting.put(report);
  };
  const ask = async (view: MemberView): Promise<boolean> => {
    if (await collectFrom(view, { ...collecting, put })) return true;
    await collecting.ping(view);
    return false;
  };
  await Promise.all(
    membership.living().map(async (view) => {
      let asking: Promise<boolean> | undefined;
      while (clock.monotonicMs() < endMs && collecting.isCurrent()) {
        membership.buryLapsed();
        const current = membership.find(view.address.name);
        if (current === undefined || current.state === 'dead') return;
        // Dialling a stopped process takes seconds; that it is dead may be known before.
        const pause = sleep(clock, Math.min(heartbeatMs, 250)).then(() => false);
        asking ??= ask(current).finally(() => {
          asking = undefined;
        });
        if (await Promise.race([asking, pause])) return;
        await pause;
      }
    }),
  );
  isDone = true;
}

/** Asks one member for all it has open; false when it did not answer. */
export async function collectFrom(
  view: MemberView,
  { link, log, term, put }: Pick<Collecting, 'link' | 'log' | 'term' | 'put'>,
): Promise<boolean> {
  try {
    for (let after = ''; ; ) {
      const page = (await link.call(view.address, 'cluster.open-accounts', { term, after }, 2_000)) as OpenReport[];
      for (const { uuid, epoch } of page) put({ uuid, epoch, member: view.address.name, incarnation: view.incarnation });
      const last = page.at(-1);
      if (last === undefined || page.length < reportPageMax) return true;
      after = last.uuid;
    }
  } catch (error) {
    log.debug({ member: view.address.name, errCode: asPlatformError(error).code }, 'a member did not report its open accounts');
    return false;
  }
}
