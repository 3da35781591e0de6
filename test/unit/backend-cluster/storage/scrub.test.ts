import { describe, expect, it } from 'vitest';
import type { AccountCheck } from '#backend-cluster/storage/account-store.ts';
import { Scrub, type ScrubOptions } from '#backend-cluster/storage/scrub.ts';
import { type AccountUuid, parseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { FakeClock, settle } from '#test/fakes/clock.ts';

const uuids = Array.from({ length: 10 }, (_, i) => parseAccountUuid(`${i}1111111-2222-4333-8444-555555555555`));
const minute = 60_000;

/** A store of ten accounts with a megabyte each, read in pieces of 100 kB. */
function fixture(options: { bytesPerSecond?: number } = {}) {
  const clock = new FakeClock();
  const notes = new Map<string, unknown>();
  const checked: AccountUuid[] = [];
  const damaged = new Set<AccountUuid>();
  const failing = new Set<AccountUuid>();
  const told: AccountUuid[] = [];
  const store: ScrubOptions['store'] = {
    async *accounts(after) {
      for (const uuid of uuids) if (uuid > after) yield uuid;
    },
    async checkAccount(uuid, request) {
      checked.push(uuid);
      if (failing.has(uuid)) throw new PlatformError('STORE_UNAVAILABLE', 'it does not answer');
      for (let i = 0; i < 10; i += 1) await request?.pace?.(100_000);
      const isDamaged = damaged.has(uuid);
      expect(request?.isMarking).toBe(true);
      return { uuid, findings: isDamaged ? [{ file: 'f', problem: 'p' }] : [], isComplete: !isDamaged } as unknown as AccountCheck;
    },
    notes: { read: async (name) => notes.get(name), write: async (name, value) => void notes.set(name, structuredClone(value)) },
  };
  const lead = { is: true };
  const scrub = () =>
    new Scrub({
      store,
      clock,
      log: silentLogger,
      metrics: createMetrics(),
      bytesPerSecond: options.bytesPerSecond ?? 100_000,
      everyMs: 10 * minute,
      mayRun: () => lead.is,
      onDamage: (uuid) => told.push(uuid),
    });
  return { clock, checked, damaged, failing, told, lead, scrub };
}

describe('the check of all accounts', () => {
  it('keeps its pace, tells of damage, and begins again when the time has come', async () => {
    const { clock, checked, damaged, told, scrub } = fixture();
    damaged.add(uuids[3] as AccountUuid);
    const running = scrub();
    running.start();
    await settle();
    // A hundred kilobytes a second: ten seconds an account.
    await clock.advance(35_000);
    expect(checked.length).toBe(4);
    await clock.advance(70_000);
    expect(checked).toEqual(uuids);
    expect(told).toEqual([uuids[3]]);
    expect(await running.status()).toMatchObject({ round: 1, accounts: 10, bytes: 10_000_000, damaged: 1, unread: 0 });
    await clock.advance(7 * minute);
    expect(checked.length).toBe(10);
    await clock.advance(4 * minute);
    expect(checked.length).toBe(20);
    await running.stop();
  });

  it('is gone on with by the next Controller, where the last one was', async () => {
    const { clock, checked, lead, scrub } = fixture();
    const first = scrub();
    first.start();
    await settle();
    await clock.advance(45_000);
    lead.is = false;
    await clock.advance(20_000);
    await first.stop();
    expect(checked.length).toBe(5);
    const second = scrub();
    second.start();
    await settle();
    await clock.advance(20_000);
    expect(checked.length).toBe(5);
    lead.is = true;
    await clock.advance(80_000);
    expect(checked).toEqual(uuids);
    expect(await second.status()).toMatchObject({ round: 1, accounts: 10 });
    await second.stop();
  });

  it('passes over what cannot be read, and counts it', async () => {
    const { clock, failing, scrub } = fixture();
    failing.add(uuids[0] as AccountUuid);
    const running = scrub();
    running.start();
    await settle();
    await clock.advance(120_000);
    expect(await running.status()).toMatchObject({ accounts: 10, unread: 1, damaged: 0 });
    await running.stop();
  });

  it('that has no rate runs only when it is asked for', async () => {
    const { clock, checked, scrub } = fixture({ bytesPerSecond: 0 });
    const running = scrub();
    running.start();
    await settle();
    await clock.advance(20 * minute);
    expect(checked).toEqual([]);
    running.ask();
    await settle();
    await clock.advance(10_000);
    expect(checked).toEqual(uuids);
    await clock.advance(20 * minute);
    expect(checked.length).toBe(10);
    await running.stop();
  });
});
