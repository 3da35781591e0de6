/**
 * LDIF into a directory that holds entries already. Each entry passes the same rules as an LDAP Add by an administrator with the relax control, so
 * entryUUID, entryCSN and timestamps are kept, followers are told of each, and what is there is skipped.
 *
 *   chunks ──► LdifReader ──► up to 500 records ──► one transaction ──► next chunk
 */
import { messageOf } from '#common/errors/platform-error.ts';
import type { PasswordHasher } from '#common/passwords/password-hasher.ts';
import { relax } from '#protocol/ldap/controls.ts';
import { LdifReader, type LdifRecord } from '#protocol/ldap/ldif.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { unlimited } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import { addEntry } from '../server/add.ts';
import { hasClearPassword, withHashedPasswords } from '../server/prepare-passwords.ts';
import type { WriteContext } from '../server/write-rules.ts';
import { importerDn } from './prepare-entry.ts';

const recordsPerCommit = 500;
const importer = { dn: importerDn, rights: 'admin', uuid: undefined } as const;

/** What came of it. */
export interface ImportCounts {
  added: number;
  /** There already, by name. */
  skipped: number;
  failed: number;
}

/** Told while it runs. */
export interface ImportHandlers {
  mistake(line: number, detail: string): void;
  progress(counts: Readonly<ImportCounts>): void;
}

/** Reads to the end of `chunks`. */
export async function importByAdds(
  context: WriteContext,
  hasher: PasswordHasher,
  chunks: AsyncIterable<Buffer>,
  handlers: ImportHandlers,
): Promise<ImportCounts> {
  const counts: ImportCounts = { added: 0, skipped: 0, failed: 0 };
  const fail = (line: number, detail: string): void => {
    counts.failed += 1;
    handlers.mistake(line, detail);
  };
  let records: LdifRecord[] = [];
  const reader = new LdifReader({
    onRecord: (record) => records.push(record),
    onMistake: ({ line, detail }) => fail(line, detail),
  });

  const addOne = async (record: LdifRecord, attributes: readonly Attribute[]): Promise<void> => {
    try {
      await context.tree.store.write(() =>
        addEntry(context, { type: 'addRequest', dn: record.dn, attributes }, { who: importer, view: unlimited, controls: [relax] }),
      );
      counts.added += 1;
    } catch (error) {
      if (error instanceof Refusal && error.resultCode === resultCodes.entryAlreadyExists) counts.skipped += 1;
      else fail(record.line, `${record.dn}: ${messageOf(error)}`);
    }
  };
  const process = async (): Promise<void> => {
    const all = records;
    records = [];
    for (let at = 0; at < all.length; at += recordsPerCommit) {
      const batch = await Promise.all(
        all.slice(at, at + recordsPerCommit).map(async (record) => {
          if (record.change !== 'entry' && record.change !== 'add') {
            fail(record.line, `${record.dn}: changetype ${record.change} is not for an import; use ldapmodify`);
            return undefined;
          }
          const { attributes } = record;
          return { record, attributes: hasClearPassword(attributes) ? await withHashedPasswords(hasher, attributes) : attributes };
        }),
      );
      await Promise.all(batch.filter((one) => one !== undefined).map((one) => addOne(one.record, one.attributes)));
      handlers.progress(counts);
    }
  };
  for await (const chunk of chunks) {
    reader.push(chunk);
    await process();
  }
  reader.end();
  await process();
  return counts;
}
