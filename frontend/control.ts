/**
 * What operators may ask of a running frontend, by name: the verbs `frontend`, `subset` and `guard` of the command line (operate/cli).
 */
import { printable, tryParseAccountName } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { FrontendStatus, GuardReport } from '#frontend/client/status.ts';
import type { AddressRules } from './guard/address-rules.ts';
import { clientGroup } from './guard/client-group.ts';
import { addressFailuresMax, type LoginGuard } from './guard/login-guard.ts';
import type { Withdrawal } from './subset/withdrawal.ts';

/** What the actions work on. */
export interface ControlOptions {
  readonly frontend: string;
  readonly subset: string;
  readonly withdrawal: Withdrawal;
  readonly guard: LoginGuard;
  readonly rules: AddressRules;
  /** Connections of an address now, over all listeners. */
  connectionsOf(address: string): number;
}

type Body = Readonly<Record<string, unknown>>;

const entriesShown = 200;
const drainDefaultMs = 300_000;
const ruleDefaultMs = 86_400_000;

/** Runs one action. Rejects with `ADMIN_BAD_REQUEST` or `ADMIN_NOT_FOUND`. */
export async function controlFrontend(
  options: ControlOptions,
  action: string,
  body: Body,
): Promise<FrontendStatus['withdrawal'] | GuardReport> {
  const { withdrawal, guard, rules } = options;
  switch (action) {
    case 'cordon':
      withdrawal.cordon();
      return withdrawal.status();
    case 'drain':
      await withdrawal.drain(numberOf(body, 'deadlineMs') ?? drainDefaultMs, numberOf(body, 'perSecond'));
      return withdrawal.status();
    case 'resume':
      await withdrawal.resume();
      return withdrawal.status();
    case 'weight':
      withdrawal.setWeight(numberOf(body, 'weight') ?? -1);
      return withdrawal.status();
    case 'guard-ls':
      return reportOf(options, undefined);
    case 'guard-why':
      return reportOf(options, textOf(body, 'what'));
    case 'guard-block':
    case 'guard-allow': {
      const range = textOf(body, 'what');
      const verdict = action === 'guard-block' ? 'block' : 'allow';
      rules.set({ range, verdict, reason: reasonOf(body), forMs: numberOf(body, 'forMs') ?? ruleDefaultMs });
      if (verdict === 'allow') guard.forgive(clientGroup(range));
      return reportOf(options, undefined);
    }
    case 'guard-forget': {
      const what = textOf(body, 'what');
      const hasGone = rules.remove(what);
      const forgiven = guard.forgive(keyOf(what));
      if (!hasGone && forgiven === 0)
        throw new PlatformError('ADMIN_NOT_FOUND', `${options.frontend} has neither rule nor failures of ${what}`);
      return reportOf(options, undefined);
    }
    default:
      throw new PlatformError('ADMIN_NOT_FOUND', `a frontend knows no action ${printable(action)}`);
  }
}

function reportOf(options: ControlOptions, what: string | undefined): GuardReport {
  const { frontend, subset, guard, rules } = options;
  const key = what === undefined ? undefined : keyOf(what);
  const rule = what === undefined ? undefined : rules.find(what);
  const entries = guard.entries(entriesShown, key);
  const failures = entries.find((entry) => entry.kind === 'address' && entry.key === key)?.failures ?? 0;
  return {
    frontend,
    subset,
    rules: rule === undefined ? (what === undefined ? rules.list() : []) : [rule],
    entries,
    connections: what === undefined ? undefined : options.connectionsOf(what),
    verdict:
      what === undefined
        ? undefined
        : rule !== undefined
          ? `${rule.verdict === 'block' ? 'blocked' : 'allowed'} by the rule for ${rule.range}: ${rule.reason}`
          : failures >= addressFailuresMax
            ? `refused unheard: ${Math.round(failures)} failed logins, ${addressFailuresMax} are too many; half of them count after 5 minutes`
            : entries.length > 0
              ? 'delayed: each further failed login waits longer'
              : 'nothing is held against it',
  };
}

/** The form under which failures are counted: an account’s folded name, or the address’s group. */
function keyOf(what: string): string {
  return tryParseAccountName(what) ?? clientGroup(what);
}

function textOf(body: Body, key: string): string {
  const value = body[key];
  if (typeof value !== 'string' || value === '' || value.length > 512) throw new PlatformError('ADMIN_BAD_REQUEST', `${key} is missing`);
  return value;
}

function reasonOf(body: Body): string {
  return typeof body.reason === 'string' && body.reason !== '' ? printable(body.reason).slice(0, 200) : 'no reason given';
}

function numberOf(body: Body, key: string): number | undefined {
  const value = body[key];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new PlatformError('ADMIN_BAD_REQUEST', `${key} is not a number`);
  return value;
}
