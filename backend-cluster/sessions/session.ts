/**
 * What a protocol server on a member is: given a connection (a channel of the link, or any other) whose client is already authenticated,
 * and the open account, it speaks its protocol until one side ends it.
 */

import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { AccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Connection } from '#common/network/network.ts';
import type { Random } from '#common/random.ts';

/** Everything a session is given. */
export interface SessionContext {
  readonly sessionId: string;
  readonly account: OpenAccount;
  /** To be waited for before a command that reads, when there is something to wait for; rejects when the account is not known to be fresh. */
  refresh(): Promise<void> | undefined;
  /** The account's name now; follows a rename while the session is open. */
  accountName(): AccountName;
  readonly clientAddress: string;
  /** State of the session at the member that handed it over, as its `moveAway` gave it. */
  readonly resume?: unknown;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** A session that is being served. */
export interface RunningSession {
  /** Ends it in the protocol's own words (`* BYE [UNAVAILABLE] ...`) and closes the connection. `text` is for the user. */
  bye(text: string): void;
  /**
   * Comes to rest between two commands, once the peer has ended its side, and gives the state from which another member goes on; the session has
   * then ended without a word. `undefined`: it ended in another way, or cannot be moved where it stands. Missing where the protocol cannot.
   */
  moveAway?(): Promise<object | undefined>;
  /** For the log line at the end: how many commands, and why it ended. */
  summary(): { readonly commands: number; readonly outcome: string };
}

/** Starts serving. The connection's greeting or login answer has already been sent by the frontend; `ended` is called exactly once. */
export type SessionServer = (connection: Connection, context: SessionContext, ended: () => void) => RunningSession;
