/**
 * Plays a client against a frontend dialogue in memory: what it sends, what it gets, time moved on by hand.
 */
import type { FrontendListener } from '#frontend/config.ts';
import { ImapLogin } from '#frontend/session/imap-login.ts';
import type { DialogueOptions, LoginDialogue } from '#frontend/session/login-dialogue.ts';
import type { MailService } from '#frontend/session/open-session.ts';
import { Pop3Login } from '#frontend/session/pop3-login.ts';
import { SieveLogin } from '#frontend/session/sieve-login.ts';
import { settle } from '#test/fakes/clock.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';
import type { Federation } from '#test/unit/frontend/fakes.ts';

/** The client's side. */
export class Client {
  readonly connection: MemoryConnection;
  readonly dialogue: LoginDialogue;
  received = '';
  isClosed = false;
  endedDialogues = 0;

  constructor(
    federation: Federation,
    protocol: MailService,
    options: { from?: string; listener?: Partial<FrontendListener>; loginTimeoutMs?: number } = {},
  ) {
    const [near, far] = connectionPair({ clientAddress: options.from ?? '127.0.0.1' });
    this.connection = near;
    const listener: FrontendListener = {
      protocol,
      tls: 'starttls',
      address: '127.0.0.1',
      port: 0,
      perAddressMax: 10,
      connectionsMax: 10,
      allowPlaintextLogin: false,
      ...options.listener,
    };
    const session: DialogueOptions = {
      opener: federation.opener,
      listener,
      tls: { cert: 'cert', key: 'key' },
      loginTimeoutMs: options.loginTimeoutMs ?? 60_000,
      ports: federation.ports,
    };
    const ended = (): void => {
      this.endedDialogues += 1;
    };
    near.handle({
      data: (chunk) => {
        this.received += chunk.toString();
      },
      close: () => {
        this.isClosed = true;
      },
    });
    const dialogues = { imap: ImapLogin, pop3: Pop3Login, managesieve: SieveLogin };
    this.dialogue = new dialogues[protocol](far, session, ended);
    this.dialogue.start();
  }

  send(bytes: string | Buffer): void {
    this.connection.write(bytes);
  }

  /** What came since the last call, once nothing more comes without time moving on. */
  async take(): Promise<string> {
    await settle();
    const taken = this.received;
    this.received = '';
    return taken;
  }
}
