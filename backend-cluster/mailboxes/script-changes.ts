/**
 * Storing, removing, renaming and choosing Sieve scripts (RFC 5804 §2). Each is alone in its commit, so it is planned against the committed state.
 * What a script says was checked before.
 */
import type { AccountState } from '#backend-cluster/storage/account-state.ts';
import type { Change } from '#backend-cluster/storage/commit-queue.ts';
import type { GroupPlan } from '#backend-cluster/storage/group-plan.ts';
import { printable } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { compileScript } from '#protocol/sieve/compile.ts';
import { SieveError, scriptBytesMax } from '#protocol/sieve/parse.ts';
import { scriptNameBytesMax, scriptsBytesMax, scriptsMax } from './limits.ts';

// RFC 5804 §1.6: no control characters, no line or paragraph separators.
const forbidden = /[\p{Cc}\u2028\u2029]/u;

/** Stores a script, in place of the one of that name if there is one. */
export function putScriptChange(name: string, text: string): Change<void> {
  checkName(name);
  return alone(Buffer.byteLength(text), (plan) => {
    checkScriptRoom(plan.state, name, Buffer.byteLength(text));
    plan.records.push({ kind: 'script-put', name, text });
  });
}

/** Removes a script that is not active. */
export function deleteScriptChange(name: string): Change<void> {
  return alone(0, ({ state, records }) => {
    textOf(state, name);
    // RFC 5804 §2.10
    if (state.activeScript === name) throw new PlatformError('SCRIPT_ACTIVE', `the script "${printable(name)}" is active`);
    records.push({ kind: 'script-delete', name });
  });
}

/** Chooses the script that runs; empty: none. */
export function activateScriptChange(name: string): Change<void> {
  return alone(0, ({ state, records }) => {
    if (name !== '') textOf(state, name);
    if (state.activeScript !== name) records.push({ kind: 'script-activate', name });
  });
}

/** Gives a script another name; it stays active if it was. */
export function renameScriptChange(from: string, to: string): Change<void> {
  checkName(to);
  return alone(scriptsBytesMax, ({ state, records }) => {
    const text = textOf(state, from);
    if (state.scripts.has(to)) throw new PlatformError('SCRIPT_EXISTS', `there is a script "${printable(to)}" already`);
    records.push({ kind: 'script-put', name: to, text });
    if (state.activeScript === from) records.push({ kind: 'script-activate', name: to });
    records.push({ kind: 'script-delete', name: from });
  });
}

/** Throws `MBOX_LIMIT` when a script of that name and size has no room. */
export function checkScriptRoom(state: AccountState, name: string, bytes: number): void {
  let total = bytes;
  for (const [other, text] of state.scripts) if (other !== name) total += Buffer.byteLength(text);
  if (!state.scripts.has(name) && state.scripts.size >= scriptsMax) {
    throw new PlatformError('MBOX_LIMIT', `an account has at most ${scriptsMax} scripts`, { fields: { quota: 'MAXSCRIPTS' } });
  }
  if (total > scriptsBytesMax) {
    throw new PlatformError('MBOX_LIMIT', `the scripts would have ${total} octets, more than ${scriptsBytesMax} together`, {
      fields: { quota: 'MAXSIZE' },
    });
  }
}

function alone(bytes: number, plan: (plan: GroupPlan) => void): Change<void> {
  return {
    scope: { kind: 'account' },
    bytes: 2048 + bytes,
    plan(group) {
      plan(group);
      return () => undefined;
    },
  };
}

function textOf(state: AccountState, name: string): string {
  const text = state.scripts.get(name);
  if (text === undefined) throw new PlatformError('SCRIPT_NOT_FOUND', `there is no script "${printable(name)}"`);
  return text;
}

function checkName(name: string): void {
  if (name === '' || Buffer.byteLength(name) > scriptNameBytesMax || forbidden.test(name)) {
    throw new PlatformError('SCRIPT_INVALID', `a script's name has 1 to ${scriptNameBytesMax} octets and no control characters`);
  }
}

/** Throws `SCRIPT_INVALID` with the line and what is wrong, for the script's author. */
export function checkScript(text: string): void {
  checkScriptSize(Buffer.byteLength(text));
  try {
    compileScript(text);
  } catch (error) {
    if (!(error instanceof SieveError)) throw error;
    throw new PlatformError('SCRIPT_INVALID', error.message);
  }
}

/** Throws `MBOX_LIMIT` for a script that is too large. */
export function checkScriptSize(bytes: number): void {
  if (bytes <= scriptBytesMax) return;
  throw new PlatformError('MBOX_LIMIT', `a script has at most ${scriptBytesMax} octets`, { fields: { quota: 'MAXSIZE' } });
}
