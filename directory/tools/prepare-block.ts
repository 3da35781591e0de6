/**
 * A block of LDIF to a batch of prepared entries: what a thread of an import does. Records like the one before them go from octets to octets
 * (plain-records.ts); all others are read, checked and packed one by one (ldif-block.ts, prepare-entry.ts).
 */
import type { Clock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import type { Random } from '#common/random.ts';
import { readLdifBlock } from '#protocol/ldap/ldif-block.ts';
import { CsnSource, generalizedTime } from '../changelog/csn.ts';
import { createMailSchema } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { SchemaFile } from '../schema/schema-file.ts';
import { hasClearPassword, withHashedPasswords } from '../server/prepare-passwords.ts';
import { PlainRecords } from './plain-records.ts';
import { type ContentRecord, EntryPreparer, type PreparedEntry } from './prepare-entry.ts';
import { type BatchRoom, BatchWriter, newRoom, type PreparedBatch, type PreparedMistake } from './prepared-batch.ts';

/** Prepares blocks; several at a time where threads do it. */
export type PrepareBlock = (block: Buffer) => Promise<PreparedBatch>;

/** Prepares them in this thread. */
export function createPrepareBlock(ports: {
  readonly clock: Clock;
  readonly random: Random;
  readonly hasher: PasswordHasher;
  readonly schemaFiles?: readonly SchemaFile[];
}): PrepareBlock {
  const csns = new CsnSource(ports.clock, 0, undefined);
  const schema = createMailSchema(ports.schemaFiles);
  const preparer = new EntryPreparer({
    schema,
    random: ports.random,
    now: generalizedTime(ports.clock.nowMs()),
    nextCsn: () => csns.next(),
  });
  const plain = new PlainRecords({ schema, uuid: () => ports.random.uuid(), nextCsn: () => csns.next() });
  let room: BatchRoom | undefined;
  return async (block) => {
    // Whoever comes while another block waits for a hash has one of its own.
    const writer = new BatchWriter(room ?? newRoom(block.length));
    room = undefined;
    plain.begin(block, writer);
    const mistakes: PreparedMistake[] = [];
    const take = (record: ContentRecord): PreparedEntry | undefined => {
      try {
        const prepared = preparer.prepare(record);
        writer.add(prepared);
        return prepared;
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        mistakes.push({ line: record.line, detail: `${record.dn}: ${error.message}` });
        return undefined;
      }
    };
    // From the first password in clear on records wait for its hash, because parents come before what is below them.
    const waiting: ContentRecord[] = [];
    const lines = readLdifBlock(block, {
      taker: plain,
      onMistake: (mistake) => mistakes.push(mistake),
      onRecord: (record) => {
        if (record.change !== 'entry' && record.change !== 'add') {
          mistakes.push({ line: record.line, detail: `${record.dn}: changetype ${record.change} is not for an import; use ldapmodify` });
        } else if (waiting.length === 0 && !hasClearPassword(record.attributes)) {
          const prepared = take(record);
          if (prepared !== undefined) plain.learn(record, prepared, preparer.form);
        } else {
          waiting.push(record);
          plain.begin(block, undefined);
        }
      },
    });
    for (const record of waiting) {
      if (!hasClearPassword(record.attributes)) {
        take(record);
        continue;
      }
      try {
        take({ ...record, attributes: await withHashedPasswords(ports.hasher, record.attributes) });
      } catch (error) {
        mistakes.push({ line: record.line, detail: `${record.dn}: ${messageOf(error)}` });
      }
    }
    const batch = writer.finish(mistakes, lines);
    room = writer.room;
    return batch;
  };
}
