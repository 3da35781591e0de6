/** Contexts of Node's TLS: certificates, keys and settings that many connections share; and what Node knows of a connection that has one. */
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { alternativeNames, serverNamesIn } from '#common/network/certificate-names.ts';
import type { TlsFacts, TlsServerOptions } from '#common/network/network.ts';

/** Of the options those that Node's servers and contexts take. */
export function secureOptions(tls: TlsServerOptions) {
  return {
    cert: tls.cert,
    key: tls.key,
    minVersion: tls.minVersion ?? ('TLSv1.2' as const),
    requestCert: tls.requestCert ?? false,
    rejectUnauthorized: tls.rejectUnauthorized ?? tls.requestCert ?? false,
    ...(tls.ca === undefined || tls.ca === '' ? {} : { ca: tls.ca }),
  };
}

/** One certificate's context, and the names it is for. */
interface NamedContext {
  readonly names: readonly string[];
  readonly context: SecureContext;
}

/** Contexts of a listener: the first is shown unless a client asks for a name that another one is for. */
export interface Contexts {
  readonly version: string | undefined;
  /** Of which all contexts are made. */
  readonly shared: ReturnType<typeof secureOptions>;
  readonly first: SecureContext;
  readonly further: readonly NamedContext[];
}

/** A context costs about a millisecond and belongs to many connections: made once for each version of the options. */
const contextsByOptions = new WeakMap<TlsServerOptions, Contexts>();

/** The contexts, as the options are now. */
export function contextsOf(options: TlsServerOptions): Contexts {
  const known = contextsByOptions.get(options);
  if (known !== undefined && known.version === options.version) return known;
  const shared = {
    ...secureOptions(options),
    // Sessions are resumed where the same application has the same ticket key, whatever process it is.
    sessionIdContext: 'archipelago',
    ...(options.ticketKey === undefined ? {} : { ticketKeys: options.ticketKey }),
  };
  const contexts: Contexts = {
    version: options.version,
    shared,
    first: createSecureContext(shared),
    further: (options.further ?? []).map(({ cert, key }) => ({
      names: serverNamesIn(cert),
      context: createSecureContext({ ...shared, cert, key }),
    })),
  };
  contextsByOptions.set(options, contexts);
  return contexts;
}

/** The one for a client that asks for this name, or for none (`''`). */
export function contextFor(contexts: Contexts, asked: string): SecureContext {
  const name = asked.toLowerCase();
  const wildcard = name.replace(/^[^.]+/, '*');
  // The certificate that names it goes before one that covers it.
  const found =
    contexts.further.find(({ names }) => names.includes(name)) ?? contexts.further.find(({ names }) => names.includes(wildcard));
  return found?.context ?? contexts.first;
}

/** What is known of a connection once its handshake is over. */
export function tlsFactsOf(socket: TLSSocket): TlsFacts {
  const certificate = socket.getPeerCertificate();
  // A peer that was let in without a verified certificate has no names.
  const names = socket.authorized ? certificate?.subjectaltname : undefined;
  return {
    protocol: socket.getProtocol() ?? '',
    cipher: socket.getCipher()?.name ?? '',
    serverName: typeof socket.servername === 'string' && socket.servername !== '' ? socket.servername : undefined,
    ...(socket.getProtocol() === 'TLSv1.3'
      ? { channelBinding: () => socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0)) }
      : {}),
    peerNames: alternativeNames(names),
  };
}

/** The same of a socket that may have no TLS. */
export function tlsOfSocket(socket: unknown): TlsFacts | undefined {
  return socket instanceof TLSSocket ? tlsFactsOf(socket) : undefined;
}
