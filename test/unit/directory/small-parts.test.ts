import { describe, expect, test } from 'vitest';
import { BindGuard } from '#directory/access/bind-guard.ts';
import { makeCookie, readCookie } from '#directory/changelog/cookie.ts';
import { CsnSource, csnTimeMs } from '#directory/changelog/csn.ts';
import { trimJournal } from '#directory/changelog/journal-care.ts';
import { type PlacementCandidate, placeAccount } from '#directory/provisioning/place.ts';
import { createMailSchema } from '#directory/schema/mail-schema.ts';
import { parseDefinition } from '#directory/schema/parse-definition.ts';
import { csnPattern } from '#directory/schema/syntaxes.ts';
import { Tree } from '#directory/server/tree.ts';
import { EntryStore, rootId } from '#directory/store/entry-store.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

describe('change sequence numbers', () => {
  test('only rise, also when the clock stands still, goes back, or a higher one is seen elsewhere', () => {
    const clock = new FakeClock();
    let nowMs = clock.nowMs();
    const source = new CsnSource(
      { ...clock, nowMs: () => nowMs, monotonicMs: () => 0, after: () => ({ cancel() {} }), every: () => ({ cancel() {} }) },
      1,
      undefined,
    );
    const given: string[] = [];
    for (const step of [0, 0, 5, -60_000, 0, 1, 60_001]) {
      nowMs += step;
      given.push(source.next());
    }
    source.observe('20990101000000.000000Z#00000a#000#000000');
    given.push(source.next());
    expect([...given].sort()).toEqual(given);
    expect(new Set(given).size).toBe(given.length);
    expect(given.every((csn) => csnPattern.test(csn))).toBe(true);
    expect(given.at(-1)).toBe('20990101000000.000000Z#00000b#001#000000');
    expect(csnTimeMs(given[0] as string)).toBe(clock.nowMs());
  });
});

describe('cookies', () => {
  test('read back what was written, and what OpenLDAP writes', () => {
    const parts = { rid: '001', csn: '20260101000000.000000Z#000000#000#000000', databaseId: 'ab12', changeNumber: 77 };
    expect(readCookie(makeCookie(parts))).toEqual(parts);
    expect(readCookie(Buffer.from('rid=000,csn=b;a'))).toMatchObject({ csn: 'a', changeNumber: undefined });
    for (const text of ['', 'x', 'pos=zz.1', 'pos=ab.', 'csn']) expect(readCookie(Buffer.from(text))).toBeUndefined();
    expect(readCookie(Buffer.alloc(2000, 'rid=1,'))).toBeUndefined();
  });
});

describe('placement', () => {
  const cluster = (name: string, accounts: number, weight = 100, region?: string): PlacementCandidate => ({
    name,
    accounts,
    weight,
    region,
  });
  const random = seededRandom(7);
  test.each<[string, PlacementCandidate[], string | undefined, string | undefined]>([
    ['the emptier one', [cluster('a', 5), cluster('b', 4)], undefined, 'b'],
    ['the first by name among equals', [cluster('b', 4), cluster('a', 4)], undefined, 'a'],
    ['the one with room for its weight', [cluster('a', 50, 100), cluster('b', 40, 50)], undefined, 'a'],
    ['one of the region, if there is one', [cluster('a', 0), cluster('b', 9, 100, 'EU')], 'eu', 'b'],
    ['any when the region has none', [cluster('a', 0), cluster('b', 9, 100, 'eu')], 'us', 'a'],
    ['never one of weight 0', [cluster('a', 0, 0), cluster('b', 9)], undefined, 'b'],
    ['none when none is open', [cluster('a', 0, 0)], undefined, undefined],
  ])('takes %s', (_what, clusters, region, expected) => {
    expect(placeAccount('fewest-accounts', clusters, region, random)).toBe(expected);
    expect(placeAccount('none', clusters, region, random)).toBeUndefined();
  });

  test('draws by weight when asked to', () => {
    const drawn = Array.from({ length: 4000 }, () =>
      placeAccount('weighted', [cluster('a', 0, 75), cluster('b', 0, 25)], undefined, random),
    );
    const share = drawn.filter((name) => name === 'a').length / drawn.length;
    expect(share).toBeGreaterThan(0.7);
    expect(share).toBeLessThan(0.8);
  });
});

describe('the bind guard', () => {
  test('delays failures more and more, closes an address after fifty, and forgets after a minute', async () => {
    const clock = new FakeClock();
    const guard = new BindGuard(clock);
    const { signal } = new AbortController();
    let answered = 0;
    for (let i = 0; i < 50; i += 1) {
      expect(guard.admits('192.0.2.1')).toBe(true);
      void guard.failed('192.0.2.1', signal).then(() => {
        answered += 1;
      });
    }
    await settle();
    expect(answered).toBe(0);
    await clock.advance(60);
    expect(answered).toBe(1);
    await clock.advance(2000);
    expect(answered).toBe(50);
    expect([guard.admits('192.0.2.1'), guard.admits('192.0.2.2')]).toEqual([false, true]);
    await clock.advance(60_000);
    expect(guard.admits('192.0.2.1')).toBe(true);
  });

  test('counts, and takes the addresses of one IPv6 network for one', () => {
    const guard = new BindGuard(new FakeClock());
    const { signal } = new AbortController();
    for (let i = 0; i < 50; i += 1) void guard.failed(`2001:db8::${i.toString(16)}`, signal);
    expect(guard.admits('2001:DB8:0:0:ffff::1')).toBe(false);
    expect(guard.admits('2001:db8:0:1::1')).toBe(true);
    void guard.failed('::ffff:192.0.2.1', signal);
    expect(guard.admits('::ffff:192.0.2.1')).toBe(true);
    expect(guard.counts()).toEqual({ failed: 51, refused: 1, addressesRefused: 1 });
  });
});

describe('the journal', () => {
  test('is trimmed to the last changes, and says from which CSN on it is whole', async () => {
    using store = new EntryStore(':memory:', { keysOf: () => [], talliesOf: () => [] });
    const tree = new Tree({ store, schema: createMailSchema(), suffix: 'o=mail', clock: new FakeClock(), mode: 'master' });
    await store.write(() => {
      tree.setContextCsn('0');
      for (let i = 1; i <= 50; i += 1) {
        const uuid = `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`;
        store.add({ parentId: rootId, rdn: `cn=${i}`, rdnNorm: `cn=${i}`, uuid, csn: `csn${String(i).padStart(3, '0')}`, attributes: [] });
      }
    });
    await trimJournal(tree, 20);
    expect(store.journalAfter(0, 100).map((record) => record.changeNumber)).toEqual(Array.from({ length: 20 }, (_, i) => 31 + i));
    expect([store.meta('trimmedTo'), store.meta('floorCsn'), store.lastChangeNumber()]).toEqual(['30', 'csn030', 50]);
  });
});

describe('schema definitions', () => {
  test.each(['( x )', '( 1.2.3 NAME', "( 1.2.3 NAME 'a' NAME 'b' )", '( 1.2.3 SUP )', "( 1.2.3 name 'a' )", '1.2.3'])(
    '%s is refused',
    (text) => {
      expect(() => parseDefinition(text)).toThrow(/malformed/);
    },
  );
});
