/**
 * The account's Sieve script at a delivery: where the message goes. A script that fails, and a mailbox that is not there, lead to INBOX: nothing that a
 * script says or fails to say loses a message, except `discard`.
 */
import type { Mailbox, OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import type { Logger } from '#common/log/logger.ts';
import { compileScript } from '#protocol/sieve/compile.ts';
import { sieveMessage } from '#protocol/sieve/message.ts';
import { SieveError } from '#protocol/sieve/parse.ts';

/** A mailbox that the message goes to, with its flags there. */
export interface FilteredPlace {
  readonly mailbox: Mailbox;
  readonly flags: readonly string[];
}

/** Where the message goes; nowhere when it is discarded. */
export function filtered(
  account: OpenAccount,
  inbox: Mailbox,
  message: { readonly raw: Buffer; readonly from: string; readonly to: string },
  log: Logger,
): readonly FilteredPlace[] {
  const { texts, active } = account.scripts();
  const script = active === undefined ? undefined : texts.get(active);
  if (script === undefined) return [{ mailbox: inbox, flags: [] }];
  try {
    const { places } = compileScript(script).run(sieveMessage(message.raw, message));
    const found = new Map<number, FilteredPlace>();
    for (const { mailbox: name, flags } of places) {
      const mailbox = (name === undefined ? undefined : account.mailbox(name)) ?? inbox;
      if (name !== undefined && mailbox === inbox) log.debug({ uuid: account.uuid }, 'a script files into a mailbox that is not there');
      found.set(mailbox.id, { mailbox, flags });
    }
    return [...found.values()];
  } catch (error) {
    if (!(error instanceof SieveError)) throw error;
    log.warn({ uuid: account.uuid, cause: error.message }, 'a Sieve script failed; the message is kept in INBOX');
    return [{ mailbox: inbox, flags: [] }];
  }
}
