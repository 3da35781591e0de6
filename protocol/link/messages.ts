/**
 * What frontends and members say to each other on the link, apart from frames (frames.ts): plain JSON objects in control frames.
 * Version N and N-1 interoperate: fields are only added, and unknown fields are ignored.
 */
import type { ErrorCode } from '#common/errors/catalogue.ts';
import type { ErrorKind } from '#common/errors/platform-error.ts';

/** Version of this file's messages and of the frames. */
export const linkVersion = 2;

/** What a channel carries once it is open. `deliver`: a message from one member to the current host; only members may. `export`, `import`: an
 * archive of the account; only the admin API may. */
export type LinkService = 'imap' | 'pop3' | 'managesieve' | 'lmtp' | 'deliver' | 'export' | 'import';

/** What a client shows to be somebody. The member judges it; the frontend only reads from it whose account to look for. */
export type LinkLogin =
  | {
      readonly mechanism: 'PLAIN';
      readonly authorizationId: string;
      readonly authenticationId: string;
      readonly password: string;
    }
  /** An access token. Members of version 1 and 2 releases without it refuse it as malformed: upgrade them before frontends offer it. */
  | { readonly mechanism: 'BEARER'; readonly authenticationId: string; readonly token: string }
  /**
   * A finished SCRAM exchange (RFC 5802). The frontend has seen to nonces and channel binding; the proof is checked against keys that
   * never leave the cluster.
   */
  | {
      readonly mechanism: 'SCRAM-SHA-256';
      readonly authenticationId: string;
      /** The three messages that the proof is over, joined (RFC 5802 §3, AuthMessage). */
      readonly authMessage: string;
      readonly proof: string;
    };

/** Asks a member to serve a client's session. */
export interface OpenSession {
  readonly service: LinkService;
  /** Born at the frontend; on every log line of every server. */
  readonly sessionId: string;
  /** Missing for `lmtp`, where recipients are named in the dialogue. */
  readonly account?: {
    /** `entryUUID` from the frontend's route; empty where the frontend does not know it: the member then finds the account by `name`. */
    readonly uuid: string;
    /**
     * Name that the client gave, folded. The frontend's route may be stale: a member that sees that the name is
     * not the account's (its name, `mail` or an alternate, at the domain or an alias of it), or that there is no such account, refuses with
     * `LINK_NOT_HERE` and not with `AUTH_FAILED`. The frontend then asks the master and comes back, or says that the login is wrong.
     */
    readonly name: string;
  };
  /** Missing for `lmtp`: the frontend's certificate is its right to deliver. */
  readonly login?: LinkLogin;
  readonly client: {
    readonly address: string;
    readonly port: number;
    readonly tls: boolean;
    /** Address that the client reached. */
    readonly localAddress?: string;
    readonly tlsProtocol?: string;
    readonly tlsCipher?: string;
    /** Name that the client asked for. */
    readonly tlsServerName?: string;
    /** First name in a verified certificate of the client. */
    readonly tlsClientName?: string;
  };
  /** The frontend can go on with the session at another member (`SessionNotice`). */
  readonly canMove?: boolean;
  /** Goes on with a session that another member of the cluster has handed over, which gives its state for the ticket. Instead of `login`. */
  readonly resume?: { readonly member: string; readonly host: string; readonly port: number; readonly ticket: string };
  /** Server that asks. */
  readonly from: string;
  /** Redirects so far; at `hopsMax` the session is refused with `ROUTE_LOOP`. */
  readonly hops: number;
}

/**
 * What a member says beside a session's bytes when the session's account is about to go to another member.
 *
 *   member ──move──► frontend: sends no more than it has, then ends its side
 *   member: does what has come, and comes to rest between two commands or in IDLE
 *   member ──ticket──► and ends its side; the frontend opens the session at another member with `resume`, which collects the state
 *
 * A session that does not come to rest gets its bye and no ticket.
 */
export type SessionNotice = { readonly kind: 'move' } | { readonly kind: 'ticket'; readonly ticket: string };

/** The call by which a member collects a session's state: `{ ticket, frontend }`. For members of the cluster. */
export const collectMethod = 'sessions.collect';

/** Most redirects of one session. */
export const hopsMax = 3;

/** Answer to `OpenSession`. */
export type OpenSessionAnswer =
  /**
   * The channel is open. `capabilities`: what the member's protocol server offers after login, for the frontend's answer. `serverSignature`: of
   * SCRAM, for the client to check.
   */
  | {
      readonly outcome: 'opened';
      readonly capabilities: readonly string[];
      readonly accountName: string;
      readonly serverSignature?: string;
    }
  /** Ask that member: it is the account's current host. */
  | { readonly outcome: 'at'; readonly member: string; readonly host: string; readonly port: number }
  /** The account is hosted by another cluster (`hostServer` when known): re-read the entry from the master and try once more. */
  | { readonly outcome: 'moved'; readonly hostServer?: string }
  | { readonly outcome: 'refused'; readonly code: ErrorCode; readonly kind: ErrorKind; readonly message: string };

/** A named call with a JSON answer: account operations, status, cluster-internal messages. */
export interface LinkCall {
  readonly method: string;
  readonly params: unknown;
}

/** Answer to a `LinkCall`. */
export type LinkCallAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly code: ErrorCode; readonly kind: ErrorKind; readonly message: string };

/** The call by which a frontend has one of its sessions ended in its protocol's words, between two answers: `{ sessionId, text }`. */
export const byeMethod = 'sessions.bye';

/** The call by which a frontend has a password verified without opening a session (submission). */
export const authenticateMethod = 'authenticate';

/**
 * The same for what is shown instead of a password. A name of its own: a member of an earlier release would take the missing password for a wrong one.
 */
export const authenticateLoginMethod = 'authenticate.login';

/**
 * Parameters of both; `uuid` and `name` as in `OpenSession`. The call rejects with `AUTH_FAILED` for a wrong password, with
 * `LINK_NOT_HERE` or `LINK_MOVED` for an account that is not hosted there or is not of that name.
 */
export interface AuthenticateParams {
  readonly uuid: string;
  readonly name: string;
  /** Empty where `login` is given. */
  readonly password: string;
  /** What is shown instead of a password. */
  readonly login?: LinkLogin;
  /** As in `OpenSession`; frontends of earlier releases send none. */
  readonly sessionId?: string;
  readonly client: { readonly address: string; readonly port: number; readonly tls: boolean };
}

/** Result of `authenticateMethod`. */
export interface AuthenticateResult {
  readonly ok: true;
  /** The account's name now, which the entry decides and not what the client typed. */
  readonly name: string;
  /** Of SCRAM. */
  readonly serverSignature?: string;
}

/**
 * The call by which a frontend learns what a SCRAM exchange begins with: `{ uuid, name }` as in `OpenSession`. It rejects with `LINK_NOT_HERE` or
 * `LINK_MOVED` as `authenticateMethod` does.
 */
export const scramSaltMethod = 'scram.salt';

/** Result of `scramSaltMethod`; `{}` for an account without SCRAM keys, which a client must not be able to tell from one with them. */
export interface ScramSalt {
  /** Base64. */
  readonly salt?: string;
  readonly iterations?: number;
}
