/**
 * Runs a transcript: `C:` lines are sent, `S:` lines must come, in that order. Anything else is a sentence for the reader.
 *
 *   C: a1 SELECT INBOX
 *   S: * 1 EXISTS
 *   S: ...             skips lines until the next `S:` line matches
 *   C+: a2 NOOP\r\n   sent as it is, with `\r\n` and `\n` put in: for literals and pipelining
 *   X: deliver INBOX   something another session does meanwhile
 *
 * In `S:` lines `<*>` stands for any text within the line, and flags may come in any order.
 */
import { expect } from 'vitest';
import type { OpenAccount } from '#backend-cluster/mailboxes/open-account.ts';
import { createImapServer } from '#backend-cluster/sessions/imap/server.ts';
import type { RunningSession, SessionContext } from '#backend-cluster/sessions/session.ts';
import { parseAccountName } from '#common/account-name.ts';
import { silentLogger } from '#common/log/logger.ts';
import { normaliseLineEnds, summarise } from '#protocol/mime/summary.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { connectionPair, type MemoryConnection } from '#test/fakes/memory-connection.ts';
import { seededRandom } from '#test/fakes/random.ts';

/** Longest wait for a line that must come. */
const lineWaitMs = 5000;

/** A client in front of a session. */
export class ImapClient {
  readonly clock: FakeClock;
  readonly connection: MemoryConnection;
  readonly session: RunningSession;
  isEnded = false;
  #received = '';

  constructor(account: OpenAccount, clock = new FakeClock(), serve = createImapServer()) {
    this.clock = clock;
    const [client, server] = connectionPair();
    this.connection = client;
    client.handle({ data: (chunk) => (this.#received += chunk.toString('latin1')), close: () => {} });
    const context: SessionContext = {
      refresh: () => undefined,
      sessionId: 's1',
      account,
      accountName: () => parseAccountName('alice@isp.example'),
      clientAddress: '127.0.0.1',
      clock,
      random: seededRandom(1),
      log: silentLogger,
    };
    this.session = serve(server, context, () => {
      this.isEnded = true;
    });
  }

  send(text: string): void {
    this.connection.write(Buffer.from(text, 'utf8'));
  }

  /** The next line, without its line end; a line that ends in a literal announcement goes on after the literal. */
  async line(): Promise<string> {
    const startMs = performance.now();
    for (let turn = 0; performance.now() - startMs < lineWaitMs; turn += 1) {
      const end = this.#lineEnd();
      if (end >= 0) {
        const line = this.#received.slice(0, end);
        this.#received = this.#received.slice(end + 2);
        return line;
      }
      if (this.isEnded && turn > 100) break;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    throw new Error(`the server sent no further line; it sent ${JSON.stringify(this.#received)}`);
  }

  /** Sends a command and gives back everything up to and with its tagged reply. */
  async command(text: string): Promise<string[]> {
    this.send(`${text}\r\n`);
    const tag = text.split(' ')[0] as string;
    const lines: string[] = [];
    for (;;) {
      const line = await this.line();
      lines.push(line);
      if (line.startsWith(`${tag} `)) return lines;
    }
  }

  /** What came and was not read. */
  async rest(): Promise<string> {
    await settle();
    return this.#received;
  }

  #lineEnd(): number {
    let from = 0;
    for (;;) {
      const end = this.#received.indexOf('\r\n', from);
      if (end < 0) return -1;
      const literal = /\{(\d+)\}$/.exec(this.#received.slice(Math.max(from, end - 20), end));
      if (literal === null) return end;
      from = end + 2 + Number(literal[1]);
      if (this.#received.length < from) return -1;
    }
  }
}

/** Stores a message as LMTP would. */
export async function deliver(
  account: OpenAccount,
  mailbox: string,
  text: string,
  flags: readonly string[] = [],
  atMs = Date.UTC(2026, 0, 2, 3, 4, 5),
): Promise<void> {
  const raw = normaliseLineEnds(Buffer.from(text, 'latin1'));
  const target = account.mailbox(mailbox);
  if (target === undefined) throw new Error(`no mailbox ${mailbox}`);
  await account.append(target.id, [{ raw, summary: summarise(raw), flags, internalDateMs: atMs }]);
}

/** Plays a transcript over an account. */
export async function runTranscript(text: string, account: OpenAccount): Promise<void> {
  const client = new ImapClient(account);
  let skipping = false;
  for (const [index, line] of text.split('\n').entries()) {
    const where = `line ${index + 1}: ${line}`;
    if (line.startsWith('C: ')) client.send(`${line.slice(3)}\r\n`);
    else if (line.startsWith('C+: ')) client.send(line.slice(4).replaceAll('\\r\\n', '\r\n').replaceAll('\\n', '\n'));
    else if (line.startsWith('X: ')) await elsewhere(line.slice(3), account);
    else if (line === 'S: ...') skipping = true;
    else if (line === 'S: (closed)') {
      for (let turn = 0; !client.isEnded && turn < 500; turn += 1) await new Promise<void>((resolve) => setImmediate(resolve));
      expect(client.isEnded, where).toBe(true);
    } else if (line.startsWith('S: ')) {
      const expected = line.slice(3).replaceAll('\\r\\n', '\r\n');
      let got = await client.line();
      while (skipping && !matches(expected, got)) got = await client.line();
      skipping = false;
      if (!matches(expected, got)) expect(got, where).toBe(expected);
    }
  }
  if (!skipping) expect(await client.rest(), 'nothing else came').toBe('');
  client.connection.destroy();
}

function matches(expectedLine: string, gotLine: string): boolean {
  const expected = inFlagOrder(expectedLine);
  const got = inFlagOrder(gotLine);
  const pieces = expected.split('<*>');
  if (pieces.length === 1) return expected === got;
  if (!got.startsWith(pieces[0] as string) || !got.endsWith(pieces.at(-1) as string)) return false;
  let at = 0;
  for (const piece of pieces) {
    const found = got.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return true;
}

/** The order of flags means nothing (RFC 9051 §9 flag-list). */
function inFlagOrder(line: string): string {
  return line.replace(/FLAGS \(([^)]*)\)/g, (_all, flags: string) => `FLAGS (${flags.split(' ').toSorted().join(' ')})`);
}

/** `deliver MAILBOX`, `flag MAILBOX UID FLAG`, `expunge MAILBOX UID`, `delete MAILBOX`: as another session would. */
async function elsewhere(action: string, account: OpenAccount): Promise<void> {
  const [verb, name = '', uid = '', flag = ''] = action.split(' ');
  const mailbox = account.mailbox(name);
  if (mailbox === undefined) throw new Error(`no mailbox ${name}`);
  if (verb === 'deliver') await deliver(account, name, 'Subject: new\n\nnew\n');
  else if (verb === 'flag') await account.storeFlags(mailbox.id, [Number(uid)], 'add', [flag]);
  else if (verb === 'expunge') await account.expunge(mailbox.id, [Number(uid)], true);
  else if (verb === 'delete') await account.deleteMailbox(name);
  else throw new Error(`unknown action ${action}`);
  await settle();
}
