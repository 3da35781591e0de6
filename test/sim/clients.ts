/**
 * The clients of one account: a sender that repeats each message until it is acknowledged, and a reader with an IMAP session at a time.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import { parseMemberName } from '#common/host-server.ts';
import type { Connection } from '#common/network/network.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { OpenSession } from '#protocol/link/messages.ts';
import { type AccountHistory, type Sent, textOf } from './history.ts';
import { look, step, type Talk } from './imap-acts.ts';
import type { SimProcess } from './machine.ts';
import type { Chance } from './world.ts';

const attemptWithinMs = 15_000;
const redirectsMax = 4;
export const password = 'secret';

/** What clients need. */
export interface ClientParts {
  readonly process: SimProcess;
  readonly link: LinkClient;
  readonly members: readonly MemberAddress[];
  readonly chance: Chance;
  readonly history: AccountHistory<AccountRecord>;
  /** No new messages and no new sessions begin from then on; what is unacknowledged is still sent. */
  isWinding(): boolean;
  nowMs(): number;
}

/** Text on a channel, waited for. Every wait ends: with the text, with the channel, or after a while. */
class Dialogue implements Talk {
  readonly #channel: Connection;
  #text = '';
  #isClosed = false;
  #changed: () => void = () => {};
  readonly #timer;

  constructor(channel: Connection, process: SimProcess) {
    this.#channel = channel;
    this.#timer = process.clock.after(attemptWithinMs, () => this.close());
    channel.handle({
      data: (chunk) => {
        this.#text += chunk.toString('latin1');
        this.#changed();
      },
      close: () => {
        this.#isClosed = true;
        this.#changed();
      },
    });
  }

  close(): void {
    this.#timer.cancel();
    this.#channel.destroy();
    this.#isClosed = true;
    this.#changed();
  }

  /** Sends, and gives back what came up to the pattern; `undefined` when the channel ended before. */
  async ask(text: string, pattern: RegExp): Promise<string | undefined> {
    this.#text = '';
    if (this.#isClosed) return undefined;
    this.#channel.write(text);
    while (!pattern.test(this.#text)) {
      if (this.#isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
    return this.#text;
  }
}

/** Sends a message until it is acknowledged. Now and then two frontends have it at the same time. */
export async function sendPatiently(parts: ClientParts, message: Sent, fill: number): Promise<void> {
  const { process, chance } = parts;
  const attempt = async (): Promise<void> => {
    while (!message.isAcknowledged) {
      if (await sendOnce(parts, message, fill)) {
        message.isAcknowledged = true;
        message.acknowledgedAtMs = Math.min(message.acknowledgedAtMs, process.world.nowMs);
      } else await process.world.sleep(chance.between(100, 1_200));
    }
  };
  await Promise.all(chance.is(0.15) ? [attempt(), attempt()] : [attempt()]);
}

async function sendOnce(parts: ClientParts, message: Sent, fill: number): Promise<boolean> {
  const { process, link, members, chance, history } = parts;
  const sessionId = `d-${message.id}`;
  let channel: Connection | undefined;
  try {
    ({ channel } = await link.openSession(chance.pick(members), { ...requestOf(process, sessionId), service: 'lmtp' }));
  } catch {
    return false;
  }
  if (channel === undefined) return false;
  const dialogue = new Dialogue(channel, process);
  try {
    const envelope = `LHLO f\r\nMAIL FROM:<x@isp.example> XDELIVERYID=${message.id}\r\nRCPT TO:<${history.record.name}>\r\n`;
    const greeted = await dialogue.ask(envelope, /^(?:250 2\.1\.5|[45]\d\d )[^\r]*\r\n$/m);
    if (greeted === undefined || !/^250 2\.1\.5[^\r]*\r\n$/m.test(greeted)) return false;
    if ((await dialogue.ask('DATA\r\n', /\r\n$/))?.startsWith('354') !== true) return false;
    const answer = await dialogue.ask(`${textOf(message.id, fill)}.\r\n`, /\r\n$/);
    return answer?.startsWith('250') === true;
  } finally {
    dialogue.close();
  }
}

/** Reads, marks, moves and removes; one session after another. `opened` is called whenever the account could be opened. */
export async function readOnAndOn(parts: ClientParts, opened: () => void): Promise<void> {
  const { process, chance } = parts;
  while (!parts.isWinding()) {
    await readOnce(parts, opened, parts.chance.below(5));
    await process.world.sleep(chance.between(50, 1_500));
  }
}

/** One session of so many changes, or an attempt. */
export async function readOnce(parts: ClientParts, opened: () => void, changes: number): Promise<void> {
  const channel = await openImap(parts);
  if (channel === undefined) return;
  const dialogue = new Dialogue(channel, parts.process);
  try {
    const inbox = await look(parts, dialogue, 'INBOX');
    if (inbox === undefined) return;
    opened();
    for (let steps = changes; steps > 0; steps -= 1) {
      if (!(await step(parts, dialogue, inbox))) return;
      await parts.process.world.sleep(parts.chance.between(5, 900));
    }
    if (parts.chance.is(0.3)) await look(parts, dialogue, 'Archive');
  } finally {
    dialogue.close();
  }
}

async function openImap(parts: ClientParts): Promise<Connection | undefined> {
  const { process, link, members, chance, history } = parts;
  const { uuid, name } = history.record;
  let member = chance.pick(members);
  for (let redirects = 0; redirects < redirectsMax; redirects += 1) {
    try {
      const { answer, channel } = await link.openSession(member, {
        ...requestOf(process, `i-${name}`),
        service: 'imap',
        account: { uuid, name },
        login: { mechanism: 'PLAIN', authorizationId: '', authenticationId: name, password },
      });
      if (answer.outcome !== 'at') return channel;
      member = { name: parseMemberName(answer.member), host: answer.host, port: answer.port };
    } catch {
      return undefined;
    }
  }
  return undefined;
}

function requestOf(process: SimProcess, sessionId: string): Omit<OpenSession, 'service'> {
  return { sessionId, client: { address: '192.0.2.7', port: 4711, tls: true }, from: process.machine.name, hops: 0 };
}
