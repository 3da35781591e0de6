/**
 * A queued message on disk: one line of JSON, then the message. Written once; what becomes of its recipients is kept beside it (spool.ts).
 */
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';

/** Someone a message is for. */
export interface QueuedRecipient {
  /** As accepted in RCPT. */
  readonly address: string;
  /** Account that the address belonged to then: a rename on the way changes nothing. `undefined`: not of this installation. */
  readonly uuid: AccountUuid | undefined;
}

/** What is known of a message apart from its text. */
export interface Envelope {
  readonly id: string;
  /** Empty for bounces. */
  readonly sender: string;
  readonly recipients: readonly QueuedRecipient[];
  /** This frontend's wall clock. */
  readonly acceptedAtMs: number;
  /** Of the session that brought it; on every log line about it. */
  readonly sessionId: string;
  /** Octets of the text. */
  readonly rawBytes: number;
}

const version = 1;

/** The line, with its line feed. */
export function encodeEnvelope(envelope: Envelope): Buffer {
  return Buffer.from(`${JSON.stringify({ version, ...envelope })}\n`);
}

/** The envelope at the start of a file and where the text begins; `undefined` when there is none or it is damaged. */
export function decodeEnvelope(bytes: Buffer): { readonly envelope: Envelope; readonly textStart: number } | undefined {
  const end = bytes.indexOf(0x0a);
  if (end < 0) return undefined;
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8', 0, end));
    const envelope = envelopeOf(value);
    return envelope === undefined ? undefined : { envelope, textStart: end + 1 };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function envelopeOf(value: unknown): Envelope | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = value as Record<string, unknown>;
  const { id, sender, acceptedAtMs, sessionId, rawBytes } = fields;
  if (fields.version !== version || typeof id !== 'string' || typeof sender !== 'string' || typeof sessionId !== 'string') return undefined;
  if (typeof acceptedAtMs !== 'number' || typeof rawBytes !== 'number' || !Array.isArray(fields.recipients)) return undefined;
  const recipients: QueuedRecipient[] = [];
  for (const entry of fields.recipients as { address?: unknown; uuid?: unknown }[]) {
    if (typeof entry?.address !== 'string') return undefined;
    recipients.push({ address: entry.address, uuid: typeof entry.uuid === 'string' ? tryParseAccountUuid(entry.uuid) : undefined });
  }
  return { id, sender, recipients, acceptedAtMs, sessionId, rawBytes };
}
