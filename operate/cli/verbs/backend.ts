/** `archipelago backend`: what an operator does to the members of a cluster. */
import type { DrainStatus } from '#backend-cluster/client/status.ts';
import { sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { clusterOf, parseMemberName } from '#common/host-server.ts';
import type { AskApi } from '../connect.ts';
import { table, type VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';

/** Between two looks at how far a drain is. */
const lookEveryMs = 500;
/** Closing thousands of accounts takes a while. */
const slowMs = 90_000;

interface Settings {
  readonly version: number;
  readonly values: Readonly<Record<string, string>>;
}

/** Drains a member, and tells how far it is until it is done. */
export async function drain(
  terminal: Terminal,
  ask: AskApi,
  member: string,
  given: { readonly deadline: string; readonly abort?: boolean; readonly wait: boolean },
): Promise<VerbResult> {
  const path = `/api/v1/members/${encodeURIComponent(parseMemberName(member))}/drain`;
  if (given.abort === true) {
    const status = await ask<DrainStatus>(path, { method: 'DELETE' });
    return said(
      { member, ...status },
      [member],
      `${member} takes accounts again; ${status.closed} of ${status.accounts} had been closed\n`,
    );
  }
  let status = await ask<DrainStatus>(path, { method: 'POST', body: { deadlineMs: durationMs(given.deadline) } });
  while (given.wait && status.state === 'running') {
    await sleep(terminal.clock, lookEveryMs);
    status = await ask<DrainStatus>(path);
    if (terminal.isTerminal) terminal.err(`\r${status.closed} of ${status.accounts} accounts closed `);
  }
  if (given.wait && terminal.isTerminal) terminal.err('\n');
  const text =
    status.state === 'done'
      ? `${member} has nothing open: ${status.closed} accounts were closed; stop it, or take it back with --abort\n`
      : status.state === 'aborted'
        ? `the drain of ${member} was called off\n`
        : `${member} drains: ${status.closed} of ${status.accounts} accounts are closed\n`;
  return { ...said({ member, ...status }, [member], text), exitCode: status.state === 'aborted' ? exitCodes.failed : exitCodes.ok };
}

/** Has a member take no more accounts, or take them again. */
export async function cordon(ask: AskApi, member: string, isCordoned: boolean): Promise<VerbResult> {
  const settings = await change(ask, member, `member.${parseMemberName(member)}.cordoned`, isCordoned ? 'true' : null);
  const text = isCordoned ? 'keeps what it has open and takes no more accounts' : 'takes accounts';
  return said({ member, cordoned: isCordoned, version: settings.version }, [member], `${member} ${text}\n`);
}

/** Sets a member's share of sessions and accounts. */
export async function weight(ask: AskApi, member: string, value: string): Promise<VerbResult> {
  const settings = await change(ask, member, `member.${parseMemberName(member)}.weight`, value);
  return said({ member, weight: Number(value), version: settings.version }, [member], `${member} has weight ${value}\n`);
}

/** Has members above their share close some accounts. */
export async function rebalance(ask: AskApi, cluster: string): Promise<VerbResult> {
  const path = `/api/v1/clusters/${encodeURIComponent(cluster)}/rebalance`;
  const { members } = await ask<{ members: { member: string; openAccounts: number; share: number; closed: number }[] }>(path, {
    method: 'POST',
    timeoutMs: slowMs,
  });
  return {
    document: { cluster, members },
    rows: members,
    names: members.map(({ member }) => member),
    render: (paint) =>
      table(
        paint,
        ['MEMBER', 'OPEN', 'SHARE', 'CLOSED'],
        members.map((one) => [one.member, String(one.openAccounts), String(one.share), String(one.closed)]),
      ),
    exitCode: exitCodes.ok,
  };
}

/** Makes another member Controller. */
export async function handOver(ask: AskApi, cluster: string, to: string | undefined): Promise<VerbResult> {
  const path = `/api/v1/clusters/${encodeURIComponent(cluster)}/hand-over`;
  const done = await ask<{ from: string; to: string }>(path, { method: 'POST', body: to === undefined ? {} : { to } });
  return said({ cluster, ...done }, [done.to], `${done.from} has given the lead of ${cluster} to ${done.to}\n`);
}

/** Forgets a dead member. */
export async function remove(ask: AskApi, member: string): Promise<VerbResult> {
  const done = await ask<{ settings: number }>(`/api/v1/members/${encodeURIComponent(member)}`, { method: 'DELETE' });
  const text = `${member} is forgotten, with ${done.settings} settings; take its address out of the cluster’s entry in the directory as well\n`;
  return said({ member, ...done }, [member], text);
}

/** All settings of a cluster, or one. */
export async function settingsGet(ask: AskApi, cluster: string, name: string | undefined): Promise<VerbResult> {
  const settings = await ask<Settings>(settingsPath(cluster));
  return shown(cluster, name === undefined ? settings : { ...settings, values: pick(settings, name) });
}

/** Changes settings: `name=value`, or `name=` to take one away. */
export async function settingsSet(ask: AskApi, cluster: string, changes: readonly string[]): Promise<VerbResult> {
  const body: Record<string, string | null> = {};
  for (const text of changes) {
    const cut = text.indexOf('=');
    if (cut < 1) throw new PlatformError('ADMIN_BAD_REQUEST', `"${text}" is not name=value`);
    body[text.slice(0, cut)] = cut === text.length - 1 ? null : text.slice(cut + 1);
  }
  return shown(cluster, await ask<Settings>(settingsPath(cluster), { method: 'POST', body }));
}

function change(ask: AskApi, member: string, name: string, value: string | null): Promise<Settings> {
  return ask<Settings>(settingsPath(clusterOf(parseMemberName(member))), { method: 'POST', body: { [name]: value } });
}

function settingsPath(cluster: string): string {
  return `/api/v1/clusters/${encodeURIComponent(cluster)}/settings`;
}

function pick({ values }: Settings, name: string): Record<string, string> {
  const value = values[name];
  if (value === undefined) throw new PlatformError('ADMIN_NOT_FOUND', `${name} is not set`);
  return { [name]: value };
}

function shown(cluster: string, { version, values }: Settings): VerbResult {
  const rows = Object.entries(values)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => ({ name, value }));
  return {
    document: { cluster, version, values },
    rows,
    names: rows.map(({ name }) => name),
    render: (paint) =>
      `${cluster}, version ${version}${
        rows.length === 0
          ? ': nothing is set\n'
          : `\n${table(
              paint,
              ['SETTING', 'VALUE'],
              rows.map(({ name, value }) => [name, value]),
            )}`
      }`,
    exitCode: exitCodes.ok,
  };
}

function said(document: object, names: readonly string[], text: string): VerbResult {
  return { document, names, render: () => text, exitCode: exitCodes.ok };
}

/** `60s`, `5m`, `2h`, or seconds. */
function durationMs(text: string): number {
  const parts = /^(\d{1,6})(ms|s|m|h)?$/.exec(text);
  if (parts === null) throw new PlatformError('ADMIN_BAD_REQUEST', `"${text}" is no duration; write 60s, 5m or 2h`);
  return Number(parts[1]) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[(parts[2] ?? 's') as 'ms' | 's' | 'm' | 'h'];
}
