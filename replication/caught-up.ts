/**
 * Waits until a replica has been given what the master has: only then is what still differs a difference and not a change under way.
 *
 *   following, acknowledged ≥ the master's contextCSN ──► caught up
 *   stopped ──► it is given nothing until an operator has decided: what differs, differs
 *   behind and moving ──► waited for, however long it takes     behind and nothing moves ──► REPL_BEHIND
 */
import { type Clock, sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import type { ReplicaStatus } from '#replication/client/status.ts';
import { contextCsnOf } from '#replication/history.ts';

const lookEveryMs = 50;
/** A replica that is behind and of which nothing has moved for so long is not waited for. */
export const quietMaxMs = 15_000;
/** A master that does not say where it is: what it had is taken for received after this. */
const unsaidMs = 5000;

/**
 * See the header of this file. Resolves with the CSN up to which the replica has everything, where that is known.
 *
 * @param status of the replica, as of now
 */
export async function whenCaughtUp(
  status: () => ReplicaStatus,
  master: Pick<LdapConnection, 'readEntry'>,
  suffix: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<string | undefined> {
  const csn = await contextCsnOf(master, suffix);
  const startedMs = clock.monotonicMs();
  let before = '';
  let movedMs = startedMs;
  for (;;) {
    signal.throwIfAborted();
    const now = status();
    const nowMs = clock.monotonicMs();
    if (now.state === 'stopped') return undefined;
    const has = csn === undefined ? now.backlogChanges === 0 && nowMs - startedMs >= unsaidMs : (now.contextCsn ?? '') >= csn;
    if (now.state === 'following' && has) return csn === undefined ? undefined : now.contextCsn;
    const { contextCsn, applied, refresh } = now;
    // Neither what is received for it nor that it comes and goes brings it nearer.
    const moved = JSON.stringify([contextCsn, applied]);
    if (moved !== before || (refresh !== undefined && refresh.quietMs < quietMaxMs)) movedMs = nowMs;
    before = moved;
    if (nowMs - movedMs >= quietMaxMs) throw behind(now, csn);
    await sleep(clock, lookEveryMs, signal);
  }
}

function behind({ name, state, backlogChanges, contextCsn, lastError }: ReplicaStatus, csn: string | undefined): PlatformError {
  const error = lastError === undefined ? '' : `; last error: ${lastError}`;
  return new PlatformError(
    'REPL_BEHIND',
    `${name} differs, but whether by more than what is still under way cannot be told: the master is at ${csn ?? 'no CSN that it says'}, ` +
      `${name} has everything up to ${contextCsn ?? 'nothing yet'} and is ${state}, ${backlogChanges} changes wait for it, and for ${quietMaxMs / 1000} s ` +
      `nothing has moved${error}. See \`archipelago replica status\`, and compare again once it follows`,
  );
}
