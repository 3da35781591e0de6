/**
 * Lockout and must-change as in draft-behera-ldap-password-policy-10, for binds of entries: after too many failures within a window an entry is
 * locked for a while, and an entry with `pwdReset: TRUE` may do nothing before it has changed its password. Pure: what is to be stored is
 * returned as attributes.
 *
 * - `pwdFailureTime`: times of the failures within the window, as many as lock. - `pwdAccountLockedTime`: since when; an administrator unlocks
 *   by deleting it, and locks for good with the value 000001010000Z (§5.3.3).
 */
import { BerWriter, berTags } from '#protocol/ldap/ber.ts';
import { type Attribute, attribute, type Control, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { generalizedTimeKey } from '../schema/matching-rules.ts';

/** OID of the request and of the response control (§6). */
export const passwordPolicyOid = '1.3.6.1.4.1.42.2.27.8.5.1';
const lockedForGood = '000001010000Z';

/** The rules in force. */
export interface PasswordPolicy {
  readonly failuresMax: number;
  readonly windowSeconds: number;
  /** 0: until an administrator unlocks. */
  readonly lockoutSeconds: number;
}

/** Whether an entry is locked now. */
export function isLocked(policy: PasswordPolicy, attributes: readonly Attribute[], nowMs: number): boolean {
  const since = textOf(attributes, 'pwdAccountLockedTime');
  if (since === undefined) return false;
  return since === lockedForGood || policy.lockoutSeconds === 0 || timeMs(since) + policy.lockoutSeconds * 1000 > nowMs;
}

/** Whether the next thing this entry does must be to change its password. */
export function mustChange(attributes: readonly Attribute[]): boolean {
  return textOf(attributes, 'pwdReset')?.toUpperCase() === 'TRUE';
}

/** The attributes after one more failure; `locks` when that was one too many. */
export function afterFailure(
  policy: PasswordPolicy,
  attributes: readonly Attribute[],
  nowMs: number,
): { readonly attributes: Attribute[]; readonly locks: boolean } {
  const windowFromMs = nowMs - policy.windowSeconds * 1000;
  // A lock that is over began its count anew.
  const lockedAtMs = timeMs(textOf(attributes, 'pwdAccountLockedTime') ?? '');
  const recent = textsOf(attributes, 'pwdFailureTime').filter((time) => timeMs(time) > windowFromMs && !(timeMs(time) <= lockedAtMs));
  let atMs = nowMs;
  while (recent.includes(timeText(atMs))) atMs += 1;
  const failures = [...recent, timeText(atMs)].slice(-policy.failuresMax);
  const locks = failures.length >= policy.failuresMax;
  const rest = without(attributes, ['pwdFailureTime', 'pwdAccountLockedTime']);
  const lock = locks ? [attribute('pwdAccountLockedTime', timeText(atMs))] : [];
  return { attributes: [...rest, attribute('pwdFailureTime', ...failures), ...lock], locks };
}

/** The attributes after a success; `undefined` when nothing changes. */
export function afterSuccess(attributes: readonly Attribute[]): Attribute[] | undefined {
  const cleared = without(attributes, ['pwdFailureTime', 'pwdAccountLockedTime']);
  return cleared.length === attributes.length ? undefined : cleared;
}

/** The attributes once the password was changed by its owner: it is no longer asked for. */
export function afterOwnChange(attributes: readonly Attribute[]): Attribute[] {
  return without(attributes, ['pwdReset']);
}

const errors = { accountLocked: 1, changeAfterReset: 2 } as const;

/** The response control (§6.2): what is wrong, if anything. */
export function policyResponse(error: keyof typeof errors | undefined): Control {
  const writer = new BerWriter();
  const opened = writer.open(berTags.sequence);
  if (error !== undefined) writer.integer(errors[error], 0x81);
  writer.close(opened);
  return { oid: passwordPolicyOid, critical: false, value: writer.take() };
}

function without(attributes: readonly Attribute[], names: readonly string[]): Attribute[] {
  return attributes.filter((one) => !names.includes(one.type));
}

function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 23).replace(/[-:T]/g, '')}Z`;
}

function timeMs(text: string): number {
  const key = generalizedTimeKey(Buffer.from(text));
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)\.(\d{3})/.exec(key ?? '');
  if (parts === null) return Number.NaN;
  const [year, month, day, hour, minute, second, ms] = parts.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return Date.UTC(year, month - 1, day, hour, minute, second, ms);
}
