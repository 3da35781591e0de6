/**
 * Who is the master, who writes a replica, and how that is agreed on: the extended operation by which our servers are asked and told, the
 * control that a replicator's writes carry, and the attribute of the root DSE by which anybody finds the master.
 *
 *   term   counts the masters an installation has had; a promotion raises it, and a server never goes back to a lower one
 *   lease  says which replication service writes a replica; taking it over raises its number
 *
 * A write that carries a lower number than the server has stored is refused: whoever sent it was replaced and has not noticed.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { type Control, textOf, textsOf } from '#protocol/ldap/messages.ts';

const arc = '2.25.11233386167282336856843219451289651251';

/** OID of the operation; the value is an `AuthorityRequest` as JSON, the answer's an `AuthorityAnswer`. For admin and replicator. */
export const authorityOid = `${arc}.3.10`;
/** OID of the control on a replicator's writes: `<term>.<lease number>`. */
export const fenceOid = `${arc}.5.10`;
/** OID of the control on a search or compare that is answered once the server holds everything up to a CSN: `CSN` or `CSN,milliseconds`. */
export const asOfOid = `${arc}.5.11`;
/** OID of the control on a write that a replica sends on for somebody: whoever gets it does not send it on again. */
export const forwardedOid = `${arc}.5.12`;
/** Attribute of the root DSE: `master 3`, or `replica 3 ldap://where.the.master.is`. */
export const roleAttribute = 'directoryRole';

/** What may be asked. */
export type AuthorityRequest =
  /** Answers only. */
  | { readonly op: 'look' }
  /** Stores named values (`null` removes), if those in `expect` are as given. */
  | { readonly op: 'keep'; readonly set: Record<string, string | null>; readonly expect?: Record<string, string | null> }
  /** Master: takes no writes for so long, or until told otherwise. Refused as `busy` while it is frozen: somebody else is at it. */
  | { readonly op: 'freeze'; readonly seconds: number }
  | { readonly op: 'thaw' }
  /**
   * Replica: becomes the master of that term, if it holds everything up to `csn`. With `claimed`, the URL under which the others were told of the
   * term before as this one's, only where nobody told it of another master in that term: of two who promote at once at most one gets through.
   */
  | { readonly op: 'promote'; readonly term: number; readonly csn?: string; readonly claimed?: string }
  /**
   * Another server is master in that term; a master that hears of a later term becomes its replica. With `handsOver` only a frozen master
   * that is still at that CSN does: whoever asks was not overtaken since it froze it.
   */
  | { readonly op: 'follow'; readonly term: number; readonly master: string; readonly handsOver?: string };

/** What is answered to each of them. */
export interface AuthorityAnswer {
  readonly mode: 'master' | 'replica';
  readonly term: number;
  /** Where the master is; `undefined` on the master, and where nobody said. */
  readonly master?: string;
  readonly contextCsn: string;
  readonly changeNumber: number;
  readonly isFrozen: boolean;
  /** Whether it holds a directory as a whole, and not the beginning of a first load; servers of earlier versions do not say. */
  readonly isFilled?: boolean;
  /** Values kept by `keep`. */
  readonly kept: Readonly<Record<string, string>>;
  /** `keep`: false when a value was not as expected, and nothing was stored. */
  readonly isDone: boolean;
}

/** What the root DSE says. */
export interface DirectoryRole {
  readonly mode: 'master' | 'replica';
  readonly term: number;
  readonly master: string | undefined;
}

/** Asks or tells one of our servers. */
export async function askAuthority(connection: LdapConnection, request: AuthorityRequest): Promise<AuthorityAnswer> {
  const { value } = await connection.extended(authorityOid, Buffer.from(JSON.stringify(request)));
  try {
    return JSON.parse(value?.toString('utf8') ?? '') as AuthorityAnswer;
  } catch (error) {
    throw new PlatformError('PROTO_SYNTAX', `${connection.url} answers something else than its role: ${messageOf(error)}`);
  }
}

/** What a server says of itself to everybody; `undefined` for a server that is not ours. */
export async function readRole(connection: LdapConnection): Promise<DirectoryRole | undefined> {
  const root = await connection.readEntry('', [roleAttribute]);
  return root === undefined ? undefined : parseRole(textOf(root.attributes, roleAttribute));
}

/** Rejects with `DIR_NO_MASTER` when a server says to be a replica: what was read there before, for the master's state, may be an older one. */
export async function requireMaster(connection: LdapConnection): Promise<void> {
  if ((await readRole(connection))?.mode !== 'replica') return;
  throw new PlatformError('DIR_NO_MASTER', `${connection.url} is not the master any more`);
}

/** Whether a server understands the operation and the control of this file. */
export async function hasAuthority(connection: LdapConnection): Promise<boolean> {
  const root = await connection.readEntry('', ['supportedExtension']);
  return root !== undefined && textsOf(root.attributes, 'supportedExtension').includes(authorityOid);
}

/** Writes and reads the attribute of the root DSE. */
export function roleText(role: DirectoryRole): string {
  return [role.mode, role.term, role.mode === 'master' ? undefined : role.master].filter((part) => part !== undefined).join(' ');
}

export function parseRole(text: string | undefined): DirectoryRole | undefined {
  const match = /^(master|replica) (\d{1,15})(?: (\S+))?$/.exec(text ?? '');
  return match === null ? undefined : { mode: match[1] as DirectoryRole['mode'], term: Number(match[2]), master: match[3] };
}

/** The control of a replicator's write. */
export function makeFence(term: number, lease: number): Control {
  return { oid: fenceOid, critical: false, value: Buffer.from(`${term}.${lease}`) };
}

export function readFence(value: Buffer | undefined): { readonly term: number; readonly lease: number } | undefined {
  const match = /^(\d{1,15})\.(\d{1,15})$/.exec(value?.toString('latin1') ?? '');
  return match === null ? undefined : { term: Number(match[1]), lease: Number(match[2]) };
}
