import { describe, expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AnswerTaker } from '#directory/client/ldap-connection.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { decodeImages, type EncodedImages, ImageEncoder } from '#protocol/ldap/image-batch.ts';
import { type Attribute, attribute, type Control, type LdapOperation } from '#protocol/ldap/messages.ts';
import { parseMessage } from '#protocol/ldap/parse.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { AddSender, type AddTarget, underWayMax, underWayMin } from '#replication/add-sender.ts';
import type { Step } from '#replication/decide.ts';
import { FakeClock } from '#test/fakes/clock.ts';

const uuidOf = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function blockOf(dns: readonly string[], attributes: readonly Attribute[] = [attribute('cn', 'x')]) {
  const encoder = new ImageEncoder();
  for (const [i, dn] of dns.entries()) encoder.add({ uuid: uuidOf(i), dn, attributes });
  return [{ block: encoder.take() }];
}

/** A replica that answers when it is told to; what it was asked is taken apart as a server would. */
function harness(own: { readonly keepsCsn?: boolean; readonly write?: AddTarget['write']; readonly allowsOne?: boolean } = {}) {
  const first: Step[] = [];
  const asked = new Map<string, { readonly taker: AnswerTaker; readonly operation: LdapOperation; readonly url: string }>();
  const noted: string[] = [];
  const released: string[] = [];
  const connectionOf = (url: string) => ({
    ...{ url, isOpen: true, rests: [] as number[] },
    exchangeFor(taker: AnswerTaker, operation: LdapOperation, controls: readonly Control[]) {
      const parsed = parseMessage(encodeMessage({ id: 7, operation, controls: [...controls] }));
      if (parsed.outcome !== 'message' || parsed.message.operation.type !== 'addRequest') throw new Error('no Add');
      asked.set(parsed.message.operation.dn, { taker, operation: parsed.message.operation, url });
    },
    rest(forMs: number) {
      this.rests.push(forMs);
    },
    destroy() {
      this.isOpen = false;
    },
  });
  const connection = connectionOf('ldap://replica');
  const further: ReturnType<typeof connectionOf>[] = [];
  const openFurther = async () => {
    if (own.allowsOne === true) return undefined;
    further.push(connectionOf('ldap://further'));
    return further.at(-1);
  };
  const target: AddTarget = {
    keepsCsn: own.keepsCsn ?? false,
    write: own.write ?? ((step) => Promise.resolve(void first.push(step))),
    connection,
  };
  const quarantine = { size: 1, has: (uuid: string) => uuid === uuidOf(1), release: async (uuid: string) => void released.push(uuid) };
  const shadow = {
    putAll: (block: EncodedImages, without: ReadonlySet<number>) =>
      void noted.push(...decodeImages(block).flatMap(({ dn = '' }, at) => (without.has(at) ? [] : [dn]))),
  };
  const counts: number[] = [];
  const clock = new FakeClock();
  const sender = new AddSender(clock, target, openFurther, { wroteMany: (_kind, count) => void counts.push(count) }, quarantine, shadow);
  const answer = (dn: string, resultCode: number = resultCodes.success): void => {
    const one = asked.get(dn);
    asked.delete(dn);
    one?.taker.settle({ result: { resultCode, matchedDn: '', diagnosticMessage: '' }, controls: [], value: undefined });
  };
  return { clock, sender, first, asked, answer, noted, released, counts, connection, further };
}

describe('new entries on their way to a server that is not ours', () => {
  it('go side by side, and none before the one that it lies below is answered', async () => {
    const { sender, first, asked, answer, noted, counts } = harness();
    const block = blockOf(['o=mail', 'cn=b\\,c,o=mail', 'uid=1,cn=b\\,c,o=mail', 'uid=2,cn=b\\,c,o=mail', 'uid=3,uid=1,cn=b\\,c,o=mail']);
    const sent = sender.send(block);
    await settle();
    // The first goes by itself: it shows whether the replica takes entryCSN.
    expect(first).toMatchObject([{ kind: 'add', dn: 'o=mail' }]);
    expect([...asked.keys()]).toEqual(['cn=b\\,c,o=mail']);
    answer('cn=b\\,c,o=mail');
    await settle();
    expect([...asked.keys()]).toEqual(['uid=1,cn=b\\,c,o=mail', 'uid=2,cn=b\\,c,o=mail']);
    answer('uid=1,cn=b\\,c,o=mail');
    await settle();
    expect([...asked.keys()]).toEqual(['uid=2,cn=b\\,c,o=mail', 'uid=3,uid=1,cn=b\\,c,o=mail']);
    for (const dn of [...asked.keys()]) answer(dn);
    expect(await sent).toEqual([]);
    expect(noted).toHaveLength(5);
    expect(counts).toEqual([5]);
  });

  it.each([true, false])(
    'carry what the master has of them and nothing that a server makes by itself (entryCSN taken: %s)',
    async (keepsCsn) => {
      const { sender, asked, answer } = harness({ keepsCsn });
      const kept = [attribute('cn', 'x', 'y'), attribute('mail', 'z'.repeat(200)), { type: 'seeAlso', values: [] }];
      const csn = attribute('EntryCSN', '20260101000000.000000Z#000000#000#000000');
      const [cn, ...rest] = kept as [Attribute, ...Attribute[]];
      // Whatever they show, they are known by the UUID that the stream gave them.
      const shown = attribute('EntryUUID', uuidOf(77), uuidOf(78));
      const attributes = [attribute('structuralObjectClass', 'a'), shown, cn, attribute('hasSubordinates', 'FALSE'), ...rest, csn];
      const sent = sender.send(blockOf(['o=a', 'o=b'], attributes));
      await settle();
      expect(asked.get('o=b')?.operation).toMatchObject({
        attributes: [...kept, ...(keepsCsn ? [csn] : []), attribute('entryUUID', uuidOf(1))],
      });
      answer('o=b');
      await sent;
    },
  );

  it.each([
    [0, underWayMax],
    [100, 200],
    [2000, underWayMin],
  ])('are as many without an answer as it answers in half a second (40 in %i ms: %i), and all arrive', async (eachMs, wanted) => {
    const { clock, sender, asked, answer } = harness();
    const dns = Array.from({ length: 600 }, (_, i) => `uid=${i},o=mail`);
    const all = [sender.send(blockOf(dns)), sender.send(blockOf(dns.map((dn) => `cn=below,${dn}`)))];
    let most = 0;
    for (let answered = 1; answered < 1200; ) {
      await settle();
      most = Math.max(most, asked.size);
      await clock.advance(eachMs);
      for (const dn of [...asked.keys()].slice(0, 40)) {
        answer(dn);
        answered += 1;
      }
    }
    expect(await Promise.all(all)).toEqual([[], []]);
    expect(most).toBe(wanted);
  });

  it('go over a second connection too once there are many, half each; it is closed after the load and opened again for the next', async () => {
    const { clock, sender, asked, answer, connection, further } = harness();
    let full = 0;
    const load = async (mark: string): Promise<void> => {
      const dns = Array.from({ length: 3000 }, (_, i) => `uid=${mark}${i},o=mail`);
      const sent = sender.send(blockOf(dns));
      for (let answered = 1; answered < dns.length; ) {
        await settle();
        await clock.advance(1);
        const there = [...asked.entries()];
        const urls = there.map(([, { url }]) => url);
        const onFurther = urls.filter((url) => url === 'ldap://further').length;
        // What was sent before the second was there is answered by then.
        if (answered > 1000 && there.length === underWayMax) {
          expect(onFurther).toBe(underWayMax / 2);
          full += 1;
        }
        // In their order on either.
        for (const [dn] of there.slice(0, 40)) {
          answer(dn);
          answered += 1;
        }
      }
      expect(await sent).toEqual([]);
    };
    await load('a');
    expect(further).toHaveLength(1);
    expect(full).toBeGreaterThan(0);
    await clock.advance(9_000);
    await load('b');
    expect(further.map((one) => one.isOpen)).toEqual([true]);
    await clock.advance(10_000);
    expect(further.map((one) => one.isOpen)).toEqual([false]);
    await load('c');
    // A server may end one that is idle.
    (further[1] as (typeof further)[number]).isOpen = false;
    await load('d');
    expect(further.map((one) => one.isOpen)).toEqual([false, false, true]);
    // Answers are not waited for one by one while many are to come.
    for (const { rests } of [connection, ...further]) {
      expect(rests.length).toBeGreaterThan(0);
      for (const restMs of rests) expect(restMs).toBeLessThanOrEqual(10);
    }
    sender[Symbol.dispose]();
    expect(further.every((one) => !one.isOpen)).toBe(true);
    expect(connection.isOpen).toBe(true);
  });

  it.each([
    ['few', 50, false],
    ['many, and the server allows one connection', 2000, true],
  ])('go over one connection when they are %s', async (_name, count, allowsOne) => {
    const { clock, sender, asked, answer, further } = harness({ allowsOne });
    const dns = Array.from({ length: count }, (_, i) => `uid=${i},o=mail`);
    const sent = sender.send(blockOf(dns));
    for (let answered = 1; answered < count; ) {
      await settle();
      await clock.advance(1);
      for (const [dn, { url }] of [...asked]) {
        expect(url).toBe('ldap://replica');
        answer(dn);
        answered += 1;
      }
    }
    expect(await sent).toEqual([]);
    expect(further).toEqual([]);
  });

  it('count as not sent when the second connection is lost', async () => {
    const { clock, sender, asked, answer, further } = harness();
    const sent = sender.send(blockOf(Array.from({ length: 2000 }, (_, i) => `uid=${i},o=mail`)));
    const outcome = Promise.allSettled([sent]);
    const lost = (): readonly AnswerTaker[] => [...asked.values()].flatMap(({ taker, url }) => (url === 'ldap://further' ? [taker] : []));
    while (lost().length === 0) {
      await settle();
      await clock.advance(1);
      for (const dn of [...asked.keys()].slice(0, 40)) answer(dn);
    }
    for (const taker of lost()) taker.fail(new PlatformError('NET_CLOSED', 'it closed the connection'));
    expect(await outcome).toMatchObject([{ status: 'rejected', reason: { code: 'NET_CLOSED' } }]);
    sender[Symbol.dispose]();
    expect(further.map((one) => one.isOpen)).toEqual([false]);
  });

  it('that are refused are named, the first as well, and are not taken for held', async () => {
    const refuse = (): Promise<void> =>
      Promise.reject(new PlatformError('DIR_EXISTS', 'there already', { fields: { resultCode: resultCodes.entryAlreadyExists } }));
    const { sender, answer, noted, released, counts } = harness({ write: refuse });
    const sent = sender.send(blockOf(['o=a', 'o=b', 'o=c', 'o=d']));
    await settle();
    answer('o=d', resultCodes.objectClassViolation);
    answer('o=b');
    answer('o=c', resultCodes.entryAlreadyExists);
    expect(await sent).toEqual([0, 2, 3]);
    expect(noted).toEqual(['o=b']);
    expect(released).toEqual([uuidOf(1)]);
    expect(counts).toEqual([1]);
  });

  it('all count as not sent when the replica is busy or lost', async () => {
    const { sender, answer, asked, noted } = harness();
    const all = [sender.send(blockOf(['o=a', 'o=b', 'o=c'])), sender.send(blockOf(['o=d', 'uid=e,o=d']))];
    const outcomes = Promise.allSettled(all);
    await settle();
    answer('o=b');
    answer('o=c', resultCodes.busy);
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'DIR_BUSY' } });
    // What is still answered changes nothing.
    for (const dn of [...asked.keys()]) answer(dn);
    await settle();
    expect([...asked.keys()]).toEqual([]);
    expect(noted).toEqual([]);
    await expect(sender.send(blockOf(['o=f']))).rejects.toMatchObject({ code: 'DIR_BUSY' });
  });
});
