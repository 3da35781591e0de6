/**
 * Runs every `*.txt` beside this file: one dialogue each, as a client sees it.
 *
 *   # text         a remark
 *   open P [from=ADDRESS] [listener=TLS]   connects by protocol P
 *   C: line        the client sends the line and CRLF;  `C> text` without CRLF, with \r \n \0 written out
 *   S: line        the next line that the client gets, exactly
 *   M: line        the same, written by the member on the newest channel;  `M< line` is what the member gets
 *   wait N         time moves on by N milliseconds
 *   closed         the connection is closed from the other side
 *   lost           the link to the member breaks
 *   member NAME is up|down|refusing CODE
 *   tls            a handshake has been made
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { settle } from '#test/fakes/clock.ts';
import type { MemoryConnection } from '#test/fakes/memory-connection.ts';
import { federation, memberWithPassword } from '#test/unit/frontend/fakes.ts';
import { Client } from './dialogue.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));

describe('dialogues before login', () => {
  it.each(files)('%s', (name) => play(readFileSync(`${import.meta.dirname}/${name}`, 'utf8')));

  it('are found by this test', () => expect(files.length).toBeGreaterThan(5));
});

async function play(script: string): Promise<void> {
  const world = federation();
  let client: Client | undefined;
  const inboxes = new Map<MemoryConnection, { text: string }>();
  const listenTo = (channel: MemoryConnection): { text: string } => {
    const known = inboxes.get(channel);
    if (known !== undefined) return known;
    const inbox = { text: '' };
    inboxes.set(channel, inbox);
    channel.handle({
      data: (chunk) => {
        inbox.text += chunk.toString();
      },
      close: () => {},
    });
    return inbox;
  };
  for (const [index, line] of script.split('\n').entries()) {
    const where = `line ${index + 1}: ${line}`;
    const [, word = '', rest = ''] = /^(\S+) ?(.*)$/.exec(line) ?? [];
    if (word === '' || word === '#') continue;
    if (word === 'open') {
      const [protocol, ...settings] = rest.split(' ');
      const of = (key: string): string | undefined => settings.find((setting) => setting.startsWith(`${key}=`))?.slice(key.length + 1);
      client = new Client(world, protocol as 'imap', {
        from: of('from') ?? '192.0.2.1',
        listener: { tls: (of('listener') ?? 'starttls') as 'starttls' },
      });
      await settle();
      continue;
    }
    if (word === 'member') {
      const [member = '', , state, code] = rest.split(' ');
      if (state === 'down') world.link.members.delete(member);
      else if (state === 'up') world.link.members.set(member, memberWithPassword('wonderland'));
      else {
        const { kind } = errorCatalogue[code as ErrorCode];
        world.link.members.set(member, () => ({ outcome: 'refused', code: code as ErrorCode, kind, message: 'as told' }));
      }
      continue;
    }
    if (client === undefined) throw new Error(`${where}: open comes first`);
    const channel = world.link.channels.at(-1);
    if (channel !== undefined) listenTo(channel);
    switch (word) {
      case 'C:':
        client.send(`${rest}\r\n`);
        await settle();
        break;
      case 'C>':
        client.send(rest.replaceAll('\\r', '\r').replaceAll('\\n', '\n').replaceAll('\\0', '\0'));
        await settle();
        break;
      case 'S:':
        expect(takeLine(client, 'received'), where).toBe(rest);
        break;
      case 'M:':
        if (channel === undefined) throw new Error(`${where}: no channel is open`);
        channel.write(`${rest}\r\n`);
        await settle();
        break;
      case 'M<': {
        if (channel === undefined) throw new Error(`${where}: no channel is open`);
        const inbox = listenTo(channel);
        await settle();
        expect(takeLine(inbox, 'text'), where).toBe(rest);
        break;
      }
      case 'wait':
        await world.clock.advance(Number(rest));
        break;
      case 'lost':
        if (channel === undefined) throw new Error(`${where}: no channel is open`);
        channel.peer?.destroy(new Error('the link broke'));
        await settle();
        break;
      case 'tls':
        expect(client.connection.peer?.tls, where).toBeDefined();
        break;
      case 'closed':
        client.connection.end();
        await settle();
        expect(client.isClosed, where).toBe(true);
        expect(client.endedDialogues, where).toBe(1);
        break;
      default:
        throw new Error(`${where}: not understood`);
    }
  }
  expect(client?.received, 'left over at the end').toBe('');
}

function takeLine<Key extends string>(from: { [key in Key]: string }, key: Key): string {
  const text: string = from[key];
  const end = text.indexOf('\r\n');
  from[key] = (end < 0 ? '' : text.slice(end + 2)) as never;
  return end < 0 ? `(nothing, or half a line: ${JSON.stringify(text)})` : text.slice(0, end);
}
