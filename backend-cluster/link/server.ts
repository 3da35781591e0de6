/**
 * The member's end of the link: accepts connections from the Cluster Network, checks who speaks, and hands sessions and calls to the
 * member. A peer that is not listed, not certified, of another version or of no understandable speech is refused and named in the log
 * once a minute; it disturbs nobody else.
 */
import { LinkConnection } from '#backend-cluster/client/link-connection.ts';
import { checkPeer, type LinkTlsPems } from '#backend-cluster/client/link-tls.ts';
import type { Clock } from '#common/clock.ts';
import type { ErrorCode } from '#common/errors/catalogue.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName, MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { Connection, Network } from '#common/network/network.ts';
import { frameTypes } from '#protocol/link/frames.ts';
import { commonVersion, type Hello, helloOf, type LinkRole, type LinkStatus, parseHello } from '#protocol/link/hello.ts';
import { hopsMax, type LinkCallAnswer, type LinkLogin, type OpenSession, type OpenSessionAnswer } from '#protocol/link/messages.ts';
import { clusterNetwork } from './cluster-network.ts';

/** Connections accepted at a time, all peers together. */
export const connectionsMax = 4_096;
const refusalLogEveryMs = 60_000;
const refusalsRemembered = 1_024;
/** What a member that is sound asks for only when it is late. */
const strangeCodes: ReadonlySet<ErrorCode> = new Set(['CLUSTER_STALE_TERM', 'LINK_PROTOCOL', 'LINK_REFUSED']);
const unlistedText = 'the address is not in the Cluster Network';

/** The one who dialled, as proved. */
export interface LinkPeer {
  readonly role: LinkRole;
  readonly name: string;
  readonly cluster: string | undefined;
  readonly incarnation: string;
  readonly address: string;
}

/** What the member decided about a session; `serve` takes the channel once `opened` has been sent. */
export interface SessionDecision {
  readonly answer: OpenSessionAnswer;
  readonly serve?: (channel: Connection) => void;
  /** Called instead of `serve` when the peer has gone meanwhile. */
  readonly abandon?: () => void;
}

/** What the link server is made of. */
export interface LinkServerOptions {
  readonly name: MemberName;
  readonly cluster: ClusterName;
  readonly incarnation: string;
  /** See `helloOf`. */
  readonly linkVersionMax?: number | undefined;
  readonly listen: { readonly address: string; readonly port: number };
  readonly tls: LinkTlsPems | undefined;
  readonly clusterNetwork: readonly string[];
  readonly clock: Clock;
  readonly network: Network;
  readonly log: Logger;
  readonly metrics: Metrics;
  status(): LinkStatus;
  open(peer: LinkPeer, request: OpenSession): Promise<SessionDecision>;
  call(peer: LinkPeer, method: string, params: unknown): Promise<unknown>;
}

/** A link server that listens. */
export interface LinkServer {
  readonly address: string;
  readonly port: number;
  /** Tells all peers the member's state at once, not at the next ping. */
  announce(): void;
  /** Stops accepting and closes all links in good order. */
  close(): Promise<void>;
  /** Drops everything without a word, as a dead process does. */
  kill(): void;
}

/** Starts listening. Rejects with `NET_CONNECT_FAILED` when the address is taken. */
export async function startLinkServer(options: LinkServerOptions): Promise<LinkServer> {
  const isListed = clusterNetwork(options.clusterNetwork);
  const refusals = new RefusalLog(options.clock, options.log);
  const links = new Map<LinkConnection, LinkPeer | undefined>();
  const gauge = options.metrics.gauge('archipelago_link_peers', 'Link connections that this member has accepted.', ['role']);
  options.metrics.onCollect(() => {
    for (const role of ['frontend', 'backend-cluster', 'directory', 'operate']) {
      gauge.set({ role }, [...links.values()].filter((peer) => peer?.role === role).length);
    }
  });

  const accept = (connection: Connection): void => {
    if (!isListed(connection.remoteAddress)) {
      refusals.note(connection.remoteAddress, new PlatformError('LINK_REFUSED', unlistedText));
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      return;
    }
    if (links.size >= connectionsMax) {
      refusals.note(connection.remoteAddress, new PlatformError('LIMIT_CONNECTIONS', `more than ${connectionsMax} link connections`));
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      return;
    }
    const link: LinkConnection = new LinkConnection(connection, options.clock, 'acceptor', {
      hello: (message) => {
        try {
          links.set(link, welcome(message, connection, options));
        } catch (error) {
          const { code, message: text } = asPlatformError(error);
          link.sendJson(frameTypes.refuse, 0, { code, message: text });
          throw error;
        }
        link.opened();
        link.sendJson(frameTypes.hello, 0, helloOf({ ...options, role: 'backend-cluster' }));
        link.sendStatus();
      },
      open: (channel, message) => void answerOpen(link, channel, message),
      call: (number, message) => void answerCall(link, number, message),
      report: () => options.status(),
      closed: (error) => {
        const peer = links.get(link);
        links.delete(link);
        if (error.code === 'NET_CLOSED' && peer === undefined) return;
        if (error.kind === 'protocol' || error.kind === 'denied' || peer === undefined) refusals.note(connection.remoteAddress, error);
        else options.log.debug({ peer: peer.name, errCode: error.code }, `link from ${peer.name} ended: ${error.message}`);
      },
    });
    links.set(link, undefined);
  };

  const answerOpen = async (link: LinkConnection, channel: Parameters<LinkConnection['answer']>[0], message: Record<string, unknown>) => {
    const peer = links.get(link);
    if (peer === undefined) return;
    let decision: SessionDecision;
    try {
      decision = await options.open(peer, parseOpenSession(message));
    } catch (error) {
      decision = { answer: refusal(error, options.log) };
    }
    if (link.answer(channel, decision.answer)) decision.serve?.(channel);
    else decision.abandon?.();
  };

  const answerCall = async (link: LinkConnection, number: number, message: Record<string, unknown>) => {
    const peer = links.get(link);
    if (peer === undefined) return;
    let answer: LinkCallAnswer;
    try {
      if (typeof message.method !== 'string') throw new PlatformError('LINK_PROTOCOL', 'a call without a method');
      answer = { ok: true, result: await options.call(peer, message.method, message.params) };
    } catch (error) {
      const { code, kind, message: text } = refusal(error, options.log);
      // Of a Controller that was replaced, or of somebody who says again what was said before.
      if (strangeCodes.has(code)) refusals.note(peer.name, new PlatformError(code, text), 'request');
      answer = { ok: false, code, kind, message: text };
    }
    try {
      link.result(number, answer);
    } catch (error) {
      options.log.error({ err: error, method: message.method }, 'a call’s result is too large for the link');
      link.close(asPlatformError(error));
    }
  };

  const listener = await options.network.listen(
    {
      host: options.listen.address,
      port: options.listen.port,
      ...(options.tls === undefined ? {} : { tls: { ...options.tls, requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' } }),
      turnedAway: (address, why) => {
        const text = isListed(address)
          ? `the TLS handshake failed (${why}); a peer shows a certificate of this cluster’s CA`
          : unlistedText;
        refusals.note(address, new PlatformError('LINK_REFUSED', text));
      },
    },
    accept,
  );
  return {
    address: listener.address,
    port: listener.port,
    announce() {
      for (const link of links.keys()) link.sendStatus();
    },
    async close() {
      await listener.close();
      for (const link of [...links.keys()]) link.close(new PlatformError('NET_CLOSED', 'the member stops'));
    },
    kill() {
      void listener.close();
      for (const link of [...links.keys()]) link.kill(new PlatformError('NET_CLOSED', 'the member was killed'));
    },
  };
}

// A refused peer is told why in terms of what it showed, because an operator looks at both logs.
function welcome(message: Record<string, unknown>, connection: Connection, options: LinkServerOptions): LinkPeer {
  const theirs: Hello = parseHello(message);
  checkPeer({ name: theirs.name, role: theirs.role, address: connection.remoteAddress, tls: connection.tls });
  const mine = helloOf({ ...options, role: 'backend-cluster' });
  if (commonVersion(mine, theirs) === undefined) {
    throw new PlatformError(
      'LINK_REFUSED',
      `${theirs.name} speaks link versions ${theirs.versionMin} to ${theirs.versionMax}, this member ${mine.versionMin} to ${mine.versionMax}`,
    );
  }
  return {
    role: theirs.role,
    name: theirs.name,
    cluster: theirs.cluster,
    incarnation: theirs.incarnation,
    address: connection.remoteAddress,
  };
}

function refusal(error: unknown, log: Logger): Extract<OpenSessionAnswer, { outcome: 'refused' }> {
  const known = asPlatformError(error);
  if (known.kind === 'bug') log.error({ err: error }, 'a request on the link failed in a way that was not expected');
  return { outcome: 'refused', code: known.code, kind: known.kind, message: known.message };
}

/** Checks an `open` message, or throws `LINK_PROTOCOL`. */
export function parseOpenSession(message: Record<string, unknown>): OpenSession {
  const request = message as unknown as OpenSession;
  const { service, sessionId, account, login, resume, client, from, hops } = request;
  const isText = (value: unknown, max: number): value is string => typeof value === 'string' && value.length <= max;
  const isWell =
    isText(service, 32) &&
    isText(sessionId, 128) &&
    (account === undefined || (isText(account.uuid, 64) && isText(account.name, 512))) &&
    (login === undefined || isLinkLogin(login)) &&
    (resume === undefined ||
      (isText(resume.member, 255) && isText(resume.host, 255) && Number.isInteger(resume.port) && isText(resume.ticket, 64))) &&
    isText(client?.address, 64) &&
    isText(from, 255) &&
    Number.isInteger(hops) &&
    hops >= 0;
  if (!isWell) throw new PlatformError('LINK_PROTOCOL', 'a request to open a session is malformed');
  if (hops > hopsMax) throw new PlatformError('ROUTE_LOOP', `session ${sessionId} was passed on more than ${hopsMax} times`);
  return request;
}

/** Whether it is a login of one of the kinds that this release knows, of lengths that are looked at. */
export function isLinkLogin(login: LinkLogin): boolean {
  const isText = (value: unknown, max: number): boolean => typeof value === 'string' && value.length <= max;
  if (!isText(login?.authenticationId, 1024)) return false;
  if (login.mechanism === 'PLAIN') return isText(login.authorizationId, 1024) && isText(login.password, 4096);
  if (login.mechanism === 'BEARER') return isText(login.token, 16_384);
  return login.mechanism === 'SCRAM-SHA-256' && isText(login.authMessage, 32_768) && isText(login.proof, 128);
}

/** Names a refused peer once a minute; remembers at most `refusalsRemembered` of them. */
class RefusalLog {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lastAtMs = new Map<string, number>();

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  note(peer: string, error: PlatformError, what = 'link connection'): void {
    const now = this.#clock.monotonicMs();
    const last = this.#lastAtMs.get(peer);
    if (last !== undefined && now - last < refusalLogEveryMs) return;
    if (last === undefined && this.#lastAtMs.size >= refusalsRemembered) {
      this.#lastAtMs.delete(this.#lastAtMs.keys().next().value as string);
    }
    this.#lastAtMs.set(peer, now);
    this.#log.warn({ peer, errCode: error.code }, `${what} from ${peer} refused: ${error.message}`);
  }
}
