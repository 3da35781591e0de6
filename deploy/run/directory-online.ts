/**
 * `archipelago directory import` and `export` against a running server, whichever it is: LDIF by LDAP adds with the relax control, so that entryUUID and
 * times are kept where the server allows it, and back.
 */
import { printable } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { relax } from '#protocol/ldap/controls.ts';
import { normalizeDnText, splitDn } from '#protocol/ldap/dn.ts';
import { formatLdifEntry, LdifReader, type LdifRecord } from '#protocol/ldap/ldif.ts';
import { textsOf } from '#protocol/ldap/messages.ts';

/** Adds that are under way at a time. */
const addsAtOnce = 64;
/** Entries of an export that wait for the one above them. */
const heldBackMax = 100_000;
/** What makes an entry the same one again; what a server computes is left out. */
const keptOperational = ['entryUUID', 'entryCSN', 'createTimestamp', 'creatorsName', 'modifyTimestamp', 'modifiersName'];

/** What came of an import. */
export interface OnlineCounts {
  added: number;
  skipped: number;
  failed: number;
}

/**
 * Adds every record; what is there already is skipped. Persons and accounts are added many at a time, each behind the one above it; anything else, such as
 * domains and clusters that accounts name, when all before it is done, and before what follows.
 */
export async function importOnline(
  connection: LdapConnection,
  chunks: AsyncIterable<Buffer>,
  told: { mistake(line: number, detail: string): void; progress(counts: Readonly<OnlineCounts>): void },
): Promise<OnlineCounts> {
  const counts: OnlineCounts = { added: 0, skipped: 0, failed: 0 };
  const fail = (line: number, detail: string): void => {
    counts.failed += 1;
    told.mistake(line, detail);
  };
  let records: LdifRecord[] = [];
  const reader = new LdifReader({
    onRecord: (record) => records.push(record),
    onMistake: ({ line, detail }) => fail(line, detail),
  });
  const underWay = new Map<string, Promise<void>>();
  const addOne = async (record: LdifRecord): Promise<void> => {
    if (record.change !== 'entry' && record.change !== 'add') {
      fail(record.line, `${printable(record.dn)}: changetype ${record.change} is not for an import; use ldapmodify`);
      return;
    }
    const parent = normalizeDnText(splitDn(record.dn)?.parent ?? '') ?? '';
    await underWay.get(parent);
    try {
      await connection.add(record.dn, record.attributes, [relax]);
      counts.added += 1;
    } catch (error) {
      if (error instanceof PlatformError && error.code === 'DIR_EXISTS') counts.skipped += 1;
      else fail(record.line, `${printable(record.dn)}: ${messageOf(error)}`);
    }
    told.progress(counts);
  };
  const process = async (): Promise<void> => {
    for (const record of records) {
      while (underWay.size >= addsAtOnce) await Promise.race(underWay.values());
      const key = normalizeDnText(record.dn) ?? record.dn;
      await underWay.get(key);
      if (!isPerson(record)) {
        await Promise.all(underWay.values());
        await addOne(record);
        continue;
      }
      const added = addOne(record).finally(() => underWay.delete(key));
      underWay.set(key, added);
    }
    records = [];
  };
  for await (const chunk of chunks) {
    reader.push(chunk);
    await process();
  }
  reader.end();
  await process();
  await Promise.all(underWay.values());
  return counts;
}

function isPerson(record: LdifRecord): boolean {
  return (
    'attributes' in record && textsOf(record.attributes, 'objectClass').some((name) => /^(?:mailAccount|inetOrgPerson|person)$/i.test(name))
  );
}

/** Gives what is at and below a base as LDIF, entries behind those above them; without a version line, as offline (export.ts). */
export async function* exportOnline(connection: LdapConnection, baseDn: string): AsyncGenerator<string, number, void> {
  let count = 0;
  const base = normalizeDnText(baseDn) ?? baseDn;
  const written = new Set<string>();
  const heldBack = new Map<string, { readonly key: string; readonly text: string }[]>();
  let held = 0;
  for await (const item of connection.search({ baseDn, scope: 'sub', attributes: ['*', ...keptOperational] })) {
    if (item.kind !== 'entry') continue;
    const key = normalizeDnText(item.dn) ?? item.dn;
    const parent = normalizeDnText(splitDn(item.dn)?.parent ?? '') ?? '';
    const text = formatLdifEntry(item);
    if (key !== base && !written.has(parent)) {
      held += 1;
      if (held > heldBackMax) throw new PlatformError('DIR_REFUSED', `more than ${heldBackMax} entries came before the one above them`);
      heldBack.set(parent, [...(heldBack.get(parent) ?? []), { key, text }]);
      continue;
    }
    const ready = [{ key, text }];
    for (let next = ready.shift(); next !== undefined; next = ready.shift()) {
      yield next.text;
      count += 1;
      written.add(next.key);
      ready.push(...(heldBack.get(next.key) ?? []));
      heldBack.delete(next.key);
    }
  }
  // What stands below entries that were not shown.
  for (const entries of heldBack.values()) {
    for (const { text } of entries) {
      yield text;
      count += 1;
    }
  }
  return count;
}
