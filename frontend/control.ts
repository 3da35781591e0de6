/**
 * What operators may ask of a running frontend, by name: the verbs `frontend`, `subset`, `guard` and `kick` of the command line (operate/cli).
 */
import { printable, tryParseAccountName } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { addressList, isAddressOrRange } from '#common/network/address-list.ts';
import type { FrontendSession, FrontendSettings, FrontendStatus, GuardReport, KickReport } from '#frontend/client/status.ts';
import type { AddressRules } from './guard/address-rules.ts';
import { clientGroup } from './guard/client-group.ts';
import { addressFailuresMax, type LoginGuard } from './guard/login-guard.ts';
import type { EndableSession, Withdrawal } from './subset/withdrawal.ts';

/** What the actions work on. */
export interface ControlOptions {
  readonly frontend: string;
  readonly subset: string;
  readonly withdrawal: Withdrawal;
  readonly guard: LoginGuard;
  readonly rules: AddressRules;
  readonly clock: Clock;
  settings(): FrontendSettings;
  /** `undefined` where the subset shares nothing. */
  peers(): GuardReport['peers'];
  /** Connections of an address now, over all listeners. */
  connectionsOf(address: string): number;
  /** Every client's connection; `snapshot` is `undefined` before its login. */
  sessions(): Iterable<EndableSession & { snapshot(): FrontendSession | undefined }>;
}

type Body = Readonly<Record<string, unknown>>;

const entriesShown = 200;
const drainDefaultMs = 300_000;
const ruleDefaultMs = 86_400_000;
const kickText = 'Ended by the administrator, connect again';
/** A session that was asked to end and has not by then is dropped. */
const kickPatienceMs = 5_000;

/** Runs one action. Rejects with `ADMIN_BAD_REQUEST` or `ADMIN_NOT_FOUND`. */
export async function controlFrontend(
  options: ControlOptions,
  action: string,
  body: Body,
): Promise<FrontendStatus['withdrawal'] | GuardReport | KickReport | FrontendSettings> {
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
    case 'settings':
      return options.settings();
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
    case 'kick':
      return kick(options, textOf(body, 'what'));
    case 'restart':
      throw new PlatformError(
        'ADMIN_NOT_ABLE',
        `${options.frontend} shares its process with other services, and they cannot be handed over`,
        {
          fields: { hint: 'give the frontend a node file of its own, or stop the process and start it' },
        },
      );
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
    ...(options.peers() === undefined ? {} : { peers: options.peers() ?? [] }),
    connections: what === undefined ? undefined : options.connectionsOf(what),
    verdict:
      what === undefined
        ? undefined
        : rule !== undefined
          ? `${rule.verdict === 'block' ? 'blocked' : 'allowed'} by the rule for ${rule.range}, set at ${rule.setAt}: ${rule.reason}`
          : failures >= addressFailuresMax
            ? `refused unheard: ${Math.round(failures)} failed logins, ${addressFailuresMax} are too many; half of them count after 5 minutes`
            : entries.length > 0
              ? 'delayed: each further failed login waits longer'
              : 'nothing is held against it',
  };
}

/** Ends the sessions of an account, of an address or range, or the one with that id. They may come back at once: `guard block` keeps an address out. */
function kick(options: ControlOptions, what: string): KickReport {
  const account = tryParseAccountName(what);
  const isFrom = isAddressOrRange(what.toLowerCase()) ? addressList([what.toLowerCase()]) : undefined;
  const sessions: string[] = [];
  for (const session of [...options.sessions()]) {
    const shown = session.snapshot();
    if (shown === undefined) continue;
    if (shown.sessionId !== what && shown.account !== account && isFrom?.(shown.clientAddress) !== true) continue;
    sessions.push(shown.sessionId);
    void session.bye(kickText);
    options.clock.after(kickPatienceMs, () => session.drop());
  }
  return { frontend: options.frontend, subset: options.subset, ended: sessions.length, sessions: sessions.slice(0, entriesShown) };
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
