/** What the store asks of the schema; it knows no attribute by itself. */
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { IndexKey } from './key-index.ts';
import type { TextsOf } from './piece-index.ts';
import type { EntryTimes } from './time-index.ts';

/** What the store asks about an entry's attributes. */
export interface EntryFunctions {
  /** Index keys. */
  keysOf(attributes: readonly Attribute[]): readonly IndexKey[];
  /** Names of the counters in which the entry counts. */
  talliesOf(attributes: readonly Attribute[]): readonly string[];
  /** When an entry was created and changed; without it no search by time gets candidates. */
  timesOf?(attributes: readonly Attribute[]): EntryTimes;
  /** Values of attributes whose pieces may be indexed; without it none are. */
  piecesOf?: TextsOf;
  /** Whether the schema defines the attribute; without it every one counts as defined. */
  isDefined?(attribute: string): boolean;
  /** What of an entry no definition of the schema knows, for the check of a whole database. */
  unknownIn?(attributes: readonly Attribute[]): readonly string[];
}
