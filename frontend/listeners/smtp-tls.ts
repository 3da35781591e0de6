/**
 * TLS of the smtp-server library: it makes contexts of its own from one certificate, and what it is asked for here instead are those that all other
 * listeners of the frontend have, as they are at each handshake: certificates by name, CA of clients, and the ticket key of the subset.
 */
import { domainToASCII } from 'node:url';
import type { SMTPServer, SMTPServerOptions } from 'smtp-server';
import type { TlsServerOptions } from '#common/network/network.ts';
import { contextFor, contextsOf, secureOptions } from '#common/network/secure-contexts.ts';

/** What the library is started with. */
export function smtpTlsOptions(tls: TlsServerOptions): SMTPServerOptions {
  const { cert, key, minVersion, requestCert, rejectUnauthorized } = secureOptions(tls);
  return {
    cert,
    key,
    minVersion,
    // The library judges by these what a client showed, and asks for nothing without them.
    requestCert,
    rejectUnauthorized,
    // It hands on the name as people read it.
    SNICallback: (name, answer) => answer(null, contextFor(contextsOf(tls), domainToASCII(name))),
  };
}

/** Has every handshake from now on begin with the listener's own context. */
export function takeContextsOf(server: SMTPServer, tls: TlsServerOptions): void {
  server.secureContext.get = () => contextFor(contextsOf(tls), '');
}
