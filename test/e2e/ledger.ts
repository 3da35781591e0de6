/**
 * Mail under faults: senders that go on over SMTP whatever happens, and a book of what was acknowledged, to be compared with mailboxes.
 */
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { ImapFlow } from 'imapflow';

const answerMaxMs = 30_000;

/** A sample account. */
export interface Account {
  readonly name: string;
  readonly password: string;
}

/** What became of one message: the last reply, after DATA when it came so far. */
export function sendOne(address: string, to: string, subject: string): Promise<string> {
  return sendMessage(address, to, `From: bob@isp.example\r\nTo: ${to}\r\nSubject: ${subject}\r\n\r\nHello.\r\n`);
}

/** As `sendOne`, with the whole text, which has no line that begins with a dot. */
export async function sendMessage(address: string, to: string, text: string): Promise<string> {
  const [host, port] = address.split(':') as [string, string];
  const socket = connect(Number(port), host);
  socket.setTimeout(answerMaxMs, () => socket.destroy());
  socket.on('error', () => {});
  try {
    const reader = createInterface({ input: socket });
    // A connection that is reset has no end of its own for the reader.
    socket.once('close', () => reader.close());
    const lines = reader[Symbol.asyncIterator]();
    const reply = async (): Promise<string> => {
      for (;;) {
        // A connection that breaks or is refused ends the lines with its error.
        const next = await lines.next().catch(() => ({ value: undefined, done: true }));
        if (next.value === undefined) return 'closed';
        if (next.value[3] !== '-') return next.value;
      }
    };
    let last = await reply();
    for (const command of ['EHLO sender.test.example', 'MAIL FROM:<bob@isp.example>', `RCPT TO:<${to}>`, 'DATA']) {
      if (!/^[23]\d\d/.test(last)) return last;
      socket.write(`${command}\r\n`);
      last = await reply();
    }
    if (!last.startsWith('354')) return last;
    socket.write(`${text}.\r\n`);
    return await reply();
  } finally {
    socket.destroy();
  }
}

/** Subjects of all messages in an inbox. Rejects when the login fails. */
export async function subjects(imaps: string, account: Account): Promise<string[]> {
  const [host, port] = imaps.split(':') as [string, string];
  const client = new ImapFlow({
    host,
    port: Number(port),
    secure: true,
    auth: { user: account.name, pass: account.password },
    tls: { rejectUnauthorized: false },
    logger: false,
  });
  client.on('error', () => {});
  try {
    await client.connect();
    const { exists } = await client.mailboxOpen('INBOX', { readOnly: true });
    if (exists === 0) return [];
    return (await client.fetchAll('1:*', { envelope: true })).map((message) => message.envelope?.subject ?? '');
  } finally {
    client.close();
  }
}

/** Senders, and the book. */
export class Ledger implements AsyncDisposable {
  readonly acknowledged = new Map<string, Set<string>>();
  /** Replies that refuse an existing account for good. There must never be one. */
  readonly refusedForGood: string[] = [];
  readonly #accounts: readonly Account[];
  readonly #work: Promise<void>[] = [];
  #isStopped = false;

  /** Starts one sender for each of `smtp`; each takes the accounts in turn. */
  constructor(accounts: readonly Account[], smtp: readonly string[]) {
    this.#accounts = accounts;
    for (const account of accounts) this.acknowledged.set(account.name, new Set());
    for (const [index, address] of smtp.entries()) this.#work.push(this.#send(address, index));
  }

  /** Resolves once every sender has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#work);
  }

  /** What an inbox lacks of what was acknowledged, and what it has twice. */
  compare(account: Account, found: readonly string[]): { lost: string[]; twice: string[] } {
    const wanted = [...(this.acknowledged.get(account.name) ?? [])];
    const seen = new Set<string>();
    const twice = found.filter((subject) => seen.size === seen.add(subject).size);
    return { lost: wanted.filter((subject) => !seen.has(subject)), twice };
  }

  async #send(address: string, index: number): Promise<void> {
    for (let count = 0; !this.#isStopped; count += 1) {
      const account = this.#accounts[count % this.#accounts.length] as Account;
      const subject = `ledger ${index}-${count}`;
      const reply = await sendOne(address, account.name, subject);
      if (reply.startsWith('250')) this.acknowledged.get(account.name)?.add(subject);
      if (reply.startsWith('5')) this.refusedForGood.push(`${account.name}: ${reply}`);
      // A pause that a closed connection does not turn into a busy loop.
      await setTimeout(20);
    }
  }
}
