/**
 * Reading one's own writes at any server: a search or compare with this control is answered once the server holds everything up to a CSN.
 * The CSN is the `entryCSN` that the write's post-read gave (RFC 4527). The control's value is the CSN, and after a comma, where the default is
 * too long or too short, how many milliseconds to wait.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { asOfOid } from '#directory/client/authority.ts';
import { findControl } from '#protocol/ldap/controls.ts';
import { Refusal } from '../schema/refusal.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import type { Operation } from './operation.ts';
import type { Tree } from './tree.ts';

const waitDefaultMs = 5000;
const waitMaxMs = 30_000;

/** Waits if the operation asks for it; `undefined` when there is nothing to wait for. Rejects with `busy` when the time is over. */
export function waitAsOf(tree: Tree, clock: Clock, operation: Operation): Promise<void> | undefined {
  const control = findControl(operation.controls, asOfOid);
  if (control === undefined) return undefined;
  const [csn = '', limit] = (control.value?.toString('latin1') ?? '').split(',');
  const limitMs = limit === undefined ? waitDefaultMs : Number(limit);
  if (!csnPattern.test(csn) || !(limitMs >= 0 && limitMs <= waitMaxMs)) {
    throw new Refusal('protocolError', `the control is a change sequence number and up to ${waitMaxMs} milliseconds: CSN or CSN,MS`);
  }
  return tree.holds(csn) ? undefined : reached(tree, clock, operation, csn, limitMs);
}

async function reached(tree: Tree, clock: Clock, operation: Operation, csn: string, limitMs: number): Promise<void> {
  const over = new AbortController();
  const stop = tree.store.onCommit(() => {
    if (tree.holds(csn)) over.abort();
  });
  try {
    await sleep(clock, limitMs, AbortSignal.any([over.signal, operation.signal]));
  } finally {
    stop();
  }
  if (!tree.holds(csn) && !operation.isAborted) {
    throw new Refusal('busy', `this server is at ${tree.contextCsn} and not at ${csn} after ${limitMs} ms; ask again, or ask the master`);
  }
}
