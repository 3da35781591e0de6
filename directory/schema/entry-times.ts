/** The times of entries as numbers, for the order that store/time-index.ts keeps. */
import type { Attribute } from '#protocol/ldap/messages.ts';
import { type EntryTimes, timeNumber } from '../store/time-index.ts';
import { generalizedTimeKey } from './matching-rules.ts';
import type { Schema } from './schema.ts';

/** Attributes that the order is kept of, by key. */
export const orderedTimes: Readonly<Record<string, keyof EntryTimes>> = { createtimestamp: 'created', modifytimestamp: 'changed' };

/** Tells the times of entries. */
export function entryTimes(schema: Schema): (attributes: readonly Attribute[]) => EntryTimes {
  // After an import they are the same for thousands of entries.
  let lastText = '';
  let lastNumber = 0;
  const numberOf = (value: Buffer): number => {
    const text = value.toString('latin1');
    if (text === lastText) return lastNumber;
    const key = generalizedTimeKey(value);
    lastText = text;
    lastNumber = key === undefined ? 0 : timeNumber(key);
    return lastNumber;
  };
  return (attributes) => {
    const times = { created: 0, changed: 0 };
    for (const { type, values } of attributes) {
      const which = orderedTimes[schema.description(type)?.type.key ?? ''];
      if (which !== undefined) for (const value of values) times[which] = Math.max(times[which], numberOf(value));
    }
    return times;
  };
}
