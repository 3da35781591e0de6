/**
 * POP3 and POP3S listeners.
 */
import type { DialogueOptions } from '#frontend/session/login-dialogue.ts';
import { Pop3Login } from '#frontend/session/pop3-login.ts';
import { type MailListenerOptions, type RunningMailListener, startMailListener } from './mail-listener.ts';

/** Opens a POP3 port. */
export function startPop3(
  options: Omit<MailListenerOptions, 'refusal' | 'dialogue'>,
  session: DialogueOptions,
): Promise<RunningMailListener> {
  return startMailListener({
    ...options,
    refusal: '-ERR [SYS/TEMP] Too many connections, try again later\r\n',
    dialogue: (connection, ended) => new Pop3Login(connection, session, ended),
  });
}
