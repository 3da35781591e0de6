/**
 * What an operation sees of the connection it came by.
 */
import type { Control, LdapResponse, SearchResultEntry } from '#protocol/ldap/messages.ts';
import type { Requester } from '../access/access.ts';
import type { View } from '../access/view.ts';

/** One running operation: where it answers, who asked, and when to give up. */
export interface Operation {
  readonly id: number;
  readonly who: Requester;
  /** What `who` may do, by the rules in force when this is asked. */
  readonly view: View;
  /** Who is bound, when `who` is another by proxied authorization (RFC 4370). */
  readonly onBehalfBy?: string;
  readonly controls: readonly Control[];
  readonly remoteAddress: string;
  readonly isTls: boolean;
  /** Strength of TLS in bits, 0 without. */
  readonly tlsSsf: number;
  /** Whether nobody else can read along: TLS, a loopback address or a Unix socket. */
  readonly isProtected: boolean;
  /** Names in the verified certificate of the client; empty without one. */
  readonly peerNames: readonly string[];
  /** Whether it was abandoned or its connection is gone. */
  readonly isAborted: boolean;
  /** The same as a signal, for those who wait. */
  readonly signal: AbortSignal;
  /** Queues an answer; answers of one turn leave in one write. */
  send(response: LdapResponse | SearchResultEntry, controls?: readonly Control[]): void;
  /** The same for answers that are encoded already; the octets must stay as they are. */
  sendEncoded(octets: Buffer): void;
  /** What was sent leaves at once: somebody waits for it, and nothing will be added in this turn. */
  flush(): void;
  /** `undefined` while the client takes what is sent; else resolves when it does again, or when the operation is aborted. */
  writable(): Promise<void> | undefined;
}
