/**
 * The one error class of the platform. A `code` names the event (docs/reference/errors.md lists all of them), a `kind` decides what a
 * peer is told (errors/wire.ts holds one table per protocol), `retry` says whether trying again can help.
 *
 * The message is for the operator: what was seen, what was expected, what to do. A peer never sees it.
 */
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';

/** What a failure means to the one who asked. */
export type ErrorKind = 'auth' | 'not-found' | 'conflict' | 'moved' | 'unavailable' | 'limit' | 'protocol' | 'denied' | 'config' | 'bug';

/** Whether asking again can help. */
export type Retry = 'never' | 'later' | 'elsewhere';

/** A failure that can be expected: see the header of this file. */
export class PlatformError extends Error {
  override readonly name = 'PlatformError';
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly retry: Retry;
  /** Facts for the log line; never secrets. */
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: { fields?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.kind = errorCatalogue[code].kind;
    this.retry = errorCatalogue[code].retry;
    this.fields = options.fields ?? {};
  }
}

/** Anything thrown, as a `PlatformError`: what is not one already becomes `BUG_UNEXPECTED` with the original as cause. */
export function asPlatformError(thrown: unknown): PlatformError {
  if (thrown instanceof PlatformError) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return new PlatformError('BUG_UNEXPECTED', `unexpected failure: ${text}`, { cause: thrown });
}

/** The message of anything thrown, on one line. */
export function messageOf(thrown: unknown): string {
  return (thrown instanceof Error ? thrown.message : String(thrown)).replace(/\s+/g, ' ');
}
