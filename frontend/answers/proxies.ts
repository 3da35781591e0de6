/**
 * Proxies ask over HTTP where a login goes: nginx by its `auth_http` (ngx_mail_auth_http_module), Dovecot by a passdb in Lua
 * (deploy/foreign/dovecot-passdb.lua). Neither asks whether the password is right: the server that they are sent to says that.
 *
 *   GET /nginx     Auth-User: alice@isp.example, Auth-Protocol: imap   → Auth-Status: OK, Auth-Server: 192.0.2.11, Auth-Port: 143
 *   GET /nginx     Auth-Method: none, Auth-Protocol: smtp              → the same for mail from other servers (smtp_auth none)
 *   GET /account?name=alice@isp.example&protocol=imap                  → { "host": "192.0.2.11", "port": 143, "tls": "none", "account": … }
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { createHttpServer, type HttpRequest } from '#common/http/server.ts';
import type { Logger } from '#common/log/logger.ts';
import { addressList } from '#common/network/address-list.ts';
import type { SocketSource } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import { type ForeignProtocol, foreignProtocols } from '#directory/client/records.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { type HttpListener, listenHttp } from '#frontend/listeners/http.ts';
import type { Destination, Destinations } from './destinations.ts';

/** Seconds that nginx waits before it lets the client try again. */
const nginxWaitSeconds = 3;

/** Opens the port. Rejects with `NET_CONNECT_FAILED` when it cannot be bound. */
export async function startProxyAnswers(
  listener: FrontendListener,
  tls: { readonly cert: string; readonly key: string } | undefined,
  log: Logger,
  destinations: Destinations,
  network: Pick<Network, 'serverFor'>,
  sockets?: SocketSource,
): Promise<HttpListener> {
  const mayAsk = addressList(listener.allowFrom ?? ['127.0.0.0/8', '::1']);
  const server = createHttpServer({ log, network, tls: listener.tls === 'implicit' ? tls : undefined });
  server.addHook('onRequest', async (request) => {
    const address = plainAddress(request.socket.remoteAddress);
    if (!mayAsk(address)) throw new PlatformError('LINK_REFUSED', `${address} is not in allowFrom of this listener`);
  });
  server.get('/nginx', async (request, reply) => {
    // Node takes the octets of a header for latin1; a name may have others.
    const header = (name: string): string => Buffer.from(String(request.headers[name] ?? ''), 'latin1').toString();
    const protocol = header('auth-protocol') === 'smtp' ? 'submission' : protocolOf(header('auth-protocol'));
    const reached = reachedBy(request);
    const isMail = protocol === 'submission' && header('auth-method') === 'none';
    // nginx writes %XX for what would break a header.
    const name = percentDecoded(header('auth-user'));
    const destination = isMail ? destinations.ofMail(reached) : await destinations.find(name, protocol, reached);
    return reply.headers(nginxHeaders(destination, protocol)).send('');
  });
  server.get('/account', async (request) => {
    const { name, protocol } = request.query as { name?: unknown; protocol?: unknown };
    if (typeof name !== 'string') throw new PlatformError('ADMIN_BAD_REQUEST', 'the query has no name=; give a login name or an address');
    const destination = await destinations.find(name, protocolOf(typeof protocol === 'string' ? protocol : 'imap'), reachedBy(request));
    if (destination.kind === 'unknown') throw new PlatformError('ROUTE_UNKNOWN_ACCOUNT', 'the master has no such account');
    if (destination.kind === 'temporary') throw new PlatformError('FOREIGN_UNAVAILABLE', destination.reason);
    const { host, port, tls: transport, account } = destination;
    return { host, port, tls: transport, account };
  });
  return await listenHttp(server, listener, sockets);
}

/** What nginx is told. It looks up no names and makes no TLS connections to backends, so a server that needs either is of no use to it. */
export function nginxHeaders(destination: Destination, protocol: ForeignProtocol): Record<string, string> {
  if (destination.kind === 'server' && destination.tls !== 'implicit' && /^[0-9a-fA-F.:]+$/.test(destination.host)) {
    return {
      'Auth-Status': 'OK',
      'Auth-Server': destination.host,
      'Auth-Port': String(destination.port),
      ...(destination.account === '' ? {} : { 'Auth-User': Buffer.from(destination.account).toString('latin1') }),
    };
  }
  if (destination.kind === 'unknown') {
    return {
      'Auth-Status': 'Authentication failed',
      'Auth-Wait': String(nginxWaitSeconds),
      ...(protocol === 'submission' ? { 'Auth-Error-Code': '535 5.7.8' } : {}),
    };
  }
  return { 'Auth-Status': 'Temporarily unavailable, try again', ...(protocol === 'submission' ? { 'Auth-Error-Code': '451 4.3.0' } : {}) };
}

function reachedBy(request: HttpRequest): string {
  return plainAddress(request.socket.localAddress);
}

function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '');
}

function protocolOf(text: string): ForeignProtocol {
  const known = foreignProtocols.find((name) => name === text.toLowerCase());
  if (known === undefined) throw new PlatformError('ADMIN_BAD_REQUEST', `the protocol is not one of ${foreignProtocols.join(', ')}`);
  return known;
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
