/**
 * The histories must be able to fail. Each store here has one safeguard taken away, as a simpler design would have it, and the ledger
 * must find acknowledged mail lost or UIDs given twice.
 */
import { describe, expect, it } from 'vitest';
import type { Files } from '#common/files/files.ts';
import { withLeaseOnly, withoutDirectorySync, withoutRevocation } from '#test/fakes/broken-files.ts';
import type { Fault } from '#test/fakes/memory-files.ts';
import { countOperations, history, type PowerCut } from './histories.ts';

describe('a store with a safeguard taken away', () => {
  const variants: [string, (files: Files) => Files, Fault, PowerCut, RegExp][] = [
    ['compaction without revocation', withoutRevocation, { kind: 'held' }, 'no power cut', /I3: .* is lost/],
    ['writes under a lease alone', withLeaseOnly, { kind: 'held' }, 'no power cut', /I3: .* is lost/],
    ['commits that are not made durable', withoutDirectorySync, { kind: 'dies-after' }, 'names lost', /I3: .* is lost/],
  ];

  it.each(variants)('is caught: %s', async (_, through, fault, cut, expected) => {
    const operations = await countOperations();
    const caught: string[] = [];
    for (let index = 0; index < operations && caught.length < 3; index += 1) {
      const found = await history(index, fault, cut, through).catch((error: unknown) => [`the history ended early: ${String(error)}`]);
      caught.push(...found.filter((violation) => expected.test(violation)));
    }
    expect(caught.length).toBeGreaterThanOrEqual(3);
  });
});
