/**
 * Where the frontend's mail half (SMTP and submission listeners, queue) meets the rest of the frontend. frontend/main.ts calls
 * `startSmtp(options): Promise<RunningSmtp>` of smtp.ts with what stands here, and keeps routing, login and the link to itself:
 * the mail half asks for recipients, passwords and delivery channels, and never sees a directory, a topology or a member's address.
 */
import type { AccountName, AccountUuid, DomainName } from '#common/account-name.ts';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { Connection } from '#common/network/network.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { FrontendConfig, FrontendListener } from '#frontend/config.ts';
import type { AddressRules } from '#frontend/guard/address-rules.ts';
import type { Credentials, SaslSettings } from '#frontend/session/credentials.ts';
import type { SaltAnswer } from '#frontend/session/open-session.ts';
import type { Settings } from '#frontend/subset/settings.ts';
import type { EndableSession } from '#frontend/subset/withdrawal.ts';
import type { ChangingTls } from '#frontend/tls/frontend-tls.ts';

/** What the frontend knows of a recipient's address now. */
export type MailRoute =
  /** An account of this installation: deliver to `cluster`, naming `name` in RCPT (the address itself, or after `resolveUuid` the account's name). */
  | { readonly kind: 'local'; readonly uuid: AccountUuid | undefined; readonly name: AccountName; readonly cluster: ClusterName }
  /** The domain is served here and the master says that it has no such address. */
  | { readonly kind: 'unknown' }
  /** The domain is not served here. */
  | { readonly kind: 'foreign-domain' }
  /** Nothing permanent may be said now; `error` is for the log, its kind for the peer. */
  | { readonly kind: 'temporary'; readonly error: PlatformError };

/** Answers for addresses. `resolve` and `resolveUuid` never reject for reasons of the network or the directory: those are `temporary`. */
export interface MailRouter {
  resolve(address: AccountName): Promise<MailRoute>;
  /**
   * Where an account is now and what it is called now, for mail that was accepted under an earlier name. `unknown` only when the master
   * has no entry of that `entryUUID`; never `foreign-domain`.
   */
  resolveUuid(uuid: AccountUuid): Promise<MailRoute>;
  /** Whether the domain, or an alias of it, is served here. Rejects with `DIR_*` while that cannot be known. */
  isLocalDomain(domain: DomainName): Promise<boolean>;
}

/** A submission client's login. */
export interface MailLogin {
  /** As the client gave it: short or full. */
  readonly loginName: string;
  readonly credentials: Credentials;
  readonly sessionId: string;
  /** Domain of a short name; the frontend's own default where it is missing. */
  readonly defaultDomain?: DomainName | undefined;
  readonly client: { readonly address: string; readonly port: number; readonly tls: boolean };
}

/** What became of a login. `error` decides the reply by its kind; delays against guessing have been served when it comes. */
export type MailLoginResult =
  | { readonly ok: true; readonly name: AccountName; readonly serverSignature?: string }
  | { readonly ok: false; readonly error: PlatformError };

/** A connection to a server that takes mail by LMTP. `isGreeted`: its greeting has been read already. */
export interface Delivery {
  readonly connection: Connection;
  readonly isGreeted: boolean;
}

/** Everything that `startSmtp` is given. */
export interface SmtpOptions {
  readonly config: FrontendConfig;
  /** Those listeners of the configuration whose protocol is `smtp` or `submission`, in order. */
  readonly listeners: readonly FrontendListener[];
  /** Certificate and key; `undefined` when the configuration has none (then every listener has `tls: none`). */
  readonly tls: ChangingTls | undefined;
  /** Limits and times, as they are now. */
  readonly settings: Settings;
  /** What operators decided about addresses. */
  readonly rules?: AddressRules | undefined;
  readonly router: MailRouter;
  authenticate(login: MailLogin): Promise<MailLoginResult>;
  /** What a SCRAM exchange begins with. Never rejects. */
  scramSalt(login: Pick<MailLogin, 'loginName' | 'defaultDomain' | 'client'>): Promise<SaltAnswer>;
  /** What is taken beside passwords. */
  readonly sasl?: SaslSettings;
  /** An LMTP channel to a ready member of the cluster, or to the host of a foreign one that `cluster` names. Rejects with `ROUTE_*`, `NET_*` or `LINK_*`. */
  openDelivery(cluster: ClusterName): Promise<Delivery>;
  /** Set where another process has the queue's directory: resolves once that one has stopped delivering. */
  takeQueue?(): Promise<void>;
  readonly ports: Ports;
}

/** The running mail half. */
export interface RunningSmtp extends AsyncDisposable {
  /** One line per listener, in the order of `listeners`, with the bound port. */
  listeners(): FrontendStatus['listeners'];
  queue(): FrontendStatus['queue'];
  /** The settings have changed. */
  applySettings(): void;
  /** Whether new connections are taken up; sessions go on. Rejects when a port is somebody else's by now. */
  setAccepting(isAccepting: boolean): Promise<void>;
  /** Clients connected. */
  connections(): number;
  /** Sessions that can be told to go. */
  sessions(): Iterable<EndableSession>;
  /** Delivers no more, for another process to do so; see queue.ts. */
  release(heir: (id: string) => void): Promise<void>;
  /** Delivers again. */
  takeBack(): Promise<void>;
  /** Takes up a message that the other process has queued. */
  adopt(id: string): Promise<void>;
}

/** Type of `startSmtp` in smtp.ts. */
export type StartSmtp = (options: SmtpOptions) => Promise<RunningSmtp>;

/** Of a process that takes no mail. */
export const noMail: RunningSmtp = {
  listeners: () => [],
  queue: () => ({ messages: 0, oldestAgeMs: 0, delivered: 0, deferred: 0, bounced: 0 }),
  applySettings: () => {},
  setAccepting: async () => {},
  connections: () => 0,
  sessions: () => [],
  release: async () => {},
  takeBack: async () => {},
  adopt: async () => {},
  async [Symbol.asyncDispose]() {},
};
