/**
 * SASL for the smtp-server library (RFC 4954), which itself knows passwords and an XOAUTH2 of its own: our exchange takes the place of the library's
 * mechanisms, for the servers that have a door here. Others in the process keep the library's.
 *
 * There is no SCRAM-SHA-256-PLUS: the library offers one list of mechanisms to all connections, and that one works under TLS 1.3 only.
 */
import type { SMTPServer, SMTPServerSession } from 'smtp-server';
import mechanismTable from 'smtp-server/lib/sasl.js';
import { type Credentials, mechanismsOf } from '../session/credentials.ts';
import type { SaltAnswer } from '../session/open-session.ts';
import { SaslExchange, type SaslExchangeOptions, type SaslStep } from '../session/sasl-exchange.ts';
import type { MailLoginResult } from './smtp-contract.ts';

/** What a listener does for an exchange. Nothing here rejects. */
export interface SmtpSaslDoor {
  readonly exchange: SaslExchangeOptions;
  salt(session: SMTPServerSession, loginName: string): Promise<SaltAnswer>;
  /** `reply`: what the client hears when the login is refused. */
  logIn(session: SMTPServerSession, loginName: string, credentials: Credentials): Promise<JudgedLogin>;
}

/** A login that was judged. */
export interface JudgedLogin {
  readonly result: MailLoginResult;
  readonly reply: { readonly code: number; readonly text: string };
}

/** What the library's connection is to its mechanisms. */
interface LibraryConnection {
  readonly _server: SMTPServer;
  readonly session: SMTPServerSession;
  _nextHandler: false | ((line: Buffer | string, done: () => void) => void);
  _transmissionType(): string;
  send(code: number, text: string): void;
}
type Mechanism = (this: LibraryConnection, args: readonly string[], done: () => void) => void;

const doors = new WeakMap<SMTPServer, SmtpSaslDoor>();
const table = mechanismTable as unknown as Record<string, Mechanism | undefined>;
for (const mechanism of ['PLAIN', 'LOGIN', 'SCRAM-SHA-256', 'OAUTHBEARER', 'XOAUTH2']) {
  const libraryOwn = table[`SASL_${mechanism}`];
  table[`SASL_${mechanism}`] = function begin(args, done) {
    const door = doors.get(this._server);
    if (door !== undefined && args.length <= 1 && mechanismsOf(door.exchange.settings, undefined).includes(mechanism)) {
      const exchange = new SaslExchange(mechanism, door.exchange);
      void perform({ connection: this, door, exchange }, exchange.begin(args[0]), undefined).then(done, done);
      return;
    }
    if (door === undefined && libraryOwn !== undefined) {
      libraryOwn.call(this, args, done);
      return;
    }
    this.send(args.length > 1 ? 501 : 504, args.length > 1 ? '5.5.4 AUTH takes one response' : '5.5.4 Unknown mechanism');
    done();
  };
}

/** Lets a server's connections log in by all mechanisms, through the door. */
export function openSaslDoor(server: SMTPServer, door: SmtpSaslDoor): void {
  doors.set(server, door);
}

interface Running {
  readonly connection: LibraryConnection;
  readonly door: SmtpSaslDoor;
  readonly exchange: SaslExchange;
}

/** Goes on until the client has to be waited for, or it is over. `judged`: the login, once it has been. */
async function perform(running: Running, step: SaslStep, judged: JudgedLogin | undefined): Promise<void> {
  const { connection, door, exchange } = running;
  const { session } = connection;
  switch (step.kind) {
    case 'ask':
      connection._nextHandler = (line, done) => void perform(running, exchange.answer(line.toString().trim()), judged).then(done, done);
      connection.send(334, step.challenge);
      return;
    case 'broken':
      connection.send(step.why === 'malformed' ? 501 : 535, `${step.why === 'malformed' ? '5.5.2' : '5.7.8'} ${step.text}`);
      return;
    case 'salt': {
      const salt = await door.salt(session, step.loginName);
      if (salt.ok) return perform(running, exchange.salted(salt), undefined);
      // RFC 4954 §6: 454 asks the client to try again and not for another password.
      connection.send(454, '4.7.0 Temporary authentication failure, try again later');
      return;
    }
    case 'log-in': {
      const now = await door.logIn(session, step.loginName, step.credentials);
      const next = now.result.ok ? exchange.succeeded(now.result.serverSignature) : exchange.failed(now.result.error);
      return perform(running, next, now);
    }
    case 'over':
      if (judged?.result.ok === true) {
        session.user = judged.result.name;
        session.transmissionType = connection._transmissionType();
        connection.send(235, '2.7.0 Authentication successful');
      } else if (judged !== undefined) connection.send(judged.reply.code, judged.reply.text);
  }
}
