/**
 * IMAP and IMAPS listeners.
 */

import { ImapLogin } from '#frontend/session/imap-login.ts';
import type { DialogueOptions } from '#frontend/session/login-dialogue.ts';
import { type MailListenerOptions, type RunningMailListener, startMailListener } from './mail-listener.ts';

/** Opens an IMAP port. */
export function startImap(
  options: Omit<MailListenerOptions, 'refusal' | 'dialogue'>,
  session: DialogueOptions,
): Promise<RunningMailListener> {
  return startMailListener({
    ...options,
    // RFC 5530 §3: LIMIT is for what the client may try again later.
    refusal: '* BYE [LIMIT] Too many connections, try again later\r\n',
    dialogue: (connection, ended) => new ImapLogin(connection, session, ended),
  });
}
