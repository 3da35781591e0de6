/**
 * The Controller's table: which member is the current host of which account. Pure; times are told.
 *
 * It is the fast copy of what the accounts' logs say, and it may be wrong: a member that opens an account by a mistaken grant revokes the
 * former host in storage, and the former host finds itself deposed. So every step here aims at being right soon, none has to be.
 */
import type { AccountUuid } from '#common/account-name.ts';
import type { MemberName } from '#common/host-server.ts';

/** One start of a member's process. */
export interface MemberId {
  readonly member: MemberName;
  readonly incarnation: string;
}

/** An account that a member reports as open. */
export interface OpenReport extends MemberId {
  readonly uuid: AccountUuid;
  readonly epoch: number;
}

/** Answer to a request to open. */
export type Grant = { readonly outcome: 'grant' } | { readonly outcome: 'at'; readonly host: MemberId };

interface Entry extends MemberId {
  /** `undefined` while granted and not yet reported open. */
  readonly epoch: number | undefined;
  readonly grantedAtMs: number;
}

/** Time that a member has to open what it was granted before somebody else may try. */
export const grantMs = 15_000;

/** See the header of this file. */
export class OpenAccounts {
  readonly #entries = new Map<AccountUuid, Entry>();

  get size(): number {
    return this.#entries.size;
  }

  /** Who may open: the asking member, unless another one has the account open or is about to. */
  request(uuid: AccountUuid, by: MemberId, nowMs: number): Grant {
    const entry = this.#entries.get(uuid);
    const isFree =
      entry === undefined ||
      // The same member asks again: it has closed the account or has restarted since.
      entry.member === by.member ||
      (entry.epoch === undefined && nowMs - entry.grantedAtMs >= grantMs);
    if (!isFree) return { outcome: 'at', host: { member: entry.member, incarnation: entry.incarnation } };
    this.#entries.set(uuid, { ...by, epoch: undefined, grantedAtMs: nowMs });
    return { outcome: 'grant' };
  }

  /**
   * Takes a report of an open account. The higher epoch is right: storage gave it out. Returns the host whose opening is thereby known
   * to be over, if any.
   */
  opened(report: OpenReport, nowMs: number): OpenReport | undefined {
    const { uuid, member, incarnation, epoch } = report;
    const entry = this.#entries.get(uuid);
    if (entry?.epoch !== undefined && entry.epoch > epoch) return report;
    this.#entries.set(uuid, { member, incarnation, epoch, grantedAtMs: nowMs });
    if (entry?.epoch === undefined || (entry.member === member && entry.incarnation === incarnation)) return undefined;
    return { uuid, member: entry.member, incarnation: entry.incarnation, epoch: entry.epoch };
  }

  /** The account was closed. Ignored unless it is about the opening in the table; without an epoch, about a grant that came to nothing. */
  closed(uuid: AccountUuid, by: MemberId, epoch: number | undefined): void {
    const entry = this.#entries.get(uuid);
    if (entry === undefined || entry.member !== by.member || entry.incarnation !== by.incarnation) return;
    if (entry.epoch === epoch) this.#entries.delete(uuid);
  }

  /** A member is gone: its accounts may be opened by others. `except` is the incarnation that lives. Returns how many there were. */
  memberGone(member: MemberName, except?: string): number {
    let count = 0;
    for (const [uuid, entry] of this.#entries) {
      if (entry.member !== member || entry.incarnation === except) continue;
      this.#entries.delete(uuid);
      count += 1;
    }
    return count;
  }

  hostOf(uuid: AccountUuid): (MemberId & { readonly epoch: number | undefined }) | undefined {
    return this.#entries.get(uuid);
  }

  /** A new term begins with nothing but what members report. */
  clear(): void {
    this.#entries.clear();
  }
}
