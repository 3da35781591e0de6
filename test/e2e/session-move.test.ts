/**
 * Accounts that move from member to member under their sessions: clients that idle, that have a mailbox selected, or are in the middle of a
 * line go on as if nothing had happened, with the same numbers and every change told once.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import type { ReadyDocument } from '#deploy/dev/ready-document.ts';
import { until } from './clients.ts';

let root: string;
let federation: Federation;
let ready: ReadyDocument;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-move-'));
  federation = await startFederation({
    root,
    ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
  });
  ready = federation.ready;
});

afterAll(async () => {
  await federation?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

/** An IMAP or POP3 client that keeps everything it has heard. */
class Client {
  readonly socket: TLSSocket;
  heard = '';
  isClosed = false;
  #tags = 0;

  private constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.heard += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.isClosed = true;
    });
  }

  static async popIn(subset: string, user: string, password: string): Promise<Client> {
    const [host = '', port] = (ready.subsets[subset]?.frontends[0]?.pop3s ?? '').split(':');
    const client = new Client(connectTls({ host, port: Number(port), rejectUnauthorized: false }));
    await client.hears('+OK');
    for (const line of [`USER ${user}`, `PASS ${password}`]) await client.pop(line);
    return client;
  }

  /** A POP3 command with an answer of one line. */
  async pop(line: string): Promise<string> {
    this.socket.write(`${line}\r\n`);
    return this.hears('\r\n');
  }

  static async logIn(subset: string, user: string, password: string): Promise<Client> {
    const [host = '', port] = (ready.subsets[subset]?.frontends[0]?.imaps ?? '').split(':');
    const client = new Client(connectTls({ host, port: Number(port), rejectUnauthorized: false }));
    await client.hears('ready');
    await client.command(`LOGIN ${user} ${password}`);
    return client;
  }

  /** Waits until a text has come; what came before it and with it is forgotten and returned. */
  async hears(text: string): Promise<string> {
    await until(
      async () => this.heard,
      (heard) => heard.includes(text) || this.isClosed,
      30_000,
    );
    expect(this.heard, 'closed before').toContain(text);
    const { heard } = this;
    this.heard = '';
    return heard;
  }

  async command(line: string): Promise<string> {
    this.#tags += 1;
    this.socket.write(`t${this.#tags} ${line}\r\n`);
    return this.hears(`t${this.#tags} `);
  }
}

function memberOf(account: string): string {
  const sessions = [...federation.frontends.values()].flatMap((frontend) => frontend.status().sessions);
  const members = new Set(sessions.filter((session) => session.account === account).map(({ member }) => member));
  expect(members.size).toBe(1);
  return [...members][0] as string;
}

async function drain(name: string): Promise<void> {
  const member = federation.members.get(name);
  if (member?.drain === undefined) throw new Error(`no member ${name}`);
  await member.drain();
}

it('moves the sessions of an account with it, and no client sees more than a pause', { timeout: 180_000 }, async () => {
  const user = ready.accounts[0] as ReadyDocument['accounts'][number];
  const logIn = (subset: string) => Client.logIn(subset, user.name, user.password);
  const [idler, reader, typist, writer] = [await logIn('eu'), await logIn('us'), await logIn('eu'), await logIn('us')];
  const append = async (client: Client, subject: string): Promise<void> => {
    const text = `Subject: ${subject}\r\n\r\nbody\r\n`;
    expect(await client.command(`APPEND INBOX {${text.length}+}\r\n${text}`)).toContain('APPENDUID');
  };
  for (const subject of ['one', 'two', 'three', 'four']) await append(writer, subject);
  const selected = await idler.command('SELECT INBOX');
  const count = Number(/\* (\d+) EXISTS/.exec(selected)?.[1]);
  await reader.command('SELECT INBOX');
  await typist.command('EXAMINE INBOX');
  await writer.command('SELECT INBOX');
  // The second has been told of nothing yet: its numbers are older than the mailbox when it moves.
  await writer.command(`STORE ${count - 1} +FLAGS (\\Deleted)`);
  await writer.command('EXPUNGE');
  idler.socket.write('i IDLE\r\n');
  await idler.hears('idling');
  typist.socket.write('p NO');

  const before = memberOf(user.name);
  await drain(before);
  await until(
    async () => [...federation.frontends.values()].flatMap((frontend) => frontend.status().sessions.map(({ member }) => member)),
    (members) => members.length >= 4 && !members.includes(before),
    30_000,
  );
  expect(memberOf(user.name)).not.toBe(before);
  for (const client of [idler, reader, typist, writer]) expect(client.isClosed).toBe(false);

  // Still idling, and told of what comes.
  idler.heard = '';
  await append(writer, 'five');
  await idler.hears(`* ${count} EXISTS`);
  idler.socket.write('DONE\r\n');
  expect(await idler.hears('i OK')).not.toContain('BYE');
  // The line that was begun before is ended after.
  typist.socket.write('OP\r\n');
  const told = await typist.hears('p OK');
  expect(told).toContain(`* ${count - 1} EXPUNGE`);
  expect(await typist.command('STORE 1 +FLAGS (\\Seen)')).toMatch(/NO|BAD/);
  // Numbers are those from before until the client is told; then each change once.
  expect(await reader.command(`FETCH ${count} (BODY[HEADER.FIELDS (SUBJECT)])`)).toContain('Subject: four');
  const caught = await reader.command('NOOP');
  expect(caught.match(new RegExp(`\\* ${count - 1} EXPUNGE`, 'g')) ?? []).toHaveLength(1);
  expect(await reader.command(`FETCH ${count - 1} (BODY[HEADER.FIELDS (SUBJECT)])`)).toContain('Subject: four');
  expect(await reader.command('NOOP')).not.toContain('EXPUNGE');
});

it('moves POP3 sessions too: numbers, marks and a line that was begun are as before, and QUIT deletes what was marked', {
  timeout: 180_000,
}, async () => {
  // Of the other cluster: this one has a member less by now.
  const user = ready.accounts.find(({ hostServer }) => hostServer !== ready.accounts[0]?.hostServer) as ReadyDocument['accounts'][number];
  const writer = await Client.logIn('us', user.name, user.password);
  const append = async (subject: string): Promise<void> => {
    const text = `Subject: ${subject}\r\n\r\nbody\r\n`;
    expect(await writer.command(`APPEND INBOX {${text.length}+}\r\n${text}`)).toContain('APPENDUID');
  };
  for (const subject of ['one', 'two', 'three']) await append(subject);
  const reader = await Client.popIn('eu', user.name, user.password);
  const count = Number(/^\+OK (\d+) /.exec(await reader.pop('STAT'))?.[1]);
  expect(count).toBeGreaterThanOrEqual(3);
  const idOf = async (number: number): Promise<string> => (await reader.pop(`UIDL ${number}`)).trim();
  const [two, three] = [await idOf(count - 1), await idOf(count)];
  await reader.pop(`DELE ${count - 2}`);
  // What another session removes keeps its number here.
  await writer.command('SELECT INBOX');
  await writer.command(`STORE ${count - 1} +FLAGS (\\Deleted)`);
  await writer.command('EXPUNGE');
  reader.socket.write(`UIDL ${count}`);

  const before = memberOf(user.name);
  await drain(before);
  await until(
    async () => [...federation.frontends.values()].flatMap((frontend) => frontend.status().sessions),
    (sessions) => sessions.filter(({ account, member }) => account === user.name && member !== before).length === 2,
    30_000,
  );
  reader.socket.write('\r\n');
  expect((await reader.hears('\r\n')).trim()).toBe(three);
  expect(await idOf(count - 1)).toBe(two);
  expect(await reader.pop(`RETR ${count - 1}`)).toContain('-ERR The message was removed');
  expect(await reader.pop(`LIST ${count - 2}`)).toContain('-ERR No such message');
  expect(await reader.pop('QUIT')).toContain('+OK 1 messages deleted');
  await writer.command('NOOP');
  expect(await writer.command('STATUS INBOX (MESSAGES)')).toContain(`MESSAGES ${count - 2}`);
  expect(writer.isClosed).toBe(false);
});
