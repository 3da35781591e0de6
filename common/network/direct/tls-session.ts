/**
 * One TLS connection of OpenSSL’s, on a socket that does not block. OpenSSL reads and writes the socket itself; its buffers go when they are empty.
 *
 * A record that the system takes in part only must not stay with OpenSSL: were it then to answer a peer that asks for new keys (TLS 1.3, RFC 8446 §4.6.3),
 * it would find the record in its way and break the connection. So what has no room goes to memory (`isHeld`) until the socket can be written again.
 */
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { PlatformError } from '#common/errors/platform-error.ts';
import { alternativeNames } from '#common/network/certificate-names.ts';
import type { TlsClientOptions, TlsFacts, TlsServerOptions } from '#common/network/network.ts';
import { type OpenSsl, openSsl, sslNumbers } from './openssl.ts';
import { wouldBlock } from './plain-socket.ts';
import { errnos, linux, type Pointer } from './system-calls.ts';
import { systemError } from './system-error.ts';
import { clientContext, serverContext, sslReason } from './tls-contexts.ts';

const exportedBytes = 32;
const exporterLabel = 'EXPORTER-Channel-Binding';
const certificateBytesMax = 65_536;
/** A peer that asks for answers and reads none is cut off there. */
const heldBytesMax = 262_144;
/** Records that one read takes, however small they are, so that everybody else has their turn. */
const recordsMax = 1_024;
/**
 * Messages of the handshake (new keys, tickets, a TLS 1.2 client's wish for another one) that may come within one read. OpenSSL answers them and looks for
 * more without returning, so whoever sends them as fast as they are dealt with would have the process for himself.
 */
const messagesMax = 32;
/** How many more may come in the read that runs. */
let messagesLeft = Number.POSITIVE_INFINITY;
/** OpenSSL asks the socket for more than that when it has nothing left; if it got less, that was all. */
const surelyAskedBytes = 16_384;
const nothing = Buffer.alloc(0);

/** See the header of this file. */
export class TlsSession {
  readonly #ssl: OpenSsl;
  #pointer: Pointer;
  /** Whether the last step waits for room to write instead of bytes to read. */
  wantsWrite = false;
  /** Whether the last read took all that there was. */
  isDrained = false;
  #last: Error | 'ended' | undefined;
  readonly #fd: number;
  /** OpenSSL writes there instead of the socket. */
  #memory: Pointer = 0;
  /** Taken from there, and next for the socket. */
  #rest: Buffer = nothing;
  #hasEnded = false;
  /** OpenSSL has all of the socket's octets in its hands: what it read so far, and nothing of that is left. */
  #emptyAt: number | undefined;
  /** What counts them, where that is the socket itself. */
  readonly #source: Pointer;

  private constructor(ssl: OpenSsl, context: Pointer, fd: number, early: Buffer | undefined) {
    this.#ssl = ssl;
    this.#fd = fd;
    this.#pointer = ssl.SSL_new(context);
    if (this.#pointer === 0) throw new PlatformError('NET_TLS_FAILED', `no TLS connection: ${sslReason(ssl)}`);
    if (early === undefined || early.length === 0) {
      ssl.SSL_set_fd(this.#pointer, fd);
      this.#source = ssl.SSL_get_rbio(this.#pointer);
      return;
    }
    this.#source = 0;
    // A buffer before the socket, with what was read from it already. The connection owns all three.
    const buffer = ssl.BIO_new(ssl.BIO_f_buffer());
    ssl.BIO_ctrl(buffer, sslNumbers.bufferReadData, early.length, early);
    ssl.BIO_push(buffer, ssl.BIO_new_socket(fd, 0));
    ssl.SSL_set_bio(this.#pointer, buffer, ssl.BIO_new_socket(fd, 0));
  }

  /** @param early read from the socket before the handshake, and belonging to it */
  static server(options: TlsServerOptions, fd: number, early?: Buffer): TlsSession {
    const session = new TlsSession(openSsl() as OpenSsl, serverContext(options), fd, early);
    session.#ssl.SSL_set_accept_state(session.#pointer);
    return session;
  }

  static client(options: TlsClientOptions, fd: number): TlsSession {
    const context = clientContext(options);
    const ssl = openSsl() as OpenSsl;
    const session = new TlsSession(ssl, context, fd, undefined);
    const pointer = session.#pointer;
    // An address is no server name (RFC 6066 §3); the certificate must name it all the same.
    if (isIP(options.serverName) === 0) {
      ssl.SSL_ctrl(pointer, sslNumbers.controlServerName, 0, options.serverName);
      ssl.SSL_set_hostflags(pointer, sslNumbers.noPartialWildcards);
    }
    if (!session.#expectName(options.serverName)) {
      session.free();
      throw new PlatformError('NET_TLS_FAILED', `"${options.serverName}" is no name that a certificate can be for`);
    }
    ssl.SSL_set_connect_state(pointer);
    // A name that is too long for the greeting.
    ssl.ERR_clear_error();
    return session;
  }

  /** One step of the handshake; whether it is over. Throws what it failed with. */
  handshake(): boolean {
    const ssl = this.#ssl;
    ssl.ERR_clear_error();
    const returned = ssl.SSL_do_handshake(this.#pointer);
    if (returned === 1) {
      ssl.setInfoCallback(this.#pointer, countMessage);
      return true;
    }
    if (this.#outcome(returned) === 0) throw Object.assign(new Error('the peer hung up'), { code: 'ECONNRESET' });
    return false;
  }

  /** Whether something waits for room in the socket; see `flush`. */
  get isHeld(): boolean {
    return this.#memory !== 0;
  }

  /**
   * Reads until there is no more or no room: octets read, 0 at the end, `wouldBlock`. Throws what broke the connection.
   *
   * @param isTold whether an event tells of whatever is not read now, so that the system need not be asked until it says that there is nothing
   */
  read(address: Pointer, room: number, isTold: boolean): number {
    const ssl = this.#ssl;
    let count = 0;
    if (this.#last === undefined) {
      ssl.ERR_clear_error();
      this.isDrained = false;
    }
    messagesLeft = messagesMax;
    for (let records = 0; this.#last === undefined && count < room && records < recordsMax; records += 1) {
      const returned = ssl.SSL_read(this.#pointer, address + count, room - count);
      if (returned > 0) {
        count += returned;
        if (isTold && this.#hasAll()) {
          this.isDrained = true;
          break;
        }
        continue;
      }
      this.#emptyAt = undefined;
      // What has been read comes before what ended it.
      try {
        if (this.#outcome(returned) !== wouldBlock) this.#last = 'ended';
        else if (!this.wantsWrite) {
          this.isDrained = true;
          if (this.#source !== 0 && ssl.SSL_has_pending(this.#pointer) === 0) this.#emptyAt = ssl.BIO_number_read(this.#source);
          break;
        } else this.#hold();
      } catch (error) {
        this.#last = error as Error;
      }
    }
    const hasTooMany = messagesLeft < 0;
    messagesLeft = Number.POSITIVE_INFINITY;
    if (hasTooMany) throw new Error('the peer asks for one handshake after another');
    if (this.isHeld && this.#heldBytes() > heldBytesMax) throw new Error('the peer wants answers and reads none');
    if (count > 0) return count;
    if (this.#last instanceof Error) throw this.#last;
    return this.#last === 'ended' ? 0 : wouldBlock;
  }

  /** Octets taken, or `wouldBlock`. Throws what broke the connection. */
  write(bytes: Uint8Array, length: number): number {
    const ssl = this.#ssl;
    if (!this.flush()) return wouldBlock;
    for (;;) {
      ssl.ERR_clear_error();
      const returned = ssl.SSL_write(this.#pointer, bytes, length);
      if (returned > 0) return returned;
      if (this.#outcome(returned) === 0) throw systemError('write', 'EPIPE');
      if (!this.wantsWrite || this.isHeld) return wouldBlock;
      this.#hold();
    }
  }

  /** Has the system take what is held; whether that is all of it. Throws what broke the connection. */
  flush(): boolean {
    const ssl = this.#ssl;
    const { calls } = ssl;
    while (this.#memory !== 0) {
      if (this.#rest.length === 0) {
        const length = ssl.BIO_ctrl(this.#memory, sslNumbers.pendingBytes, 0, null);
        if (length === 0) {
          // The connection frees the other one.
          ssl.SSL_set0_wbio(this.#pointer, ssl.BIO_new_socket(this.#fd, 0));
          this.#memory = 0;
          this.#rest = nothing;
          break;
        }
        this.#rest = Buffer.allocUnsafeSlow(length);
        ssl.BIO_read(this.#memory, this.#rest, length);
      }
      const count = calls.send(this.#fd, this.#rest, this.#rest.length, linux.messageNoSignal);
      if (count >= 0) {
        this.#rest = this.#rest.subarray(count);
        continue;
      }
      const errno = calls.errno();
      if (errno === errnos.again) return false;
      if (errno !== errnos.interrupted) throw systemError('write', errno);
    }
    return true;
  }

  /** Tells the peer that nothing more will come; `false` when there is no room for that now, and this is to be called again. */
  end(): boolean {
    const ssl = this.#ssl;
    while (!this.#hasEnded) {
      ssl.ERR_clear_error();
      const returned = ssl.SSL_shutdown(this.#pointer);
      this.#hasEnded = returned >= 0 || this.isHeld || ssl.SSL_get_error(this.#pointer, returned) !== sslNumbers.errorWantWrite;
      if (!this.#hasEnded) this.#hold();
    }
    // Whoever uses OpenSSL next would take what is left for its own.
    ssl.ERR_clear_error();
    return this.flush();
  }

  free(): void {
    if (this.#pointer !== 0) this.#ssl.SSL_free(this.#pointer);
    this.#pointer = 0;
  }

  /** What is known once the handshake is over. */
  facts(): TlsFacts {
    const ssl = this.#ssl;
    const pointer = this.#pointer;
    const protocol = ssl.SSL_get_version(pointer);
    const cipher = ssl.SSL_get_current_cipher(pointer);
    return {
      protocol,
      cipher: cipher === 0 ? '' : ssl.SSL_CIPHER_get_name(cipher),
      serverName: ssl.SSL_get_servername(pointer, 0) || undefined,
      ...(protocol === 'TLSv1.3' ? { channelBinding: () => this.#exported() } : {}),
      peerNames: this.#peerNames(),
    };
  }

  /** Why the peer's certificate was not accepted; `undefined` when that is not it. */
  refusal(): string | undefined {
    const result = this.#ssl.SSL_get_verify_result(this.#pointer);
    return result === 0 ? undefined : this.#ssl.X509_verify_cert_error_string(result);
  }

  /** Whether the socket had no more when OpenSSL asked it last, and OpenSSL has nothing left. */
  #hasAll(): boolean {
    if (this.#emptyAt === undefined || this.#ssl.SSL_has_pending(this.#pointer) !== 0) return false;
    const now = this.#ssl.BIO_number_read(this.#source);
    if (now - this.#emptyAt >= surelyAskedBytes) return false;
    this.#emptyAt = now;
    return true;
  }

  #hold(): void {
    const ssl = this.#ssl;
    this.#memory = ssl.BIO_new(ssl.BIO_s_mem());
    ssl.SSL_set0_wbio(this.#pointer, this.#memory);
  }

  #heldBytes(): number {
    return this.#rest.length + this.#ssl.BIO_ctrl(this.#memory, sslNumbers.pendingBytes, 0, null);
  }

  // OpenSSL takes an empty name, and one that it could not set, for the wish that none be looked at; one that begins with a dot for any below.
  #expectName(name: string): boolean {
    const ssl = this.#ssl;
    if (isIP(name) !== 0) return ssl.X509_VERIFY_PARAM_set1_ip_asc(ssl.SSL_get0_param(this.#pointer), name.replace(/%.*/, '')) === 1;
    return name !== '' && !name.startsWith('.') && !name.includes('\0') && ssl.SSL_set1_host(this.#pointer, name) === 1;
  }

  #exported(): Buffer {
    if (this.#pointer === 0) throw new PlatformError('NET_CLOSED', 'the connection is closed');
    const out = Buffer.alloc(exportedBytes);
    this.#ssl.SSL_export_keying_material(this.#pointer, out, exportedBytes, exporterLabel, exporterLabel.length, Buffer.alloc(1), 0, 1);
    return out;
  }

  // A peer that was let in without a verified certificate has no names.
  #peerNames(): readonly string[] {
    const ssl = this.#ssl;
    const certificate = ssl.SSL_get1_peer_certificate(this.#pointer);
    if (certificate === 0) return [];
    const bio = ssl.BIO_new(ssl.BIO_s_mem());
    try {
      if (ssl.SSL_get_verify_result(this.#pointer) !== 0) return [];
      ssl.PEM_write_bio_X509(bio, certificate);
      const pem = Buffer.alloc(certificateBytesMax);
      const length = ssl.BIO_read(bio, pem, pem.length);
      return length > 0 ? alternativeNames(new X509Certificate(pem.subarray(0, length)).subjectAltName) : [];
    } finally {
      ssl.BIO_free(bio);
      ssl.X509_free(certificate);
    }
  }

  /** `wouldBlock`, or 0 at the end. Throws the error otherwise. */
  #outcome(returned: number): number {
    const ssl = this.#ssl;
    switch (ssl.SSL_get_error(this.#pointer, returned)) {
      case sslNumbers.errorWantRead:
        this.wantsWrite = false;
        return wouldBlock;
      case sslNumbers.errorWantWrite:
        this.wantsWrite = true;
        return wouldBlock;
      case sslNumbers.errorZeroReturn:
        return 0;
      case sslNumbers.errorSystem: {
        const errno = ssl.calls.errno();
        ssl.ERR_clear_error();
        if (errno === 0) return 0;
        throw systemError('read', errno);
      }
      default: {
        const refused = this.refusal();
        throw new Error([sslReason(ssl) ?? 'the peer broke the protocol', refused].filter((part) => part !== undefined).join(': '));
      }
    }
  }
}

/** Beyond what may come it has OpenSSL believe that the peer has ended, which is where it returns. */
function countMessage(pointer: Pointer): void {
  messagesLeft -= 1;
  if (messagesLeft < 0) openSsl()?.SSL_set_shutdown(pointer, sslNumbers.receivedShutdown);
}
