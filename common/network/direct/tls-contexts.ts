/** Contexts of OpenSSL: certificates, keys and settings that many connections share. They are made once for each version of the options. */
import { hkdfSync } from 'node:crypto';
import { DEFAULT_CIPHERS, rootCertificates } from 'node:tls';
import { PlatformError } from '#common/errors/platform-error.ts';
import { serverNamesIn } from '#common/network/certificate-names.ts';
import type { TlsClientOptions, TlsServerOptions } from '#common/network/network.ts';
import { type OpenSsl, openSsl, sslNumbers } from './openssl.ts';
import type { Pointer } from './system-calls.ts';

/** What is asked of OpenSSL before TLS 1.3; the suites of 1.3 are its own choice, which is Node’s. */
const ciphers = DEFAULT_CIPHERS.split(':')
  .filter((name) => !name.startsWith('TLS_'))
  .join(':');
/** Sessions are resumed where the same application has the same ticket key, whatever process it is. */
const sessionIdContext = Buffer.from('archipelago');
/** Name, key of the signature and key of the cipher. */
const ticketKeyBytes = 80;
/** Other people’s servers, and the CAs for them, are configured: there are few. */
const clientContextsMax = 256;
/** An encrypted key is refused instead of asked for on a terminal. */
const noPassword = Buffer.from('\0');

/** Contexts of a listener: the first is shown unless a client asks for a name that another one is for. */
interface ServerContexts {
  readonly version: string | undefined;
  readonly first: Pointer;
  readonly further: readonly { readonly names: readonly string[]; readonly context: Pointer }[];
}

/** What a client's context was made of, and it. */
type ClientContext = Record<'ca' | 'cert' | 'key', string | undefined> & { readonly context: Pointer };

const serverContexts = new WeakMap<TlsServerOptions, ServerContexts>();
/** For clients that ask for a name, by what they began with. */
const byFirst = new Map<Pointer, ServerContexts>();
const clientContexts: ClientContext[] = [];

/** The context with which a server's connection begins. Throws `NET_TLS_FAILED` for a certificate or key that cannot be used. */
export function serverContext(options: TlsServerOptions): Pointer {
  const known = serverContexts.get(options);
  if (known !== undefined && known.version === options.version) return known.first;
  const ssl = library();
  const contexts = newServerContexts(ssl, options);
  // Connections that have begun keep what they began with: a context is counted.
  if (known !== undefined) release(ssl, known);
  ofForgotten.unregister(options);
  ofForgotten.register(options, contexts, options);
  serverContexts.set(options, contexts);
  return contexts.first;
}

/** The context for a client. Throws `NET_TLS_FAILED`. */
export function clientContext({ ca, cert, key }: TlsClientOptions): Pointer {
  // Compared and not made into a key: the CAs may be half a megabyte of text, the same one each time.
  const known = clientContexts.find((one) => one.ca === ca && one.cert === cert && one.key === key);
  if (known !== undefined) return known.context;
  const ssl = library();
  const context = newContext(ssl, ssl.TLS_client_method());
  try {
    ssl.setVerify(context, sslNumbers.verifyPeer, undefined);
    trust(ssl, context, ca ?? rootCertificates.join('\n'));
    if (cert !== undefined && key !== undefined) useCertificate(ssl, context, cert, key);
  } catch (error) {
    ssl.SSL_CTX_free(context);
    throw error;
  }
  if (clientContexts.length >= clientContextsMax) ssl.SSL_CTX_free((clientContexts.shift() as ClientContext).context);
  clientContexts.push({ ca, cert, key, context });
  return context;
}

/** Why the last call failed, in OpenSSL’s words. */
export function sslReason(ssl: OpenSsl): string | undefined {
  let reason: string | undefined;
  // The first one is the cause; the others are where it passed through.
  for (let error = ssl.ERR_get_error(); Number(error) !== 0; error = ssl.ERR_get_error()) {
    reason ??= ssl.ERR_reason_error_string(error) ?? `error ${error}`;
  }
  return reason;
}

/** Options that nobody has any more. */
const ofForgotten = new FinalizationRegistry<ServerContexts>((contexts) => release(library(), contexts));

function newServerContexts(ssl: OpenSsl, options: TlsServerOptions): ServerContexts {
  const made: { readonly names: readonly string[]; readonly context: Pointer }[] = [];
  try {
    // The first is the one for everybody.
    for (const own of [options, ...(options.further ?? [])]) {
      made.push({ names: serverNamesIn(own.cert), context: newServerContext(ssl, options, own) });
    }
  } catch (error) {
    for (const { context } of made) ssl.SSL_CTX_free(context);
    throw error;
  }
  const [first, ...further] = made as [(typeof made)[number], ...typeof made];
  const contexts: ServerContexts = { version: options.version, first: first.context, further };
  if (further.length > 0) {
    byFirst.set(contexts.first, contexts);
    ssl.setServerNameCallback(contexts.first, chooseContext);
  }
  return contexts;
}

function library(): OpenSsl {
  const ssl = openSsl();
  if (ssl === undefined) throw new PlatformError('NET_TLS_FAILED', 'the OpenSSL of this Node cannot be called');
  return ssl;
}

function release(ssl: OpenSsl, { first, further }: ServerContexts): void {
  byFirst.delete(first);
  for (const context of [first, ...further.map(({ context }) => context)]) ssl.SSL_CTX_free(context);
}

function newContext(ssl: OpenSsl, method: Pointer): Pointer {
  const context = ssl.SSL_CTX_new(method);
  if (context === 0) throw new PlatformError('NET_TLS_FAILED', `no TLS context: ${sslReason(ssl)}`);
  ssl.SSL_CTX_set_options(context, sslNumbers.options);
  ssl.SSL_CTX_ctrl(context, sslNumbers.controlMode, sslNumbers.modes, null);
  ssl.SSL_CTX_ctrl(context, sslNumbers.controlReadAhead, 1, null);
  ssl.SSL_CTX_ctrl(context, sslNumbers.controlSessionCacheMode, 0, null);
  ssl.SSL_CTX_ctrl(context, sslNumbers.controlMinVersion, sslNumbers.tls12, null);
  ssl.SSL_CTX_set_cipher_list(context, ciphers);
  return context;
}

function newServerContext(ssl: OpenSsl, options: TlsServerOptions, own: { readonly cert: string; readonly key: string }): Pointer {
  const context = newContext(ssl, ssl.TLS_server_method());
  try {
    if (options.minVersion === 'TLSv1.3') ssl.SSL_CTX_ctrl(context, sslNumbers.controlMinVersion, sslNumbers.tls13, null);
    useCertificate(ssl, context, own.cert, own.key);
    // A client that opens several connections gets one with each.
    ssl.SSL_CTX_set_num_tickets(context, 1);
    ssl.SSL_CTX_set_session_id_context(context, sessionIdContext, sessionIdContext.length);
    if (options.ticketKey !== undefined) {
      const keys = new Uint8Array(hkdfSync('sha256', options.ticketKey, '', 'archipelago session tickets', ticketKeyBytes));
      ssl.SSL_CTX_ctrl(context, sslNumbers.controlTicketKeys, ticketKeyBytes, keys);
    }
    if (options.requestCert === true) {
      const isRequired = options.rejectUnauthorized ?? true;
      if (options.ca !== undefined && options.ca !== '') trust(ssl, context, options.ca, true);
      ssl.setVerify(
        context,
        sslNumbers.verifyPeer | (isRequired ? sslNumbers.verifyFailWithoutCertificate : 0),
        // Let in, but `SSL_get_verify_result` keeps what was found.
        isRequired ? undefined : acceptAny,
      );
    }
    return context;
  } catch (error) {
    ssl.SSL_CTX_free(context);
    throw error;
  }
}

function useCertificate(ssl: OpenSsl, context: Pointer, cert: string, key: string): void {
  const failed = (what: string): PlatformError =>
    new PlatformError('NET_TLS_FAILED', `${what} cannot be used: ${sslReason(ssl) ?? 'no PEM'}`);
  ssl.ERR_clear_error();
  const chain = certificatesIn(ssl, cert);
  try {
    const [own, ...above] = chain;
    if (own === undefined || ssl.SSL_CTX_use_certificate(context, own) !== 1) throw failed('the certificate');
    for (const certificate of above) {
      // The context becomes one more owner.
      addToChain(ssl, context, certificate);
    }
  } finally {
    for (const certificate of chain) ssl.X509_free(certificate);
  }
  const privateKey = fromPem(ssl, key, (bio) => ssl.PEM_read_bio_PrivateKey(bio, null, null, noPassword));
  if (privateKey === 0) throw failed('the private key');
  const used = ssl.SSL_CTX_use_PrivateKey(context, privateKey);
  ssl.EVP_PKEY_free(privateKey);
  if (used !== 1) throw failed('the private key');
  ssl.ERR_clear_error();
}

function addToChain(ssl: OpenSsl, context: Pointer, certificate: Pointer): void {
  // With 1 the context takes a share of its own.
  chainControl(ssl)(context, sslNumbers.controlChainCertificate, 1, certificate);
}

let chainFunction: ((context: Pointer, command: number, own: number, certificate: Pointer) => number) | undefined;

/** `SSL_CTX_ctrl` once more: its last argument is an object here. */
function chainControl(ssl: OpenSsl): NonNullable<typeof chainFunction> {
  chainFunction ??= ssl.calls.library.func('long SSL_CTX_ctrl(uintptr_t, int, long, uintptr_t)') as unknown as NonNullable<
    typeof chainFunction
  >;
  return chainFunction;
}

/** @param announces whether clients are told of these, to choose a certificate of theirs by */
function trust(ssl: OpenSsl, context: Pointer, ca: string, announces = false): void {
  const store = ssl.SSL_CTX_get_cert_store(context);
  const certificates = certificatesIn(ssl, ca);
  for (const certificate of certificates) {
    ssl.X509_STORE_add_cert(store, certificate);
    if (announces) ssl.SSL_CTX_add_client_CA(context, certificate);
    ssl.X509_free(certificate);
  }
  ssl.ERR_clear_error();
  if (certificates.length === 0) throw new PlatformError('NET_TLS_FAILED', 'there is no certificate in the text of the CAs');
}

function certificatesIn(ssl: OpenSsl, pem: string): Pointer[] {
  const found: Pointer[] = [];
  fromPem(ssl, pem, (bio) => {
    for (;;) {
      const certificate = ssl.PEM_read_bio_X509(bio, null, null, noPassword);
      if (certificate === 0) return 0;
      found.push(certificate);
    }
  });
  return found;
}

function fromPem(ssl: OpenSsl, pem: string, read: (bio: Pointer) => Pointer): Pointer {
  const bytes = Buffer.from(pem);
  const bio = ssl.BIO_new(ssl.BIO_s_mem());
  try {
    ssl.BIO_write(bio, bytes, bytes.length);
    return read(bio);
  } finally {
    ssl.BIO_free(bio);
  }
}

function acceptAny(): number {
  return 1;
}

/** While a handshake runs: another certificate where the client asks for its name. The one that names it goes before one that covers it. */
function chooseContext(connection: Pointer): number {
  const ssl = openSsl();
  const asked = ssl?.SSL_get_servername(connection, 0)?.toLowerCase();
  const contexts = ssl === undefined || asked === undefined ? undefined : byFirst.get(ssl.SSL_get_SSL_CTX(connection));
  if (ssl === undefined || asked === undefined || contexts === undefined) return 0;
  const wildcard = asked.replace(/^[^.]+/, '*');
  const found =
    contexts.further.find(({ names }) => names.includes(asked)) ?? contexts.further.find(({ names }) => names.includes(wildcard));
  if (found !== undefined) ssl.SSL_set_SSL_CTX(connection, found.context);
  return 0;
}
