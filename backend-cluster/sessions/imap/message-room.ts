/**
 * Memory for messages that clients are sending by APPEND, counted as it fills: one account may use so much of it, all accounts of a member
 * so much together. A message that does not fit is refused when it is announced; a client whose octets find no room any more is cut.
 */
import type { AccountUuid } from '#common/account-name.ts';

/** Octets of one account; more than two of the largest messages. */
export const accountRoomBytes = 128 * 1024 * 1024;
/** Octets of all accounts that a member serves. */
export const memberRoomBytes = 384 * 1024 * 1024;

/** See the header of this file. One per member. */
export class MessageRoom {
  readonly #ofAccount = new Map<AccountUuid, number>();
  #total = 0;

  /** Whether so many more octets would fit now. */
  hasRoom(account: AccountUuid, bytes: number): boolean {
    return this.#total + bytes <= memberRoomBytes && (this.#ofAccount.get(account) ?? 0) + bytes <= accountRoomBytes;
  }

  /** A session's share, empty. */
  share(account: AccountUuid): RoomShare {
    let held = 0;
    return {
      hold: (bytes) => {
        const more = bytes - held;
        if (more > 0 && !this.hasRoom(account, more)) return false;
        held = bytes;
        this.#total += more;
        const left = (this.#ofAccount.get(account) ?? 0) + more;
        if (left === 0) this.#ofAccount.delete(account);
        else this.#ofAccount.set(account, left);
        return true;
      },
    };
  }
}

/** What one session holds. */
export interface RoomShare {
  /** Sets how much it holds; false, and nothing is changed, when that does not fit. Less always fits. */
  hold(bytes: number): boolean;
}
