/**
 * A server that died without a word sends no more bytes, and a search that persists would wait for ever. Asking for something small when
 * it is silent makes that visible within seconds. One that sends a message byte by byte is not silent, and gets as much time as a big
 * message needs on a slow link.
 */
import type { Clock } from '#common/clock.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';

/** A silent connection is asked for a sign of life after this time; one that gives none for `silentMaxMs` is dropped. */
const askAfterMs = 2000;
const silentMaxMs = 5000;
/** Time for one message, from its first byte to its last. */
const messageMaxMs = 60_000;

/** Watches a connection until the returned function is called. */
export function keepAlive(connection: LdapConnection, clock: Clock): () => void {
  let isAsking = false;
  let lookedMs = clock.monotonicMs();
  let patientUntilMs = 0;
  const timer = clock.every(askAfterMs / 2, () => {
    const nowMs = clock.monotonicMs();
    if (nowMs - lookedMs > askAfterMs) patientUntilMs = nowMs + silentMaxMs;
    lookedMs = nowMs;
    const isPatient = nowMs < patientUntilMs;
    if (!isPatient && connection.silentMs > silentMaxMs) {
      connection.destroy(`no sign of life for ${Math.round(connection.silentMs)} ms`);
      return;
    }
    if (!isPatient && connection.unfinishedMs > messageMaxMs) {
      connection.destroy(`a message has not come to its end for ${Math.round(connection.unfinishedMs / 1000)} s`);
      return;
    }
    if (isAsking || connection.silentMs < askAfterMs) return;
    isAsking = true;
    // Any answer is a sign of life, a refusal too; that the connection was lost is seen by those who use it.
    const asked = (): void => {
      isAsking = false;
    };
    connection.readEntry('', ['1.1'], { timeoutMs: silentMaxMs }).then(asked, asked);
  });
  return () => timer.cancel();
}
