/**
 * Every error code, with what it means to the one who asked. docs/reference/errors.md is compared with this table by a test.
 * Codes are grouped by the room that raises them; a new code needs a line here and a line there.
 */
import type { ErrorKind, Retry } from '#common/errors/platform-error.ts';

interface CatalogueEntry {
  readonly kind: ErrorKind;
  readonly retry: Retry;
  /** One sentence for docs/reference/errors.md: what happened and what to do. */
  readonly meaning: string;
}

function entry(kind: ErrorKind, retry: Retry, meaning: string): CatalogueEntry {
  return { kind, retry, meaning };
}

/** All codes. */
export const errorCatalogue = {
  NAME_DOMAIN_INVALID: entry('protocol', 'never', 'A domain name is malformed; use letters, digits, hyphens and dots.'),
  NAME_ACCOUNT_INVALID: entry('protocol', 'never', 'An account name is malformed; use local@domain.'),
  NAME_UUID_INVALID: entry('protocol', 'never', 'An entryUUID is malformed.'),
  NAME_CLUSTER_INVALID: entry('protocol', 'never', 'A cluster name is malformed; it is the members’ names without their first label.'),
  NAME_MEMBER_INVALID: entry('protocol', 'never', 'A member name is malformed; it needs at least two labels.'),

  CONFIG_INVALID: entry('config', 'never', 'The node file has mistakes; every one is listed with file, line and column.'),
  CONFIG_UNREADABLE: entry('config', 'never', 'A file named by the configuration cannot be read.'),
  CONFIG_SUBSET: entry('config', 'never', 'A setting in the directory entry of a frontend subset is refused; the last good value stays.'),

  NET_CONNECT_FAILED: entry('unavailable', 'elsewhere', 'A connection could not be made; the peer is down or the address is wrong.'),
  NET_CLOSED: entry('unavailable', 'elsewhere', 'A connection ended before the answer came.'),
  NET_TIMEOUT: entry('unavailable', 'later', 'A peer did not answer in time.'),
  NET_TLS_FAILED: entry('unavailable', 'never', 'A TLS handshake failed; check certificate, name and CA on both sides.'),

  DIR_UNAVAILABLE: entry('unavailable', 'later', 'No directory server of the list answers.'),
  DIR_NO_MASTER: entry('unavailable', 'later', 'The master directory does not answer; nothing permanent may be said about an account.'),
  DIR_NOT_FOUND: entry('not-found', 'never', 'The directory has no such entry.'),
  DIR_EXISTS: entry('conflict', 'never', 'The directory already has an entry of that name.'),
  DIR_DENIED: entry('denied', 'never', 'The directory refused the operation for this identity.'),
  DIR_ENTRY_UNREADABLE: entry(
    'config',
    'never',
    'An entry is there, and its entryUUID is not shown to this identity; nothing may be said about its account. Mend the access rules of the directory.',
  ),
  DIR_ADDRESS_AMBIGUOUS: entry(
    'unavailable',
    'later',
    'Several accounts have an address that is the name of none of them; it leads to none until all but one have given it up. The message names them.',
  ),
  DIR_REFUSED: entry('protocol', 'never', 'The directory refused the operation; its result code and text are in the message.'),
  DIR_QUORUM: entry(
    'unavailable',
    'later',
    'The master has a change, but fewer directory servers than wanted have it; it is still under way to them.',
  ),
  DIR_BUSY: entry('unavailable', 'later', 'The directory is busy or cannot write now.'),
  DIR_DAMAGED: entry('unavailable', 'elsewhere', 'The database of a directory server is damaged; its operator has to restore it.'),

  AUTH_FAILED: entry('auth', 'never', 'Wrong name or password.'),
  AUTH_ACCOUNT_LOCKED: entry('auth', 'never', 'The account is locked or closed (accountStatus).'),
  AUTH_ACCOUNT_MAINTENANCE: entry('unavailable', 'later', 'The account is in maintenance (accountStatus); try later.'),
  AUTH_TOKEN_UNVERIFIED: entry('unavailable', 'later', 'An access token cannot be judged: its issuer’s keys or server do not answer.'),
  AUTH_MECHANISM: entry(
    'unavailable',
    'later',
    'The cluster that hosts the account does not take this kind of login; configure it there as on the frontends.',
  ),
  AUTH_BUSY: entry('limit', 'later', 'Too many passwords are being verified at this moment.'),

  ROUTE_UNKNOWN_ACCOUNT: entry('not-found', 'never', 'The master directory has no account of that name.'),
  ROUTE_NO_HOST_SERVER: entry('unavailable', 'later', 'The account has no hostServer; place it.'),
  ROUTE_NO_CATCH_ALL: entry('unavailable', 'later', 'The domain’s mailCatchAll names an account that does not exist.'),
  ROUTE_UNKNOWN_CLUSTER: entry('unavailable', 'later', 'The account’s hostServer names no cluster of the topology.'),
  ROUTE_NO_MEMBER: entry('unavailable', 'later', 'No member of the account’s cluster can be reached.'),
  ROUTE_MASTER_BUSY: entry('unavailable', 'later', 'Too many addresses had to be asked for at the master directory in this second.'),
  ROUTE_LOOP: entry('unavailable', 'later', 'A session was redirected too often.'),

  FOREIGN_UNAVAILABLE: entry('unavailable', 'later', 'A server of a foreign cluster put the login off.'),
  FOREIGN_REFUSED: entry(
    'unavailable',
    'later',
    'A server of a foreign cluster does not do what is needed (STARTTLS, a login in clear, the master user); compare its configuration with foreignClusters.',
  ),
  FOREIGN_PROTOCOL: entry('unavailable', 'elsewhere', 'A server of a foreign cluster does not speak the protocol of its foreignService.'),
  FOREIGN_NO_HOST: entry('unavailable', 'later', 'No host of the account’s foreign cluster may be used now.'),
  FOREIGN_NO_SERVICE: entry('unavailable', 'later', 'The account’s foreign cluster has no foreignService of that protocol.'),

  LINK_PROTOCOL: entry('protocol', 'never', 'A peer sent a malformed frame on the link; the connection was closed.'),
  LINK_REFUSED: entry('denied', 'never', 'The peer is not listed, not certified or speaks another version.'),
  LINK_MOVED: entry('moved', 'elsewhere', 'The account is hosted by another cluster.'),
  LINK_NOT_HERE: entry('moved', 'elsewhere', 'The account is not hosted by this cluster.'),

  CLUSTER_NO_CONTROLLER: entry('unavailable', 'later', 'The cluster has no Controller at this moment.'),
  CLUSTER_STALE_TERM: entry('unavailable', 'elsewhere', 'A request carried a lower term than was already accepted.'),
  CLUSTER_DRAINING: entry('unavailable', 'elsewhere', 'The member is draining and opens no more accounts.'),
  CLUSTER_DEPOSED: entry('unavailable', 'later', 'Another member has opened the account since; nothing more is written here.'),

  ACCT_NOT_FOUND: entry('not-found', 'never', 'There is no such account.'),
  ACCT_EXISTS: entry('conflict', 'never', 'An account of that name exists.'),
  ACCT_REMOVED: entry('not-found', 'never', 'The account was removed.'),
  ACCT_OPERATION_PENDING: entry('unavailable', 'later', 'An account operation waits for the directory; it will be finished.'),

  STORE_UNAVAILABLE: entry('unavailable', 'later', 'Shared storage does not answer or refused the operation.'),
  STORE_UNSAFE: entry('config', 'never', 'Shared storage failed its start-up probe; the message says what to change.'),
  STORE_CORRUPT: entry('unavailable', 'later', 'A stored record fails its checksum; the account is read-only until it is repaired.'),
  STORE_NEWER: entry(
    'unavailable',
    'later',
    'A newer release stored something that this one does not know; the account is served by members of that release.',
  ),
  STORE_FULL: entry('limit', 'later', 'Shared storage is full.'),

  MBOX_NOT_FOUND: entry('not-found', 'never', 'There is no such mailbox.'),
  MBOX_EXISTS: entry('conflict', 'never', 'A mailbox of that name exists.'),
  MBOX_NAME_INVALID: entry('protocol', 'never', 'The mailbox name is not allowed.'),
  MBOX_OVER_QUOTA: entry('limit', 'later', 'The account is over its quota.'),
  MBOX_LIMIT: entry('limit', 'later', 'A limit on messages, mailboxes or sizes was reached.'),

  SCRIPT_NOT_FOUND: entry('not-found', 'never', 'There is no Sieve script of that name.'),
  SCRIPT_EXISTS: entry('conflict', 'never', 'A Sieve script of that name exists.'),
  SCRIPT_ACTIVE: entry('denied', 'never', 'The Sieve script is active; another one, or none, must be chosen first.'),
  SCRIPT_INVALID: entry('protocol', 'never', 'A Sieve script, or its name, is not taken; the message says why.'),

  PROTO_TOO_LONG: entry('protocol', 'never', 'A line, literal or message passed its stated limit.'),
  PROTO_SYNTAX: entry('protocol', 'never', 'The peer sent something that the protocol does not allow.'),
  PROTO_TLS_REQUIRED: entry('denied', 'never', 'The command needs TLS first.'),

  LIMIT_CONNECTIONS: entry('limit', 'later', 'Too many connections from this address or on this listener.'),
  LIMIT_LOGINS: entry('limit', 'later', 'Too many failed logins from this address or for this account.'),

  QUEUE_FULL: entry('limit', 'later', 'The frontend’s queue is full.'),
  QUEUE_UNAVAILABLE: entry('unavailable', 'later', 'The frontend’s queue directory cannot be read or written; look at its disk.'),

  REPL_TOO_MANY_DELETES: entry('config', 'later', 'A refresh would delete more entries than allowed; check the master, then allow it.'),
  REPL_MASTER_WENT_BACK: entry('config', 'later', 'The master lacks changes that it had reported: restored from an older backup?'),
  REPL_BEHIND: entry('unavailable', 'later', 'A replica is behind the master and does not move: it cannot be compared with it.'),
  REPL_LEASE_LOST: entry(
    'unavailable',
    'later',
    'Another replication service holds the lease of a replica and writes it; this one stands by.',
  ),
  REPL_NOT_PROMOTED: entry('config', 'later', 'A replica was not made the master; what is missing, and what to do, is in the message.'),
  REPL_TARGET_REFUSED: entry('config', 'later', 'A replica refused a change; the attribute and the fix are in the message.'),

  RESTART_FAILED: entry('config', 'later', 'A frontend’s new process did not come up, and the old one goes on; the message says why.'),

  ADMIN_UNAUTHORIZED: entry('auth', 'never', 'The admin API needs a valid token.'),
  ADMIN_FORBIDDEN: entry('denied', 'never', 'A change came with the console’s cookie, but not from the console’s own page.'),
  ADMIN_NOT_ABLE: entry('unavailable', 'elsewhere', 'This process cannot do that; ask the admin API of another node.'),
  ADMIN_NOT_FOUND: entry('not-found', 'never', 'The admin API knows no such object.'),
  ADMIN_CONFLICT: entry('conflict', 'never', 'What is asked for does not fit the state that things are in.'),
  ADMIN_BAD_REQUEST: entry('protocol', 'never', 'The request to the admin API is malformed.'),

  BUG_UNEXPECTED: entry('bug', 'never', 'Something happened that the code does not expect; report it with the log line.'),
} as const satisfies Record<string, CatalogueEntry>;

/** A code of the catalogue. */
export type ErrorCode = keyof typeof errorCatalogue;
