/**
 * ManageSieve listeners.
 */
import type { DialogueOptions } from '#frontend/session/login-dialogue.ts';
import { SieveLogin } from '#frontend/session/sieve-login.ts';
import { type MailListenerOptions, type RunningMailListener, startMailListener } from './mail-listener.ts';

/** Opens a ManageSieve port. */
export function startManageSieve(
  options: Omit<MailListenerOptions, 'refusal' | 'dialogue'>,
  session: DialogueOptions,
): Promise<RunningMailListener> {
  return startMailListener({
    ...options,
    refusal: 'BYE (TRYLATER) "Too many connections, try again later"\r\n',
    dialogue: (connection, ended) => new SieveLogin(connection, session, ended),
  });
}
