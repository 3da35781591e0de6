/**
 * Compares a replica with the master: UUID, name, CSN and content.
 *
 *   read both once ──► digests of ranges (digest.ts) ──► equal: done
 *                         └─ ranges that differ ──► read both again, those entries only ──► suspects
 *                                   └──► look at each on both sides ──► wait until the replica has what the master had ──► look again
 *
 * Changes go on meanwhile. What is equal when it is looked at is no difference, and neither is an entry that the master changed between
 * the last two looks: it is counted as under way. So what is reported was one thing at the master from before the replica was given all
 * that the master had until after the replica was looked at for the last time. Memory is bounded: 24 bytes a range; suspects and differences are in files when there are
 * many (named-entries.ts, differences.ts).
 */
import { hash } from 'node:crypto';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { normalizeDnText, splitDn } from '#protocol/ldap/dn.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import type { ComparisonProgress, Difference, VerifyReport } from '#replication/client/status.ts';
import { decide, type EntryImage } from '#replication/decide.ts';
import { entryDigest, type Lot, RangeDigests } from '#replication/digest.ts';
import { masterUuidAttributes, uuidOfEntry } from '#replication/master-entry.ts';
import { findAtMaster, findManyAtMaster, findManyByUuid, type ReadEntry, readAllAtMaster, readAllEntries } from '#replication/replica.ts';
import { type Scope, wholeScope } from '#replication/scope.ts';
import type { Differences } from '#replication/store/differences.ts';
import { NamedEntries } from '#replication/store/named-entries.ts';

/** Differences that a report lists; all of them are in `Differences`, where one is given. */
export const differencesMax = 10_000;
/** Entries that are asked for in one search. */
export const lookAtMax = 100;

/** What is compared with what. */
export interface Comparison {
  readonly name: string;
  readonly master: LdapConnection;
  readonly replica: LdapConnection;
  readonly suffix: string;
  /** False for a replica that has CSNs of its own; may be found out while they are compared, and before `settled` resolves. */
  readonly keepsCsn: boolean;
  readonly scope: Scope;
  /**
   * Resolves when the replica has been given all that the master has now, with the CSN up to which it has everything where that is known.
   * Rejects when that does not come about: what differs cannot be told from what is under way.
   */
  readonly settled?: () => Promise<string | undefined>;
}

/** Where a comparison puts what does not go into memory, and whom it tells how far it is. */
export interface ComparisonWork {
  /** File for suspects, should there be many; without one they are in memory. */
  readonly suspectsFile?: string | undefined;
  /** Suspects in memory. */
  readonly suspectsMax?: number;
  /** Is given every difference. */
  readonly differences?: Differences;
  readonly onProgress?: (progress: ComparisonProgress) => void;
  /** Gives up when it aborts. */
  readonly signal?: AbortSignal;
  /** Differences that the report lists. */
  readonly listedMax?: number;
}

/** Compares the whole. */
export async function compareServers(comparison: Comparison, work: ComparisonWork = {}): Promise<VerifyReport> {
  const { master, replica, suffix, scope } = comparison;
  const ranges = new RangeDigests();
  const steps = new Steps(work);
  // A master without CSNs leaves the replica its own.
  let keepsCsn = comparison.keepsCsn;
  steps.begin('reading the master', undefined);
  for await (const entry of readAllAtMaster(master, suffix, scope.selection, scope)) {
    if (ranges.entries === 0) keepsCsn &&= entry.attributes.some((one) => one.type.toLowerCase() === 'entrycsn');
    ranges.addMaster(named(entry, master), entryDigest(entry.uuid, scope.trim(entry), keepsCsn));
    steps.did(1);
  }
  steps.begin('reading the replica', ranges.entries);
  for await (const entry of readAllEntries(replica, suffix, scope.selection)) {
    ranges.addReplica(named(entry, replica), entryDigest(entry.uuid, scope.trim(entry), keepsCsn));
    steps.did(1);
  }
  const findings = new Findings(work.listedMax, work.differences);
  const lot = ranges.differing();
  if (lot !== undefined) {
    using suspects = new NamedEntries(work.suspectsFile, work.suspectsMax);
    await findSuspects(comparison, lot, keepsCsn, suspects, steps);
    await lookAtSuspects(comparison, suspects, findings, steps);
  }
  return findings.report(comparison.name, ranges.entries);
}

/** Tells how far a comparison is, and ends it when it is given up. */
class Steps {
  readonly #work: ComparisonWork;
  #step = '';
  #entries = 0;
  #ofEntries: number | undefined;

  constructor(work: ComparisonWork) {
    this.#work = work;
  }

  begin(step: string, ofEntries: number | undefined): void {
    this.#step = step;
    this.#entries = 0;
    this.#ofEntries = ofEntries;
    this.did(0);
  }

  did(entries: number): void {
    const { onProgress, signal } = this.#work;
    signal?.throwIfAborted();
    this.#entries += entries;
    onProgress?.({ step: this.#step, entries: this.#entries, ofEntries: this.#ofEntries });
  }
}

/** Differences as they are found. */
export class Findings {
  readonly #listedMax: number;
  readonly #kept: Differences | undefined;
  readonly #listed = new Map<string, Difference>();
  #differing = 0;
  #extra = 0;
  #underWay = 0;

  /** `kept`: is given all of them. */
  constructor(listedMax = differencesMax, kept?: Differences) {
    this.#listedMax = listedMax;
    this.#kept = kept;
  }

  get differing(): number {
    return this.#differing;
  }

  /** Takes one; one that is listed and met again counts once. */
  add(difference: Difference): void {
    if (this.#listed.has(difference.uuid)) return;
    this.#differing += 1;
    if (difference.kind === 'extra') this.#extra += 1;
    if (this.#listed.size < this.#listedMax) this.#listed.set(difference.uuid, difference);
    this.#kept?.add(difference);
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
  const differing = new Map<string, Mark>();
  await look(comparison, uuids, undefined, (uuid, difference, mark) => {
    if (difference !== undefined) differing.set(uuid, mark);
  });
  if (differing.size === 0) return;
  const last = { csn: await comparison.settled?.() };
  await look(comparison, [...differing.keys()], last, (uuid, difference, mark) => {
    if (difference === undefined) return;
    const before = differing.get(uuid);
    if (mark[0] === before?.[0] && mark[1] === before[1]) findings.add(difference);
    else findings.addUnderWay();
  });
}

/** What the master has of an entry that differs: equal when it was looked at twice and nothing was done to it in between. */
type Mark = readonly [high: number, low: number];
const nothing: Mark = [0, 0];
/** Of what is being changed: not equal at the first look and the last. */
const moving = { first: [1, 0], last: [2, 0] } as const;

type Seen = (uuid: string, difference: Difference | undefined, mark: Mark) => void;

// `last`: the replica has everything up to that CSN. The master is read behind the replica then, for its state must be known until after that.
async function look(comparison: Comparison, uuids: readonly string[], last: { readonly csn: string | undefined } | undefined, seen: Seen) {
  const { master, replica, suffix, keepsCsn, scope } = comparison;
  for (let from = 0; from < uuids.length; from += lookAtMax) {
    const some = uuids.slice(from, from + lookAtMax);
    const reading = findManyByUuid(replica, suffix, some, scope);
    if (last !== undefined) await reading;
    const [present, wanted] = await Promise.all([reading, findManyAtMaster(master, suffix, some, scope)]);
    const marks = new Marks(comparison, last);
    for (const uuid of some) {
      const atMaster = wanted.get(uuid);
      const difference = compareEntry(uuid, atMaster, present.get(uuid), keepsCsn);
      seen(uuid, difference, difference === undefined ? nothing : await marks.of(difference, atMaster));
    }
  }
}

/** Makes the marks of one look. */
class Marks {
  readonly #comparison: Comparison;
  readonly #last: { readonly csn: string | undefined } | undefined;
  /** By name: the entries from there up to the suffix, as the master has them; `undefined` where one is missing. */
  readonly #chains = new Map<string, Promise<string | undefined>>();

  constructor(comparison: Comparison, last: { readonly csn: string | undefined } | undefined) {
    this.#comparison = comparison;
    this.#last = last;
  }

  async of({ uuid, what }: Difference, atMaster: EntryImage | undefined): Promise<Mark> {
    const csn = textOf(atMaster?.attributes ?? [], 'entryCSN');
    // slapd may show a change before its contextCSN says that it has it.
    if (this.#last?.csn !== undefined && csn !== undefined && csn > this.#last.csn) return moving.last;
    if (atMaster === undefined) return this.#outside(uuid);
    const digest = entryDigest(uuid, atMaster, true);
    if (!what.includes('dn')) return eightBytes(digest);
    // Its name changes with those above it, and back, and nothing of it shows that.
    const chain = await this.#chainAbove(atMaster.dn);
    if (chain === undefined) return this.#last === undefined ? moving.first : moving.last;
    return eightBytes(hash('sha256', Buffer.concat([digest, Buffer.from(chain)]), 'buffer'));
  }

  // An entry that the replica shall not have may be one for a moment that it shall have.
  async #outside(uuid: string): Promise<Mark> {
    const { master, suffix, scope } = this.#comparison;
    if (scope.key === '') return nothing;
    const entry = await findAtMaster(master, suffix, uuid, wholeScope);
    return entry === undefined ? nothing : eightBytes(entryDigest(uuid, entry, true));
  }

  #chainAbove(dn: string): Promise<string | undefined> {
    const parent = splitDn(dn)?.parent ?? '';
    if (parent === '' || normalizeDnText(parent) === normalizeDnText(this.#comparison.suffix)) return Promise.resolve('');
    let chain = this.#chains.get(parent);
    if (chain === undefined) {
      chain = this.#readChain(parent);
      this.#chains.set(parent, chain);
    }
    return chain;
  }

  async #readChain(dn: string): Promise<string | undefined> {
    const entry = await this.#comparison.master.readEntry(dn, ['entryCSN', ...masterUuidAttributes]);
    if (entry === undefined) return undefined;
    const above = await this.#chainAbove(dn);
    return above === undefined ? undefined : `${uuidOfEntry(entry.attributes)} ${textOf(entry.attributes, 'entryCSN')},${above}`;
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
  if (what.length === 0) return undefined;
  const other = what.includes('dn') ? { replicaDn: present.dn } : {};
  return { uuid, dn: wanted.dn, kind: 'different', what: [...new Set(what)], ...other };
}

// Left without a mark are the entries of the lot that are not the same on both sides.
async function findSuspects(
  { master, replica, suffix, scope }: Comparison,
  lot: Lot,
  keepsCsn: boolean,
  suspects: NamedEntries,
  steps: Steps,
): Promise<void> {
  steps.begin('reading the master again, where they differ', undefined);
  for await (const entry of readAllAtMaster(master, suffix, scope.selection, scope)) {
    steps.did(1);
    if (lot.has(named(entry, master))) suspects.put(entry.uuid, ...fingerprint(entry, scope, keepsCsn));
  }
  steps.begin('reading the replica again, where they differ', undefined);
  for await (const entry of readAllEntries(replica, suffix, scope.selection)) {
    steps.did(1);
    if (!lot.has(named(entry, replica))) continue;
    if (suspects.hasFingerprint(entry.uuid, ...fingerprint(entry, scope, keepsCsn))) suspects.mark(entry.uuid);
    else suspects.put(entry.uuid, 0, 0);
  }
}

// As `lookAt`, with the mark kept beside the suspect.
async function lookAtSuspects(comparison: Comparison, suspects: NamedEntries, findings: Findings, steps: Steps): Promise<void> {
  steps.begin('looking at what differs', suspects.countUnmarked());
  let differing = 0;
  for (const uuids of suspects.unmarked(lookAtMax)) {
    await look(comparison, uuids, undefined, (uuid, difference, mark) => {
      if (difference === undefined) suspects.mark(uuid);
      else suspects.put(uuid, ...mark);
      if (difference !== undefined) differing += 1;
    });
    steps.did(uuids.length);
  }
  if (differing === 0) return;
  steps.begin('waiting for what is under way to the replica', differing);
  const last = { csn: await comparison.settled?.() };
  steps.begin('looking at it once more', differing);
  for (const uuids of suspects.unmarked(lookAtMax)) {
    await look(comparison, uuids, last, (uuid, difference, mark) => {
      if (difference === undefined) return;
      if (suspects.hasFingerprint(uuid, ...mark)) findings.add(difference);
      else findings.addUnderWay();
    });
    steps.did(uuids.length);
  }
}

function fingerprint(entry: ReadEntry, scope: Scope, keepsCsn: boolean): Mark {
  return eightBytes(entryDigest(entry.uuid, scope.trim(entry), keepsCsn));
}

function eightBytes(digest: Buffer): Mark {
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
