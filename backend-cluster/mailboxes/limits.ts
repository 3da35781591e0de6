/**
 * Limits of an account. Reaching one is `MBOX_LIMIT` (or `MBOX_NAME_INVALID` for a name); nothing else is disturbed.
 */

/** Mailboxes of an account. */
export const mailboxesMax = 10_000;
/** Full name of a mailbox, UTF-8. */
export const mailboxNameBytesMax = 1_000;
/** Levels of a mailbox name. */
export const mailboxLevelsMax = 64;
/** Subscribed names of an account. */
export const subscriptionsMax = 20_000;
/** Messages of a mailbox. */
export const messagesPerMailboxMax = 2 ** 20;
/** Octets of one message. */
export const messageBytesMax = 100 * 1024 * 1024;
/** Octets of one summary. */
export const summaryBytesMax = 16 * 1024 * 1024;
/** Messages of one append (MULTIAPPEND). */
export const messagesPerAppendMax = 1_000;
/** Flags of one message. */
export const flagsPerMessageMax = 64;
/** Octets of one keyword. */
export const keywordBytesMax = 100;
/** Different sets of flags in one account. */
export const flagSetsMax = 10_000;
/** Octets of a delivery id. */
export const deliveryIdBytesMax = 200;
/** Sieve scripts of an account. */
export const scriptsMax = 32;
/** Name of a script, octets; RFC 5804 §1.6 asks for 512 characters. */
export const scriptNameBytesMax = 1_024;
/** All scripts of an account together, octets: they are in memory while it is open. */
export const scriptsBytesMax = 256 * 1024;
