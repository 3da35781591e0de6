/** Deliveries over LMTP (RFC 2033): the same dialogue to both, over sockets to Dovecot and over channels of the link to a member, as a frontend has it. */
import { randomBytes } from 'node:crypto';
import { createLinkClient } from '#backend-cluster/client/link-client.ts';
import { systemClock } from '#common/clock.ts';
import { parseMemberName } from '#common/host-server.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import type { Connection } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { systemRandom } from '#common/random.ts';

/** What a run came to. */
export interface Delivered {
  readonly count: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Opens LMTP conversations. */
export interface Door extends AsyncDisposable {
  open(): Promise<Connection>;
  /** What it wants after MAIL FROM. */
  mailParameters(): string;
}

/** Dovecot's port. */
export function socketDoor(port: number): Door {
  return {
    open: () => systemNetwork.connect({ host: '127.0.0.1', port }),
    mailParameters: () => '',
    [Symbol.asyncDispose]: async () => {},
  };
}

/** A member's link. */
export function linkDoor(port: number, label = 'back1'): Door {
  const ports = { clock: systemClock, random: systemRandom, log: silentLogger, network: systemNetwork, metrics: createMetrics() };
  const link = createLinkClient({ name: 'front1.eu.isp.example', role: 'frontend', tls: undefined, ports });
  return {
    async open() {
      const request = {
        service: 'lmtp',
        sessionId: 'bench',
        client: { address: '', port: 0, tls: false },
        from: 'front1.eu.isp.example',
        hops: 0,
      } as const;
      const { channel, answer } = await link.openSession(
        { name: parseMemberName(`${label}.west.isp.example`), host: '127.0.0.1', port },
        request,
      );
      if (channel === undefined) throw new Error(`no LMTP: ${JSON.stringify(answer)}`);
      return channel;
    },
    mailParameters: () => ` XDELIVERYID=${systemRandom.uuid()}`,
    [Symbol.asyncDispose]: () => link[Symbol.asyncDispose](),
  };
}

/** Ten kilobytes of text that packs about as mail does: half of it random letters, half repeated. */
function message(): string {
  const lines = Array.from({ length: 66 }, () => randomBytes(57).toString('base64'));
  const text = Array.from({ length: 66 }, (_, i) => `This line ${i} is one of those that people write, and quote, and write again.`);
  return `From: <a@isp.example>\r\nTo: <b@isp.example>\r\nSubject: a measurement\r\nMessage-ID: <${randomBytes(9).toString('hex')}@isp.example>\r\n\r\n${lines.join('\r\n')}\r\n${text.join('\r\n')}\r\n`;
}

/** Delivers for so many seconds, and one message in any case, over `inFlight` conversations, to `accounts` accounts in turn. Every answer is checked. */
export async function deliver(door: Door, options: { inFlight: number; accounts: number; seconds: number }): Promise<Delivered> {
  const times: number[] = [];
  const endMs = performance.now() + options.seconds * 1000;
  const startMs = performance.now();
  let next = 0;
  const worker = async (): Promise<void> => {
    const talk = new Talk(await door.open());
    await talk.reply(1);
    talk.say('LHLO front1.eu.isp.example\r\n');
    await talk.reply(1);
    const bytes = message();
    do {
      const account = next % options.accounts;
      next += 1;
      const beganMs = performance.now();
      talk.say(`MAIL FROM:<a@isp.example>${door.mailParameters()}\r\nRCPT TO:<user${account}@isp.example>\r\nDATA\r\n`);
      const replies = await talk.reply(3);
      if (!/^354/m.test(replies)) throw new Error(`refused: ${replies}`);
      talk.say(`${bytes}.\r\n`);
      const done = await talk.reply(1);
      if (!done.startsWith('250')) throw new Error(`not delivered: ${done}`);
      times.push(performance.now() - beganMs);
    } while (performance.now() < endMs);
    talk.end();
  };
  await Promise.all(Array.from({ length: options.inFlight }, worker));
  const seconds = (performance.now() - startMs) / 1000;
  times.sort((a, b) => a - b);
  return { count: times.length, seconds, p50Ms: at(times, 0.5), p99Ms: at(times, 0.99) };
}

/** A value of a sorted list. */
export function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

class Talk {
  readonly #connection: Connection;
  #text = '';
  #wake: () => void = () => {};
  #isClosed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
    connection.handle({
      data: (chunk) => {
        this.#text += chunk.toString('latin1');
        this.#wake();
      },
      close: () => {
        this.#isClosed = true;
        this.#wake();
      },
    });
  }

  say(text: string): void {
    this.#connection.write(text);
  }

  /** So many complete replies. */
  async reply(count: number): Promise<string> {
    for (;;) {
      const ends = [...this.#text.matchAll(/^\d{3} [^\n]*\n/gm)];
      if (ends.length >= count) {
        const last = ends[count - 1] as RegExpExecArray;
        const end = last.index + last[0].length;
        const replies = this.#text.slice(0, end);
        this.#text = this.#text.slice(end);
        return replies;
      }
      if (this.#isClosed) throw new Error(`closed after ${this.#text}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  end(): void {
    this.#connection.write('QUIT\r\n');
    this.#connection.end();
  }
}
