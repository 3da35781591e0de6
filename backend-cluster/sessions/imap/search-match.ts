/**
 * Decides whether a message matches a SEARCH program. The program is compiled once: sequence sets are resolved, and of several conditions
 * the cheap ones are asked first, so that a message is read only when index and summary cannot decide. Answers are plain booleans while
 * nothing has to be read, and promises from then on.
 */

import type { MessageInfo } from '#backend-cluster/mailboxes/open-account.ts';
import { dayOf, sentDay } from '#protocol/imap/dates.ts';
import type { SearchKey } from '#protocol/imap/search-grammar.ts';
import { contains, resolveSet } from '#protocol/imap/sequence-set.ts';
import type { EnvelopeAddress } from '#protocol/mime/address.ts';
import type { Envelope } from '#protocol/mime/part.ts';
import { decodeHeaderText } from '#protocol/mime/text.ts';
import type { MessageContent } from './message-content.ts';
import { fold, type SearchedText } from './searched-text.ts';
import type { SelectedMailbox } from './selected.ts';

/** A message that is looked at. */
export interface Candidate {
  readonly sequence: number;
  readonly info: MessageInfo;
  readonly content: MessageContent;
  readonly text: SearchedText;
}

/** A compiled program. */
export type Matcher = (candidate: Candidate) => boolean | Promise<boolean>;

interface Facts {
  readonly selected: SelectedMailbox;
  readonly nowMs: number;
}

/** Compiles a program for the mailbox as the client knows it. */
export function compileSearch(key: SearchKey, facts: Facts): Matcher {
  switch (key.kind) {
    case 'all':
      return () => true;
    case 'none':
      return () => false;
    case 'and':
      return every(key.keys.toSorted((a, b) => costOf(a) - costOf(b)).map((each) => compileSearch(each, facts)));
    case 'or': {
      const none = every(key.keys.toSorted((a, b) => costOf(a) - costOf(b)).map((each) => negate(compileSearch(each, facts))));
      return negate(none);
    }
    case 'not':
      return negate(compileSearch(key.key, facts));
    case 'flag': {
      const flag = key.flag.toLowerCase();
      return ({ info }) => info.flags.some((each) => each.toLowerCase() === flag) === key.isSet;
    }
    case 'sequence':
    case 'uid': {
      const isUid = key.kind === 'uid';
      const ranges = resolveSet(key.set, facts.selected.highest(isUid));
      return ({ sequence, info }) => contains(ranges, isUid ? info.uid : sequence);
    }
    case 'larger':
      return ({ info }) => info.sizeBytes > key.bytes;
    case 'smaller':
      return ({ info }) => info.sizeBytes < key.bytes;
    case 'older':
      return ({ info }) => info.internalDateMs <= facts.nowMs - key.seconds * 1000;
    case 'younger':
      return ({ info }) => info.internalDateMs >= facts.nowMs - key.seconds * 1000;
    case 'internal':
      return ({ info }) => compareDay(dayOf(info.internalDateMs), key.test, key.day);
    case 'modseq':
      return ({ info }) => info.modseq >= key.value;
    case 'emailid':
      return ({ info }) => info.emailId === key.id;
    case 'sent':
      return async ({ content }) => {
        const day = sentDay((await content.structure()).envelope?.date ?? null);
        return day !== undefined && compareDay(day, key.test, key.day);
      };
    case 'header':
      return headerMatcher(key.name, key.text);
    case 'body':
      return ({ text }) => text.bodyHas(key.text);
    case 'text':
      return async ({ text }) => (await text.headerHas(undefined, key.text)) || (await text.bodyHas(key.text));
  }
}

function costOf(key: SearchKey): number {
  switch (key.kind) {
    case 'and':
    case 'or':
      return Math.max(...key.keys.map(costOf));
    case 'not':
      return costOf(key.key);
    case 'sent':
      return 1;
    case 'header':
      return key.name in envelopeFields ? 1 : 2;
    case 'body':
    case 'text':
      return 3;
    default:
      return 0;
  }
}

function every(matchers: readonly Matcher[]): Matcher {
  const from = (candidate: Candidate, index: number): boolean | Promise<boolean> => {
    for (let at = index; at < matchers.length; at += 1) {
      const verdict = (matchers[at] as Matcher)(candidate);
      if (verdict === false) return false;
      if (verdict !== true) return verdict.then((holds) => holds && from(candidate, at + 1));
    }
    return true;
  };
  return (candidate) => from(candidate, 0);
}

function negate(matcher: Matcher): Matcher {
  return (candidate) => {
    const verdict = matcher(candidate);
    return typeof verdict === 'boolean' ? !verdict : verdict.then((holds) => !holds);
  };
}

function compareDay(day: number, test: 'before' | 'on' | 'since', than: number): boolean {
  return test === 'before' ? day < than : test === 'on' ? day === than : day >= than;
}

// Fields that the summary has. Sender and Reply-To are not among them: the envelope fills them in from From.
const envelopeFields: Record<string, (envelope: Envelope) => string | null> = {
  subject: (envelope) => envelope.subject,
  from: (envelope) => addressText(envelope.from),
  to: (envelope) => addressText(envelope.to),
  cc: (envelope) => addressText(envelope.cc),
  bcc: (envelope) => addressText(envelope.bcc),
  'message-id': (envelope) => envelope.messageId,
  'in-reply-to': (envelope) => envelope.inReplyTo,
};

function headerMatcher(name: string, text: string): Matcher {
  const field = Object.hasOwn(envelopeFields, name) ? envelopeFields[name] : undefined;
  if (field === undefined) return (candidate) => candidate.text.headerHas(name, text);
  return async ({ content }) => {
    const { envelope } = await content.structure();
    const value = envelope === null ? null : field(envelope);
    // RFC 9051 §6.4.4: an empty text matches every message that has the field.
    return value !== null && fold(decodeHeaderText(value)).includes(text);
  };
}

function addressText(addresses: readonly EnvelopeAddress[]): string | null {
  if (addresses.length === 0) return null;
  return addresses
    .map(([name, , mailbox, host]) => {
      if (host === null) return mailbox ?? '';
      return `${name === null ? '' : `${name} `}<${mailbox}@${host}>`;
    })
    .join(', ');
}
