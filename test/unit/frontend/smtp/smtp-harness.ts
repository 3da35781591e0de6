/**
 * The mail half of a frontend on loopback: real listeners, real queue, a made-up router, and a member that is the real LMTP server over
 * accounts in memory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAccountName } from '#common/account-name.ts';
import { type Clock, systemClock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { type Logger, silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { TlsServerOptions } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type ThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { type FrontendConfig, type FrontendListener, routingDefaults } from '#frontend/config.ts';
import { startSmtp } from '#frontend/listeners/smtp.ts';
import type { MailLogin, RunningSmtp } from '#frontend/listeners/smtp-contract.ts';
import type { SaslSettings } from '#frontend/session/credentials.ts';
import { Settings } from '#frontend/subset/settings.ts';
import { LmtpMember } from '#test/fakes/lmtp-member.ts';
import { LineClient } from '#test/transcripts/line-transcript.ts';
import { FakeRouter } from '../queue/queue-harness.ts';

export interface SmtpHarnessOptions {
  readonly config?: Partial<FrontendConfig>;
  readonly listener?: Partial<FrontendListener>;
  readonly files?: Files;
  readonly clock?: Clock;
  readonly sasl?: SaslSettings;
  /** Beside a certificate for `localhost`. */
  readonly tls?: Partial<TlsServerOptions>;
  readonly ca?: ThrowawayCa;
  readonly log?: Logger;
}

/** See the header of this file. Listeners: SMTP with STARTTLS, submission with STARTTLS, submission with implicit TLS, in this order. */
export class SmtpHarness implements AsyncDisposable {
  readonly router = new FakeRouter();
  readonly member = new LmtpMember(systemClock, ['alice@isp.example', 'bob@isp.example'], 5_000_000);
  readonly directory = mkdtempSync(join(tmpdir(), 'smtp-'));
  readonly logins: MailLogin[] = [];
  readonly clients: LineClient[] = [];
  running!: RunningSmtp;
  caPem = '';
  /** In use, and may be changed with its `version`. */
  tls!: { -readonly [option in keyof TlsServerOptions]: TlsServerOptions[option] };

  static async start(options: SmtpHarnessOptions = {}): Promise<SmtpHarness> {
    const h = new SmtpHarness();
    h.router.add('alice@isp.example');
    h.router.add('bob@isp.example');
    const ca = options.ca ?? (await createThrowawayCa(systemClock, systemRandom));
    const issued = await ca.issue(['localhost', '127.0.0.1', 'front1.eu.isp.example']);
    h.caPem = ca.certificate;
    h.tls = { cert: issued.certificate, key: issued.key, ...options.tls };
    const listener = (protocol: 'smtp' | 'submission' | 'lmtp', tls: 'starttls' | 'implicit'): FrontendListener => ({
      protocol,
      tls,
      address: '127.0.0.1',
      port: 0,
      perAddressMax: 100,
      connectionsMax: 1000,
      allowPlaintextLogin: false,
      ...options.listener,
    });
    const listeners = [
      listener('smtp', 'starttls'),
      listener('submission', 'starttls'),
      listener('submission', 'implicit'),
      listener('lmtp', 'starttls'),
    ];
    const config: FrontendConfig = {
      role: 'frontend',
      name: 'front1.eu.isp.example',
      subset: 'eu',
      listeners,
      directory: { servers: [], master: '', suffix: 'o=mail', bindDn: '', bindPassword: {}, timeoutMs: 1000 },
      queueDirectory: h.directory,
      messageBytesMax: 2_000_000,
      routing: routingDefaults,
      loginTimeoutMs: 60_000,
      drainMs: 1,
      ...options.config,
    };
    h.running = await startSmtp({
      config,
      settings: new Settings({ config }),
      listeners,
      tls: h.tls,
      router: h.router,
      authenticate: async (login) => {
        h.logins.push(login);
        if (h.router.isDown) return { ok: false, error: new PlatformError('ROUTE_NO_MEMBER', 'no member is up') };
        const { credentials } = login;
        const shown =
          credentials.kind === 'password' ? credentials.password.reveal() : credentials.kind === 'token' ? credentials.token.reveal() : '';
        const ok = ['open sesame', 'good-token'].includes(shown) && login.loginName.startsWith('alice');
        return ok
          ? { ok: true, name: parseAccountName('alice@isp.example') }
          : { ok: false, error: new PlatformError('AUTH_FAILED', 'wrong password') };
      },
      scramSalt: async () => ({ ok: true, salt: 'W22ZaJ0SNY7soEsUEjb6gQ==', iterations: 4096 }),
      ...(options.sasl === undefined ? {} : { sasl: options.sasl }),
      openDelivery: async () => ({ connection: h.member.open(), isGreeted: false }),
      ports: {
        clock: options.clock ?? systemClock,
        random: systemRandom,
        network: systemNetwork,
        files: options.files ?? nodeFiles,
        log: options.log ?? silentLogger,
        metrics: createMetrics(),
      },
    });
    return h;
  }

  /** Port of SMTP, submission, submission with implicit TLS. */
  port(index: 0 | 1 | 2 | 3): number {
    return this.running.listeners()[index]?.port ?? 0;
  }

  /** A client that has read the greeting. */
  async connect(index: 0 | 1 | 2 | 3 = 0): Promise<LineClient> {
    const tls = index === 2 ? { tls: { ca: this.caPem, serverName: 'localhost' } } : {};
    const client = new LineClient(await systemNetwork.connect({ host: '127.0.0.1', port: this.port(index), ...tls }));
    this.clients.push(client);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) client.connection.destroy();
    await this.running[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
