/**
 * The account's quota: the directory entry says how much, the member that has the account open enforces it.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** What the account may hold; the value may change while it is open. */
export interface AccountLimits {
  quotaBytes: number | undefined;
}

/** Throws `MBOX_OVER_QUOTA` when `added` bytes more are too many. */
export function checkQuota(usedBytes: number, added: number, limits: AccountLimits): void {
  if (added === 0 || limits.quotaBytes === undefined || usedBytes + added <= limits.quotaBytes) return;
  throw new PlatformError('MBOX_OVER_QUOTA', `${added} bytes more than the ${usedBytes} stored pass the quota of ${limits.quotaBytes}`, {
    fields: { usedBytes, added, quotaBytes: limits.quotaBytes },
  });
}
