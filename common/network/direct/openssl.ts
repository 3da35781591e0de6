/**
 * The OpenSSL that is part of Node, through the symbols that Node exports for addons: the same code, settings and fixes as `node:tls` uses. What is declared
 * here takes no structure of OpenSSL’s, so that its layout concerns nobody. Pointers are numbers; who makes an object frees it.
 */
import type { KoffiFunc } from 'koffi';
import { type Memory, type Pointer, type SystemCalls, systemCalls } from './system-calls.ts';

type One<A extends readonly unknown[], R> = KoffiFunc<(...args: [...A]) => R>;

/** Functions by their own names. */
export interface OpenSsl {
  readonly calls: SystemCalls;
  readonly BIO_ctrl: One<[bio: Pointer, command: number, length: number, memory: Memory], number>;
  readonly BIO_f_buffer: One<[], Pointer>;
  readonly BIO_free: One<[bio: Pointer], number>;
  readonly BIO_new: One<[method: Pointer], Pointer>;
  readonly BIO_new_socket: One<[fd: number, closes: number], Pointer>;
  readonly BIO_number_read: One<[bio: Pointer], number>;
  readonly BIO_push: One<[bio: Pointer, next: Pointer], Pointer>;
  readonly BIO_read: One<[bio: Pointer, memory: Memory, length: number], number>;
  readonly BIO_s_mem: One<[], Pointer>;
  readonly BIO_write: One<[bio: Pointer, memory: Memory, length: number], number>;
  readonly ERR_clear_error: One<[], void>;
  readonly ERR_get_error: One<[], number | bigint>;
  readonly ERR_reason_error_string: One<[error: number | bigint], string | null>;
  readonly EVP_PKEY_free: One<[key: Pointer], void>;
  readonly PEM_read_bio_PrivateKey: One<[bio: Pointer, to: null, callback: null, password: Memory], Pointer>;
  readonly PEM_read_bio_X509: One<[bio: Pointer, to: null, callback: null, password: Memory], Pointer>;
  readonly PEM_write_bio_X509: One<[bio: Pointer, certificate: Pointer], number>;
  readonly SSL_CIPHER_get_name: One<[cipher: Pointer], string>;
  readonly SSL_CTX_add_client_CA: One<[context: Pointer, certificate: Pointer], number>;
  readonly SSL_CTX_ctrl: One<[context: Pointer, command: number, number: number, memory: Memory], number>;
  readonly SSL_CTX_free: One<[context: Pointer], void>;
  readonly SSL_CTX_get_cert_store: One<[context: Pointer], Pointer>;
  readonly SSL_CTX_new: One<[method: Pointer], Pointer>;
  readonly SSL_CTX_set_cipher_list: One<[context: Pointer, list: string], number>;
  readonly SSL_CTX_set_num_tickets: One<[context: Pointer, count: number], number>;
  readonly SSL_CTX_set_options: One<[context: Pointer, options: number], number>;
  readonly SSL_CTX_set_session_id_context: One<[context: Pointer, id: Memory, length: number], number>;
  readonly SSL_CTX_use_PrivateKey: One<[context: Pointer, key: Pointer], number>;
  readonly SSL_CTX_use_certificate: One<[context: Pointer, certificate: Pointer], number>;
  readonly SSL_ctrl: One<[ssl: Pointer, command: number, number: number, text: string], number>;
  readonly SSL_do_handshake: One<[ssl: Pointer], number>;
  readonly SSL_export_keying_material: One<
    [ssl: Pointer, out: Memory, length: number, label: string, labelLength: number, context: Memory, contextLength: number, uses: number],
    number
  >;
  readonly SSL_free: One<[ssl: Pointer], void>;
  readonly SSL_get0_param: One<[ssl: Pointer], Pointer>;
  readonly SSL_get1_peer_certificate: One<[ssl: Pointer], Pointer>;
  readonly SSL_get_SSL_CTX: One<[ssl: Pointer], Pointer>;
  readonly SSL_get_current_cipher: One<[ssl: Pointer], Pointer>;
  readonly SSL_get_error: One<[ssl: Pointer, returned: number], number>;
  readonly SSL_get_rbio: One<[ssl: Pointer], Pointer>;
  readonly SSL_get_servername: One<[ssl: Pointer, type: number], string | null>;
  readonly SSL_get_verify_result: One<[ssl: Pointer], number>;
  readonly SSL_get_version: One<[ssl: Pointer], string>;
  readonly SSL_has_pending: One<[ssl: Pointer], number>;
  readonly SSL_new: One<[context: Pointer], Pointer>;
  readonly SSL_read: One<[ssl: Pointer, memory: Pointer, length: number], number>;
  readonly SSL_set0_wbio: One<[ssl: Pointer, bio: Pointer], void>;
  readonly SSL_set1_host: One<[ssl: Pointer, name: string], number>;
  readonly SSL_set_SSL_CTX: One<[ssl: Pointer, context: Pointer], Pointer>;
  readonly SSL_set_accept_state: One<[ssl: Pointer], void>;
  readonly SSL_set_bio: One<[ssl: Pointer, reads: Pointer, writes: Pointer], void>;
  readonly SSL_set_connect_state: One<[ssl: Pointer], void>;
  readonly SSL_set_fd: One<[ssl: Pointer, fd: number], number>;
  readonly SSL_set_hostflags: One<[ssl: Pointer, flags: number], void>;
  readonly SSL_set_shutdown: One<[ssl: Pointer, mode: number], void>;
  readonly SSL_shutdown: One<[ssl: Pointer], number>;
  readonly SSL_write: One<[ssl: Pointer, memory: Memory, length: number], number>;
  readonly TLS_client_method: One<[], Pointer>;
  readonly TLS_server_method: One<[], Pointer>;
  readonly X509_STORE_add_cert: One<[store: Pointer, certificate: Pointer], number>;
  readonly X509_VERIFY_PARAM_set1_ip_asc: One<[parameters: Pointer, address: string], number>;
  readonly X509_free: One<[certificate: Pointer], void>;
  readonly X509_verify_cert_error_string: One<[error: number], string>;
  /** `SSL_CTX_set_verify`; with a callback, whatever it says decides of each certificate. */
  setVerify(context: Pointer, mode: number, callback: (() => number) | undefined): void;
  /** Called while a handshake runs, when the client's message has been read; 0 goes on. */
  setServerNameCallback(context: Pointer, callback: (ssl: Pointer) => number): void;
  /** `SSL_set_info_callback`: called for each message of a handshake, and some more. */
  setInfoCallback(ssl: Pointer, callback: (ssl: Pointer) => void): void;
}

const signatures = {
  BIO_ctrl: 'long (uintptr_t, int, long, void *)',
  BIO_f_buffer: 'uintptr_t ()',
  BIO_free: 'int (uintptr_t)',
  BIO_new: 'uintptr_t (uintptr_t)',
  BIO_new_socket: 'uintptr_t (int, int)',
  BIO_number_read: 'uint64_t (uintptr_t)',
  BIO_push: 'uintptr_t (uintptr_t, uintptr_t)',
  BIO_read: 'int (uintptr_t, void *, int)',
  BIO_s_mem: 'uintptr_t ()',
  BIO_write: 'int (uintptr_t, void *, int)',
  ERR_clear_error: 'void ()',
  ERR_get_error: 'unsigned long ()',
  ERR_reason_error_string: 'const char * (unsigned long)',
  EVP_PKEY_free: 'void (uintptr_t)',
  PEM_read_bio_PrivateKey: 'uintptr_t (uintptr_t, void *, void *, void *)',
  PEM_read_bio_X509: 'uintptr_t (uintptr_t, void *, void *, void *)',
  PEM_write_bio_X509: 'int (uintptr_t, uintptr_t)',
  SSL_CIPHER_get_name: 'const char * (uintptr_t)',
  SSL_CTX_add_client_CA: 'int (uintptr_t, uintptr_t)',
  SSL_CTX_ctrl: 'long (uintptr_t, int, long, void *)',
  SSL_CTX_free: 'void (uintptr_t)',
  SSL_CTX_get_cert_store: 'uintptr_t (uintptr_t)',
  SSL_CTX_new: 'uintptr_t (uintptr_t)',
  SSL_CTX_set_cipher_list: 'int (uintptr_t, const char *)',
  SSL_CTX_set_num_tickets: 'int (uintptr_t, size_t)',
  SSL_CTX_set_options: 'uint64_t (uintptr_t, uint64_t)',
  SSL_CTX_set_session_id_context: 'int (uintptr_t, void *, unsigned int)',
  SSL_CTX_use_PrivateKey: 'int (uintptr_t, uintptr_t)',
  SSL_CTX_use_certificate: 'int (uintptr_t, uintptr_t)',
  SSL_ctrl: 'long (uintptr_t, int, long, const char *)',
  SSL_do_handshake: 'int (uintptr_t)',
  SSL_export_keying_material: 'int (uintptr_t, void *, size_t, const char *, size_t, void *, size_t, int)',
  SSL_free: 'void (uintptr_t)',
  SSL_get0_param: 'uintptr_t (uintptr_t)',
  SSL_get1_peer_certificate: 'uintptr_t (uintptr_t)',
  SSL_get_SSL_CTX: 'uintptr_t (uintptr_t)',
  SSL_get_current_cipher: 'uintptr_t (uintptr_t)',
  SSL_get_error: 'int (uintptr_t, int)',
  SSL_get_rbio: 'uintptr_t (uintptr_t)',
  SSL_get_servername: 'const char * (uintptr_t, int)',
  SSL_get_verify_result: 'long (uintptr_t)',
  SSL_get_version: 'const char * (uintptr_t)',
  SSL_has_pending: 'int (uintptr_t)',
  SSL_new: 'uintptr_t (uintptr_t)',
  SSL_read: 'int (uintptr_t, uintptr_t, int)',
  SSL_set0_wbio: 'void (uintptr_t, uintptr_t)',
  SSL_set1_host: 'int (uintptr_t, const char *)',
  SSL_set_SSL_CTX: 'uintptr_t (uintptr_t, uintptr_t)',
  SSL_set_accept_state: 'void (uintptr_t)',
  SSL_set_bio: 'void (uintptr_t, uintptr_t, uintptr_t)',
  SSL_set_connect_state: 'void (uintptr_t)',
  SSL_set_fd: 'int (uintptr_t, int)',
  SSL_set_hostflags: 'void (uintptr_t, unsigned int)',
  SSL_set_shutdown: 'void (uintptr_t, int)',
  SSL_shutdown: 'int (uintptr_t)',
  SSL_write: 'int (uintptr_t, void *, int)',
  TLS_client_method: 'uintptr_t ()',
  TLS_server_method: 'uintptr_t ()',
  X509_STORE_add_cert: 'int (uintptr_t, uintptr_t)',
  X509_VERIFY_PARAM_set1_ip_asc: 'int (uintptr_t, const char *)',
  X509_free: 'void (uintptr_t)',
  X509_verify_cert_error_string: 'const char * (long)',
};

/** Commands and flags of OpenSSL 3. */
export const sslNumbers = {
  errorWantRead: 2,
  errorWantWrite: 3,
  errorSystem: 5,
  errorZeroReturn: 6,
  controlMode: 33,
  controlReadAhead: 41,
  controlSessionCacheMode: 44,
  controlServerName: 55,
  controlTicketKeys: 59,
  controlChainCertificate: 89,
  controlMinVersion: 123,
  controlServerNameCallback: 53,
  /** SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_RELEASE_BUFFERS */
  modes: 0x1 | 0x2 | 0x10,
  /** SSL_OP_IGNORE_UNEXPECTED_EOF, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_RENEGOTIATION */
  options: 2 ** 7 + 2 ** 22 + 2 ** 30,
  verifyPeer: 0x1,
  verifyFailWithoutCertificate: 0x2,
  noPartialWildcards: 0x4,
  bufferReadData: 122,
  receivedShutdown: 2,
  pendingBytes: 10,
  tls12: 0x0303,
  tls13: 0x0304,
} as const;

let known: OpenSsl | undefined | 'unknown' = 'unknown';

/** The library, or `undefined` where `systemCalls` are not to be had or this Node keeps its own OpenSSL to itself. */
export function openSsl(): OpenSsl | undefined {
  if (known === 'unknown') known = load(systemCalls());
  return known;
}

function load(calls: SystemCalls | undefined): OpenSsl | undefined {
  if (calls === undefined) return undefined;
  const { koffi, library } = calls;
  try {
    const functions = Object.fromEntries(
      Object.entries(signatures).map(([name, signature]) => [name, library.func(signature.replace(' (', ` ${name}(`))]),
    ) as unknown as OpenSsl;
    const verifyType = koffi.pointer(koffi.proto('int', ['int', 'void *']));
    const setVerify = library.func('SSL_CTX_set_verify', 'void', ['uintptr_t', 'int', verifyType]);
    const nameType = koffi.pointer(koffi.proto('int', ['uintptr_t', 'void *', 'void *']));
    const setCallback = library.func('SSL_CTX_callback_ctrl', 'long', ['uintptr_t', 'int', nameType]);
    const infoType = koffi.pointer(koffi.proto('void', ['uintptr_t', 'int', 'int']));
    const setInfo = library.func('SSL_set_info_callback', 'void', ['uintptr_t', infoType]);
    return {
      ...functions,
      calls,
      setVerify: (context, mode, callback) =>
        setVerify(context, mode, callback === undefined ? null : callbackOf(koffi, callback, verifyType)),
      setServerNameCallback: (context, callback) =>
        setCallback(context, sslNumbers.controlServerNameCallback, callbackOf(koffi, callback, nameType)),
      setInfoCallback: (ssl, callback) => setInfo(ssl, callbackOf(koffi, callback, infoType)),
    };
  } catch {
    return undefined;
  }
}

/** The library has room for a few thousand, so each function is registered once for as long as the process lives. */
const registered = new WeakMap<object, bigint>();

function callbackOf(
  koffi: SystemCalls['koffi'],
  callback: (...args: never[]) => unknown,
  type: ReturnType<SystemCalls['koffi']['pointer']>,
): bigint {
  let pointer = registered.get(callback);
  if (pointer === undefined) {
    pointer = koffi.register(callback, type);
    registered.set(callback, pointer);
  }
  return pointer;
}
