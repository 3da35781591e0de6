/**
 * APPEND (RFC 9051 §6.3.12) with several messages (RFC 3502). The beginning is read as well when a literal is announced, so that a message
 * for a mailbox that does not exist is refused before it is sent.
 */
import { parseDateTime } from './dates.ts';
import { type CommandReader, syntaxError } from './reader.ts';

/** One message of an APPEND. */
export interface AppendItem {
  readonly flags: readonly string[];
  readonly internalDateMs: number | undefined;
  readonly raw: Buffer;
}

/** Messages in one APPEND. */
export const appendMessagesMax = 100;

/** Reads what follows `APPEND mailbox`: one or more messages. */
export function parseAppendItems(reader: CommandReader): readonly AppendItem[] {
  const items: AppendItem[] = [];
  do {
    reader.space();
    let flags: readonly string[] = [];
    let internalDateMs: number | undefined;
    if (reader.nextIs('(')) {
      flags = reader.flags();
      reader.space();
    }
    if (reader.nextIs('"')) {
      internalDateMs = parseDateTime(reader.string().toString('latin1'));
      reader.space();
    }
    // RFC 9051 §9 append-data: a message is a literal, never a quoted string.
    if (!reader.isAtLiteral) throw syntaxError('Expected a message literal');
    items.push({ flags, internalDateMs, raw: reader.string() });
    if (items.length > appendMessagesMax) throw syntaxError(`APPEND has more than ${appendMessagesMax} messages`);
  } while (!reader.isAtEnd && reader.nextIs(' '));
  reader.end();
  return items;
}
