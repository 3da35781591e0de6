/**
 * The HTTP listener of a frontend: health for the subset's load balancer, metrics, and autoconfiguration for mail clients.
 *
 * `/livez`, `/readyz` and `/metrics` are those of common/http/health.ts, for this frontend alone. Mail clients look their settings up at
 * `/mail/config-v1.1.xml` (on autoconfig.DOMAIN) and `/.well-known/autoconfig/mail/config-v1.1.xml` (draft-ietf-mailmaint-autoconfig); the
 * answer names this frontend's own listeners and is the same for every address, so that nobody learns which accounts exist.
 */

import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { addHealthRoutes } from '#common/http/health.ts';
import { createHttpServer, type HttpServer, listenAt } from '#common/http/server.ts';
import type { RunningService } from '#common/lifecycle.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Metrics } from '#common/metrics/metrics.ts';
import type { SocketSource } from '#common/network/listening-sockets.ts';
import type { Network } from '#common/network/network.ts';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { FrontendListener } from '#frontend/config.ts';

/** What the listener is made of. */
export interface HttpListenerOptions {
  readonly listener: FrontendListener;
  /** PEM texts, for `tls: implicit`. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Name that clients reach this frontend by. */
  readonly hostName: string;
  /** Domain that the settings are for; without it none are given out. */
  readonly domain: string | undefined;
  readonly frontend: Pick<RunningService<FrontendStatus>, 'role' | 'name' | 'readiness' | 'status'>;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly network: Pick<Network, 'serverFor'>;
  readonly sockets?: SocketSource | undefined;
}

/** A bound HTTP listener. */
export interface HttpListener extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
}

/** Binds the listener. Rejects with `NET_CONNECT_FAILED` when the address cannot be bound. */
export async function startHttpListener(options: HttpListenerOptions): Promise<HttpListener> {
  const { listener, frontend, log, network } = options;
  const server = createHttpServer({ log, network, tls: listener.tls === 'implicit' ? options.tls : undefined });
  addHealthRoutes(server, { services: [frontend], metrics: options.metrics });
  for (const path of ['/mail/config-v1.1.xml', '/.well-known/autoconfig/mail/config-v1.1.xml']) {
    server.get(path, (_request, reply) => {
      if (options.domain === undefined) {
        throw new PlatformError('ADMIN_NOT_FOUND', 'this frontend has no defaultDomain and gives out no settings for mail clients');
      }
      const settings = clientSettings(options.domain, options.hostName, frontend.status().listeners);
      return reply.type('application/xml; charset=utf-8').send(settings);
    });
  }
  return await listenHttp(server, listener, options.sockets);
}

/** Binds a server to a listener's address. Rejects with `NET_CONNECT_FAILED` when that cannot be bound. */
export async function listenHttp(server: HttpServer, listener: FrontendListener, sockets: SocketSource | undefined): Promise<HttpListener> {
  try {
    const { port } = await listenAt(server, { host: listener.address, port: listener.port }, sockets);
    return { address: listener.address, port, [Symbol.asyncDispose]: () => server.close() };
  } catch (error) {
    throw new PlatformError('NET_CONNECT_FAILED', `cannot listen on ${listener.address}:${listener.port}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The settings document for mail clients. */
export function clientSettings(domain: string, hostName: string, listeners: FrontendStatus['listeners']): string {
  const server = (kind: string, type: string, listener: FrontendStatus['listeners'][number]): string[] => [
    `    <${kind} type="${type}">`,
    `      <hostname>${escapeXml(hostName)}</hostname>`,
    `      <port>${listener.port}</port>`,
    `      <socketType>${listener.tls === 'implicit' ? 'SSL' : listener.tls === 'starttls' ? 'STARTTLS' : 'plain'}</socketType>`,
    '      <username>%EMAILADDRESS%</username>',
    '      <authentication>password-cleartext</authentication>',
    `    </${kind}>`,
  ];
  // Implicit TLS first: clients take the first that they understand (RFC 8314 §3).
  const byProtocol = (protocol: string) =>
    listeners.filter((each) => each.protocol === protocol).sort((a, b) => Number(b.tls === 'implicit') - Number(a.tls === 'implicit'));
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<clientConfig version="1.1">',
    `  <emailProvider id="${escapeXml(domain)}">`,
    `    <domain>${escapeXml(domain)}</domain>`,
    ...byProtocol('imap').flatMap((listener) => server('incomingServer', 'imap', listener)),
    ...byProtocol('pop3').flatMap((listener) => server('incomingServer', 'pop3', listener)),
    ...byProtocol('submission').flatMap((listener) => server('outgoingServer', 'smtp', listener)),
    '  </emailProvider>',
    '</clientConfig>',
    '',
  ].join('\n');
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
