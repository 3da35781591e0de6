/**
 * A frontend's certificates and session tickets, as they are now. The listeners hold this one object; what it says changes when the files
 * do (they are compared by content, now and then and on SIGHUP), and when the time has come for another ticket key.
 *
 * The ticket key is made of the subset's secret and the time: all processes and frontends of a subset have the same one at the same time and resume
 * each other's sessions, and none of them keeps it. It is another one every `ticketPeriodMs`; a session from before that does a full handshake.
 *
 * New files that do not fit together (a key of another certificate) are logged and not used.
 */
import { createPrivateKey, hkdfSync, X509Certificate } from 'node:crypto';
import type { Clock, Timer } from '#common/clock.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { Logger } from '#common/log/logger.ts';
import type { TlsServerOptions } from '#common/network/network.ts';
import type { Secret } from '#common/secret.ts';
import type { FrontendTlsConfig } from '#frontend/config.ts';

/** Life of a ticket key. Whoever takes a key from memory reads the sessions of this time, so it is short (RFC 8446 §8.1 on replay; §C.4 on tracking). */
export const ticketPeriodMs = 6 * 3_600_000;
/** How often the files are looked at. */
export const reloadEveryMs = 60_000;

interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** The certificates, as status pages show them. */
export interface CertificateStatus {
  readonly shown: readonly { readonly names: string; readonly validFromMs: number; readonly validToMs: number; readonly leftMs: number }[];
  /** Why the files as they are now are not used. */
  readonly refused: string | undefined;
}

/** TLS options that may change while they are in use; plain ones, which never do, are of this kind too. */
export interface ChangingTls extends TlsServerOptions {
  certificates?(): CertificateStatus;
  reload?(): Promise<boolean>;
  stop?(): void;
}

/** See the header of this file. */
export class FrontendTls implements ChangingTls {
  readonly #config: FrontendTlsConfig;
  readonly #ports: { readonly files: Files; readonly clock: Clock; readonly log: Logger };
  readonly #ticketSecret: Secret<string> | undefined;
  #pairs: readonly Pair[];
  /** Of each of them; a certificate is not taken apart for every look at it. */
  #validity: readonly ReturnType<typeof validityOf>[];
  #refused: string | undefined;
  #ca: string | undefined;
  #reloads = 0;
  #ticketEpoch = -1;
  #ticketKey: Buffer | undefined;
  readonly #timer: Timer;

  private constructor(
    config: FrontendTlsConfig,
    ports: { readonly files: Files; readonly clock: Clock; readonly log: Logger },
    read: { pairs: readonly Pair[]; ca: string | undefined; ticketSecret: Secret<string> | undefined },
  ) {
    this.#config = config;
    this.#ports = ports;
    this.#pairs = read.pairs;
    this.#validity = read.pairs.map(validityOf);
    this.#ca = read.ca;
    this.#ticketSecret = read.ticketSecret;
    this.#timer = ports.clock.every(reloadEveryMs, () => void this.reload());
  }

  /** Reads everything. Rejects with `CONFIG_*`. */
  static async read(
    config: FrontendTlsConfig,
    ports: { readonly files: Files; readonly clock: Clock; readonly log: Logger },
    environment?: Environment,
  ): Promise<FrontendTls> {
    const ticketSecret = config.ticketSecret === undefined ? undefined : await readSecret(config.ticketSecret, ports.files, environment);
    return new FrontendTls(config, ports, { ...(await readFiles(config, ports.files)), ticketSecret });
  }

  get cert(): string {
    return (this.#pairs[0] as Pair).cert;
  }
  get key(): string {
    return (this.#pairs[0] as Pair).key;
  }
  get further(): readonly Pair[] {
    return this.#pairs.slice(1);
  }
  get minVersion(): 'TLSv1.2' | 'TLSv1.3' {
    return this.#config.minVersion ?? 'TLSv1.2';
  }
  get requestCert(): boolean {
    return this.#config.clientCaFile !== undefined;
  }
  get rejectUnauthorized(): boolean {
    return this.#config.clientCertificate === 'required';
  }
  // With exact optional properties a getter cannot be missing; an empty list of CAs is never asked for.
  get ca(): string {
    return this.#ca ?? '';
  }

  get ticketKey(): Buffer {
    const epoch = this.#epoch();
    if (this.#ticketKey === undefined || epoch !== this.#ticketEpoch) {
      this.#ticketKey = makeTicketKey(this.#ticketSecret?.reveal() ?? this.key, epoch);
      this.#ticketEpoch = epoch;
    }
    return this.#ticketKey;
  }

  get version(): string {
    return `${this.#reloads}.${this.#epoch()}`;
  }

  /** Every certificate shown here; the first goes to clients that ask for none. */
  certificates(): CertificateStatus {
    const nowMs = this.#ports.clock.nowMs();
    const shown = this.#validity.map((validity) => ({ ...validity, leftMs: validity.validToMs - nowMs }));
    return { shown, refused: this.#refused };
  }

  /** Reads the files anew; `true` when they had changed and are used from now on. Never rejects. */
  async reload(): Promise<boolean> {
    const { files, log } = this.#ports;
    try {
      const { pairs, ca } = await readFiles(this.#config, files);
      this.#refused = undefined;
      if (JSON.stringify([pairs, ca]) === JSON.stringify([this.#pairs, this.#ca])) return false;
      this.#pairs = pairs;
      this.#validity = pairs.map(validityOf);
      this.#ca = ca;
      this.#reloads += 1;
      const certificates = this.#validity.map(({ names, validToMs }) => `${names}, until ${new Date(validToMs).toISOString()}`);
      log.info({ certificates }, 'certificates reloaded');
      return true;
    } catch (error) {
      this.#refused = messageOf(error);
      log.error({}, `the certificates could not be reloaded, those from before stay in use: ${this.#refused}`);
      return false;
    }
  }

  stop(): void {
    this.#timer.cancel();
  }

  #epoch(): number {
    return Math.floor(this.#ports.clock.nowMs() / ticketPeriodMs);
  }
}

function validityOf({ cert }: Pair) {
  const { subjectAltName = '', validFromDate, validToDate } = new X509Certificate(cert);
  return { names: subjectAltName, validFromMs: validFromDate.getTime(), validToMs: validToDate.getTime() };
}

/** 48 bytes: name, MAC key and encryption key of tickets. */
function makeTicketKey(secret: string, epoch: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, `epoch ${epoch}`, 'archipelago session tickets', 48));
}

async function readFiles(config: FrontendTlsConfig, files: Files): Promise<{ pairs: readonly Pair[]; ca: string | undefined }> {
  const pairs: Pair[] = [];
  for (const { certFile, keyFile } of [config, ...(config.further ?? [])]) {
    const pair = { cert: await readPem(certFile, files), key: await readPem(keyFile, files) };
    if (!new X509Certificate(pair.cert).checkPrivateKey(createPrivateKey(pair.key))) {
      throw new PlatformError('CONFIG_UNREADABLE', `${keyFile} is not the key of the certificate in ${certFile}`);
    }
    pairs.push(pair);
  }
  return { pairs, ca: config.clientCaFile === undefined ? undefined : await readPem(config.clientCaFile, files) };
}
