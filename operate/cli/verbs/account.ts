/** `archipelago account create | rename | remove | restore | passwd | show`. */
import { randomBytes } from 'node:crypto';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AccountView } from '../../api/reports.ts';
import type { AskApi } from '../connect.ts';
import type { VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';

/** Where a password comes from; never from the command line itself, which other users of the machine can read. */
export interface PasswordOptions {
  readonly passwordFile?: string;
  readonly generatePassword?: boolean;
}

/** Creates an account. */
export async function accountCreate(
  terminal: Terminal,
  ask: AskApi,
  name: string,
  options: PasswordOptions & { cluster?: string; displayName?: string; quotaBytes?: number },
): Promise<VerbResult> {
  const password = await passwordFrom(terminal, options);
  const { cluster, displayName, quotaBytes } = options;
  const body = { name, cluster, displayName, quotaBytes, password };
  const created = await ask<{ uuid: string; name: string; cluster: string; placedBy: string }>('/api/v1/accounts', {
    method: 'POST',
    body,
  });
  const shown = options.generatePassword === true ? { ...created, password } : created;
  return {
    document: shown,
    names: [created.name],
    render: () =>
      `${created.name} created at ${created.cluster} (${created.placedBy}), uuid ${created.uuid}\n` +
      (options.generatePassword === true ? `password ${password}\n` : '') +
      (password === undefined ? 'It has no password yet: archipelago account passwd\n' : ''),
    exitCode: exitCodes.ok,
  };
}

/** Renames an account; its mail and sessions stay. */
export async function accountRename(ask: AskApi, from: string, to: string): Promise<VerbResult> {
  const renamed = await ask<AccountView>(`${pathOf(from)}/rename`, { method: 'POST', body: { to } });
  return { document: renamed, names: [renamed.name], render: () => `${from} renamed to ${renamed.name}\n`, exitCode: exitCodes.ok };
}

/** Removes an account, after asking where somebody can be asked. */
export async function accountRemove(terminal: Terminal, ask: AskApi, name: string, isSure: boolean): Promise<VerbResult> {
  if (!isSure && terminal.isInteractive) {
    const answer = await terminal.ask(`Remove ${name}? Its storage is kept for the configured grace. Type the name: `);
    if (answer.trim().toLowerCase() !== name.toLowerCase())
      throw new PlatformError('ADMIN_BAD_REQUEST', 'the name was not typed; nothing was removed');
  }
  const removed = await ask<{ uuid: string; name: string }>(pathOf(name), { method: 'DELETE' });
  return {
    document: removed,
    names: [removed.name],
    render: () => `${removed.name} removed, uuid ${removed.uuid}\n`,
    exitCode: exitCodes.ok,
  };
}

/** Brings a removed account back, with all its mail. */
export async function accountRestore(
  terminal: Terminal,
  ask: AskApi,
  removed: string,
  options: PasswordOptions & { cluster?: string; as?: string },
): Promise<VerbResult> {
  const password = await passwordFrom(terminal, options);
  const body = { cluster: options.cluster, name: options.as, password };
  const restored = await ask<{ uuid: string; name: string; cluster: string }>(`${pathOf(removed)}/restore`, { method: 'POST', body });
  const isShown = options.generatePassword === true;
  return {
    document: isShown ? { ...restored, password } : restored,
    names: [restored.name],
    render: () =>
      `${restored.name} restored at ${restored.cluster}, uuid ${restored.uuid}\n${isShown ? `password ${password}\n` : ''}` +
      (password === undefined ? `it has no password yet: archipelago account passwd ${restored.name}\n` : ''),
    exitCode: exitCodes.ok,
  };
}

/** Sets a password. */
export async function accountPasswd(terminal: Terminal, ask: AskApi, name: string, options: PasswordOptions): Promise<VerbResult> {
  const password = (await passwordFrom(terminal, options)) ?? firstLine(await terminal.readInput());
  await ask(`${pathOf(name)}/password`, { method: 'PUT', body: { password } });
  const document = options.generatePassword === true ? { name, password } : { name };
  return {
    document,
    names: [name],
    render: () => `password of ${name} set\n${options.generatePassword === true ? `password ${password}\n` : ''}`,
    exitCode: exitCodes.ok,
  };
}

/** One account as the directory holds it. */
export async function accountShow(ask: AskApi, name: string): Promise<VerbResult> {
  const account = await ask<AccountView>(pathOf(name));
  return {
    document: account,
    names: [account.name],
    render: (paint) =>
      Object.entries(account)
        .filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0))
        .map(([key, value]) => `${paint.strong(key.padEnd(14))}${Array.isArray(value) ? value.join(' ') : String(value)}\n`)
        .join(''),
    exitCode: exitCodes.ok,
  };
}

async function passwordFrom(terminal: Terminal, options: PasswordOptions): Promise<string | undefined> {
  if (options.generatePassword === true) return randomBytes(12).toString('base64url');
  if (options.passwordFile === undefined) return undefined;
  return firstLine(options.passwordFile === '-' ? await terminal.readInput() : await terminal.readFile(options.passwordFile));
}

const pathOf = (name: string): string => `/api/v1/accounts/${encodeURIComponent(name)}`;
const firstLine = (text: string): string => text.split(/\r?\n/)[0] ?? '';
