/**
 * One member works on an account, and at every single operation on the disk something happens to it: it dies before, after or half-way,
 * the answer is lost, the disk fails or is full, or the operation is held back and happens after another member took the account over.
 */
import { describe, expect, it } from 'vitest';
import type { Fault } from '#test/fakes/memory-files.ts';
import { countOperations, history, type PowerCut } from './histories.ts';

describe('an account whose owner meets a fault at any operation', () => {
  const faults: [string, Fault, PowerCut][] = [
    ['dies before it', { kind: 'dies-before' }, 'no power cut'],
    ['dies after it', { kind: 'dies-after' }, 'no power cut'],
    ['dies half-way through it', { kind: 'dies-half-way' }, 'no power cut'],
    ['dies after it and the power is cut', { kind: 'dies-after' }, 'names lost'],
    ['dies after it and the power is cut, with some names on disk', { kind: 'dies-after' }, 'some names lost'],
    ['dies and it happens after the take-over', { kind: 'dies-and-happens-later' }, 'no power cut'],
    ['sleeps and it happens after the take-over', { kind: 'held' }, 'no power cut'],
    ['is told EIO though it happened', { kind: 'happens-but-fails', code: 'EIO' }, 'no power cut'],
    ['is told EEXIST though it happened', { kind: 'happens-but-fails', code: 'EEXIST' }, 'no power cut'],
    ['is told EIO', { kind: 'fails', code: 'EIO' }, 'no power cut'],
    ['is told ESTALE', { kind: 'fails', code: 'ESTALE' }, 'no power cut'],
    ['is told that the disk is full', { kind: 'fails', code: 'ENOSPC' }, 'no power cut'],
  ];

  it.each(faults)('keeps every promise when the owner %s', async (_, fault, cut) => {
    const operations = await countOperations();
    expect(operations).toBeGreaterThan(150);
    const broken: string[] = [];
    for (let index = 0; index < operations; index += 1) {
      const found = await history(index, fault, cut);
      if (found.length > 0) broken.push(`operation ${index}: ${found.join('; ')}`);
    }
    expect(broken).toEqual([]);
  });
});
