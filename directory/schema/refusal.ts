/**
 * A refusal: the answer to a request that asks for what may not be. It travels as an exception from wherever the rule is checked to the one
 * place that answers (server/session.ts); the client gets its text, so it says what was wrong and what would be right.
 */
import type { Control } from '#protocol/ldap/messages.ts';
import { type ResultName, resultCodes } from '#protocol/ldap/result-codes.ts';

/** See the header of this file. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly resultCode: number;
  /** Nearest existing entry, with noSuchObject (RFC 4511 §4.1.9). */
  readonly matchedDn: string;
  readonly referrals: readonly string[] | undefined;
  /** Response controls that go with the answer. */
  readonly controls: readonly Control[];

  constructor(
    result: ResultName,
    message: string,
    options: { matchedDn?: string; referrals?: readonly string[]; controls?: readonly Control[] } = {},
  ) {
    super(message);
    this.resultCode = resultCodes[result];
    this.matchedDn = options.matchedDn ?? '';
    this.referrals = options.referrals;
    this.controls = options.controls ?? [];
  }
}
