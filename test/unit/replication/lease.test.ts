/** Who holds a replica's lease when its place is slow, silent, put back from an older copy, or when a holder is stopped. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { silentLogger } from '#common/log/logger.ts';
import { Lease } from '#replication/lease.ts';
import type { LeaseRecord, StatePlace } from '#replication/state-place.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

const leaseMs = 1000;

/** A place in memory that fails as a test wants it to. */
class Place {
  lease: LeaseRecord | undefined;
  /** Who hears nothing of it. */
  readonly silentFor = new Set<string>();
  /** What is swapped is kept, and its answer is lost. */
  losesAnswers = false;
  readonly given: LeaseRecord[] = [];

  open(holder: string): Promise<StatePlace> {
    if (this.silentFor.has(holder)) return Promise.reject(new Error('the replica does not answer'));
    return Promise.resolve({
      readLease: () => Promise.resolve(this.lease),
      swapLease: (expected, next) => {
        if (JSON.stringify(expected) !== JSON.stringify(this.lease)) return Promise.resolve(false);
        if (next.holder !== '' && next.number !== this.lease?.number) this.given.push(next);
        this.lease = next;
        return this.losesAnswers ? Promise.reject(new Error('the answer is lost')) : Promise.resolve(true);
      },
      read: () => Promise.resolve(undefined),
      keep: () => Promise.resolve(),
    });
  }
}

/** Of the services of a test each has a clock of its own; all of them move, except those that are stopped. */
class Site {
  readonly place = new Place();
  readonly #clocks = new Map<string, FakeClock>();

  service(holder: string, startMs: number): Lease {
    const clock = new FakeClock(startMs);
    this.#clocks.set(holder, clock);
    const lease = new Lease({
      ...{ holder, leaseMs, clock, place: () => this.place.open(holder), log: silentLogger },
      onTaken: () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
      random: seededRandom(startMs % 1000),
    });
    onTestFinished(async () => {
      const over = lease[Symbol.asyncDispose]();
      await this.pass(leaseMs);
      await over;
    });
    return lease;
  }

  /** That much time passes for everybody but those who are stopped. */
  async pass(ms: number, ...stopped: string[]): Promise<void> {
    for (let passed = 0; passed < ms; passed += 20) {
      for (const [holder, clock] of this.#clocks) if (!stopped.includes(holder)) await clock.advance(20);
    }
    await settle();
  }
}

/** Clocks that are wrong by hours: no two services have the same. */
const today = Date.UTC(2026, 10, 29);
const yesterday = today - 86_399_993;

const mayWrite = (lease: Lease): boolean => lease.refusal() === undefined;

async function twoServices(): Promise<{ site: Site; one: Lease; two: Lease }> {
  const site = new Site();
  const one = site.service('one', today);
  await site.pass(100);
  const two = site.service('two', yesterday);
  await site.pass(100);
  expect([mayWrite(one), mayWrite(two)]).toEqual([true, false]);
  return { site, one, two };
}

describe('a lease', () => {
  it('stays with its holder while that renews it, however far the clocks are apart', async () => {
    const { site, one, two } = await twoServices();
    await site.pass(20 * leaseMs);
    expect([mayWrite(one), mayWrite(two), site.place.given.length]).toEqual([true, false, 1]);
  });

  it('is taken by another when its holder is stopped, who writes nothing when it goes on, and stands by', async () => {
    const { site, one, two } = await twoServices();
    await site.pass(2 * leaseMs, 'one');
    expect([mayWrite(two), site.place.given.length]).toEqual([true, 2]);
    // Its clock shows the time that it was stopped for, at once.
    await site.pass(leaseMs * 0.82, 'two');
    expect(mayWrite(one)).toBe(false);
    await site.pass(2 * leaseMs);
    expect([one.isActive, mayWrite(one), mayWrite(two), site.place.given.length]).toEqual([false, false, true, 2]);
  });

  it.each([
    ['its holder', ['one']],
    ['both services', ['one', 'two']],
  ])(
    'is written with no more once its place has been silent for four fifths of it, for %s, before anybody else takes it',
    async (_who, who) => {
      const { site, one, two } = await twoServices();
      const writers = async (ms: number): Promise<Set<string>> => {
        const seen = new Set<string>();
        for (let passed = 0; passed < ms; passed += 20) {
          await site.pass(20);
          seen.add(`${mayWrite(one) ? 'one' : ''}${mayWrite(two) ? 'two' : ''}`);
        }
        return seen;
      };
      for (const holder of who) site.place.silentFor.add(holder);
      const meanwhile = await writers(3 * leaseMs);
      expect(meanwhile).not.toContain('onetwo');
      expect([mayWrite(one), mayWrite(two)]).toEqual([false, who.length === 1]);
      site.place.silentFor.clear();
      expect(await writers(3 * leaseMs)).not.toContain('onetwo');
      expect([mayWrite(one), mayWrite(two)].filter(Boolean)).toHaveLength(1);
    },
  );

  it('stays with a holder whose beat was kept, when the answer to it was lost', async () => {
    const { site, one } = await twoServices();
    site.place.losesAnswers = true;
    await site.pass(leaseMs / 4 + 20);
    site.place.losesAnswers = false;
    await site.pass(3 * leaseMs);
    expect([mayWrite(one), site.place.given.length]).toEqual([true, 1]);
  });

  it('is not believed to be ours when it was taken and the answer to that was lost', async () => {
    const site = new Site();
    site.place.losesAnswers = true;
    const one = site.service('one', today);
    await site.pass(20);
    site.place.losesAnswers = false;
    expect([mayWrite(one), site.place.lease?.holder]).toEqual([false, 'one']);
    await site.pass(2 * leaseMs);
    expect([mayWrite(one), site.place.given.length]).toEqual([true, 2]);
  });

  it('is given up by its holder when its place is put back from an older copy, and has one holder again', async () => {
    const { site, one, two } = await twoServices();
    // One holds it after two did; the copy is of a time when two was about to give it up.
    await site.pass(2 * leaseMs, 'one');
    await site.pass(2 * leaseMs, 'two');
    await site.pass(leaseMs);
    expect([mayWrite(one), site.place.given.length]).toEqual([true, 3]);
    site.place.lease = { number: site.place.given[1]?.number ?? 0, holder: '', beat: 7 };
    await site.pass(4 * leaseMs);
    expect([mayWrite(one), mayWrite(two)].filter(Boolean)).toHaveLength(1);
    // The holder of before may still send what it had begun: its number must not be the new one's.
    const numbers = site.place.given.map(({ number }) => number);
    expect(numbers).toHaveLength(4);
    expect(new Set(numbers).size).toBe(4);
  });
});
