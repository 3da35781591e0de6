/**
 * Compares a replica with the master: UUID, name, CSN and content.
 *
 *   read both once ──► digests of ranges (digest.ts) ──► equal: done
 *                         └─ ranges that differ ──► read both again, those entries only ──► suspects
 *                                                      └──► look at each on both sides ──► wait for changes under way ──► look again
 *
 * Changes go on meanwhile. What is equal when it is looked at is no difference, and neither is an entry that the master changed between
 * the last two looks: it is counted as under way. Memory is bounded: 24 bytes a range, and one lot of entries at a time.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { UuidTable } from '#directory/client/uuid-table.ts';
import type { Difference, VerifyReport } from '#replication/client/status.ts';
import { decide, type EntryImage } from '#replication/decide.ts';
import { entryDigest, type Lot, RangeDigests } from '#replication/digest.ts';
import { findManyAtMaster, findManyByUuid, type ReadEntry, readAllEntries } from '#replication/replica.ts';
import type { Scope } from '#replication/scope.ts';

/** Differences that one comparison lists; beyond, they are counted and the report says that the list is cut. */
export const differencesMax = 50_000;
/** Entries of a side that are compared one by one at a time: with more in the ranges that differ, both sides are read once more for each lot. */
const lotEntriesMax = 100_000;
/** Entries that are asked for in one search. */
export const lookAtMax = 100;

/** What is compared with what. */
export interface Comparison {
  readonly name: string;
  readonly master: LdapConnection;
  readonly replica: LdapConnection;
  readonly suffix: string;
  /** False for a replica that has CSNs of its own. */
  readonly keepsCsn: boolean;
  readonly scope: Scope;
  /** Resolves when the replica has had time for the changes that are under way. */
  readonly settled?: () => Promise<void>;
}

/** Compares the whole. `lotMax` and `listedMax` are limits of memory. */
export async function compareServers(comparison: Comparison, lotMax = lotEntriesMax, listedMax = differencesMax): Promise<VerifyReport> {
  const { master, replica, suffix, scope } = comparison;
  const ranges = new RangeDigests();
  // A master without CSNs leaves the replica its own.
  let keepsCsn = comparison.keepsCsn;
  for await (const entry of readAllEntries(master, suffix, scope.selection, scope)) {
    if (ranges.entries === 0) keepsCsn &&= entry.attributes.some((one) => one.type.toLowerCase() === 'entrycsn');
    ranges.addMaster(named(entry, master), entryDigest(entry.uuid, scope.trim(entry), keepsCsn));
  }
  for await (const entry of readAllEntries(replica, suffix, scope.selection)) {
    ranges.addReplica(named(entry, replica), entryDigest(entry.uuid, scope.trim(entry), keepsCsn));
  }
  const findings = new Findings(listedMax);
  for (const lot of ranges.differing(lotMax)) {
    await lookAt(comparison, await suspectsOf(comparison, lot, keepsCsn), findings);
  }
  return findings.report(comparison.name, ranges.entries);
}

/** Differences as they are found. */
export class Findings {
  readonly #listedMax: number;
  readonly #listed = new Map<string, Difference>();
  #differing = 0;
  #extra = 0;
  #underWay = 0;

  constructor(listedMax = differencesMax) {
    this.#listedMax = listedMax;
  }

  get differing(): number {
    return this.#differing;
  }

  /** Takes one; the same entry met again counts once. */
  add(difference: Difference): void {
    if (this.#listed.has(difference.uuid)) return;
    this.#differing += 1;
    if (difference.kind === 'extra') this.#extra += 1;
    if (this.#listed.size < this.#listedMax) this.#listed.set(difference.uuid, difference);
  }

  addUnderWay(): void {
    this.#underWay += 1;
  }

  report(replica: string, entries: number): VerifyReport {
    return {
      replica,
      entries,
      differences: [...this.#listed.values()],
      differing: this.#differing,
      extra: this.#extra,
      isCut: this.#differing > this.#listed.size,
      underWay: this.#underWay,
    };
  }
}

/** Compares these entries one by one, and those that differ once more. */
export async function lookAt(comparison: Comparison, uuids: readonly string[], findings: Findings): Promise<void> {
  /** What the master had when the entry differed; '' for nothing. */
  const differing = new Map<string, string>();
  await look(comparison, uuids, (uuid, difference, atMaster) => {
    if (difference !== undefined) differing.set(uuid, atMaster);
  });
  if (differing.size === 0) return;
  await comparison.settled?.();
  await look(comparison, [...differing.keys()], (uuid, difference, atMaster) => {
    if (difference === undefined) return;
    if (atMaster === differing.get(uuid)) findings.add(difference);
    else findings.addUnderWay();
  });
}

type Seen = (uuid: string, difference: Difference | undefined, atMaster: string) => void;

async function look({ master, replica, suffix, keepsCsn, scope }: Comparison, uuids: readonly string[], seen: Seen): Promise<void> {
  for (let from = 0; from < uuids.length; from += lookAtMax) {
    const some = uuids.slice(from, from + lookAtMax);
    const [wanted, present] = await Promise.all([
      findManyAtMaster(master, suffix, some, scope),
      findManyByUuid(replica, suffix, some, scope),
    ]);
    for (const uuid of some) {
      const atMaster = wanted.get(uuid);
      seen(
        uuid,
        compareEntry(uuid, atMaster, present.get(uuid), keepsCsn),
        atMaster === undefined ? '' : entryDigest(uuid, atMaster, true).toString('latin1'),
      );
    }
  }
}

/** How one entry differs; `undefined` when it does not. */
export function compareEntry(
  uuid: string,
  wanted: EntryImage | undefined,
  present: EntryImage | undefined,
  keepsCsn: boolean,
): Difference | undefined {
  if (wanted === undefined) return present === undefined ? undefined : { uuid, dn: present.dn, kind: 'extra', what: [] };
  if (present === undefined) return { uuid, dn: wanted.dn, kind: 'missing', what: [] };
  const what = decide(wanted, present, keepsCsn).flatMap((step) =>
    step.kind === 'modify' ? step.changes.map((change) => change.attribute.type) : ['dn'],
  );
  return what.length === 0 ? undefined : { uuid, dn: wanted.dn, kind: 'different', what: [...new Set(what)] };
}

async function suspectsOf({ master, replica, suffix, scope }: Comparison, lot: Lot, keepsCsn: boolean): Promise<string[]> {
  const table = new UuidTable();
  for await (const entry of readAllEntries(master, suffix, scope.selection, scope)) {
    if (!lot.has(named(entry, master))) continue;
    table.mark(entry.uuid);
    table.setFingerprint(entry.uuid, ...fingerprint(entry, scope, keepsCsn));
  }
  table.clearMarks();
  const suspects: string[] = [];
  for await (const entry of readAllEntries(replica, suffix, scope.selection)) {
    if (!lot.has(named(entry, replica))) continue;
    if (!table.hasFingerprint(entry.uuid, ...fingerprint(entry, scope, keepsCsn))) suspects.push(entry.uuid);
    if (table.has(entry.uuid)) table.mark(entry.uuid);
  }
  return suspects.concat([...table.unmarked()]);
}

function fingerprint(entry: ReadEntry, scope: Scope, keepsCsn: boolean): [number, number] {
  const digest = entryDigest(entry.uuid, scope.trim(entry), keepsCsn);
  return [digest.readUInt32BE(0), digest.readUInt32BE(4)];
}

/** UUID of an entry that was read. Throws `DIR_DENIED` where it may not be read: it would pass for equal. */
export function named({ uuid, dn }: ReadEntry, { url }: LdapConnection): string {
  if (uuid !== '') return uuid;
  throw new PlatformError(
    'DIR_DENIED',
    `${url} does not show the entryUUID of "${dn}"; give the identity that compares the right to read it`,
  );
}

/** One line for status pages. */
export function describeReport(report: VerifyReport): string {
  if (report.differing === 0) return `equal: ${report.entries} entries`;
  const first = report.differences[0];
  return `${report.differing} of ${report.entries} entries differ, first: ${first?.kind} "${first?.dn}" ${first?.what.join(', ')}`.trimEnd();
}
