/**
 * What a command handler is, and what it is given. A handler reads its arguments, does its work through `OpenAccount`, sends untagged
 * responses, and returns the tagged one; the session (server.ts) sends the updates that may go out then, and the tagged line.
 */
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { Clock } from '#common/clock.ts';
import type { CommandReader } from '#protocol/imap/reader.ts';
import type { MessageContent } from './message-content.ts';
import type { ImapOutput } from './output.ts';
import type { SelectedMailbox } from './selected.ts';

/** The tagged answer. */
export interface TaggedReply {
  readonly status: 'OK' | 'NO' | 'BAD';
  /** Response code without its brackets. */
  readonly code?: string;
  readonly text: string;
}

/** The state of a session that commands share. */
export interface ImapSession {
  readonly account: OpenAccount;
  readonly clock: Clock;
  readonly out: ImapOutput;
  selected: SelectedMailbox | undefined;
  /** The client knows mod-sequences (RFC 7162 §3.1): FETCH responses carry them. */
  isCondstore: boolean;
  /** The message that was fetched last, for a client that reads it piece by piece; only between FETCH commands. */
  lastContent: MessageContent | undefined;
  /** The session is about to go on at another member; the end of input is not the client's. */
  readonly isMoving: boolean;
  /** LOGOUT was given: the session ends after its tagged reply. */
  isLoggingOut: boolean;
  /** Sends what happened in the selected mailbox since the client was last told (RFC 9051 §7). */
  sync(mayExpunge: boolean): Promise<void>;
  /** IDLE only: the next raw line if it is there. */
  nextLine(): Buffer | undefined;
  /** IDLE only: resolves when bytes came, the account changed or the client hung up. False when no more input will come. */
  wait(): Promise<boolean>;
}

/** How a command was called. */
export interface Call {
  readonly tag: string;
  /** `UID FETCH` and the like: numbers are UIDs. */
  readonly isUid: boolean;
}

/** One command. */
export interface Command {
  /** Needs a selected mailbox. */
  readonly inSelected?: true;
  /** RFC 9051 §7.5.1: while answering FETCH, STORE and SEARCH by sequence number no EXPUNGE may be sent. */
  readonly holdsExpunge?: true;
  run(session: ImapSession, reader: CommandReader, call: Call): Promise<TaggedReply> | TaggedReply;
}

/** `OK` with its text. */
export function ok(text: string, code?: string): TaggedReply {
  return code === undefined ? { status: 'OK', text } : { status: 'OK', code, text };
}

/** `NO` with its response code (RFC 5530). */
export function no(code: string | undefined, text: string): TaggedReply {
  return code === undefined ? { status: 'NO', text } : { status: 'NO', code, text };
}

/** The selected mailbox, for commands that are only run with one. */
export function selectedOf(session: ImapSession): SelectedMailbox {
  if (session.selected === undefined) throw new Error('command was run without a selected mailbox');
  return session.selected;
}
