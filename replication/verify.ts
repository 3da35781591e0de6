/**
 * Compares a replica with the master, entry by entry: UUID, name, CSN and content. Both are read once; of each entry eight bytes of digest
 * are kept. What differs is read again on both sides, because changes go on meanwhile; what still differs then is reported exactly.
 */
import { createHash } from 'node:crypto';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { UuidTable } from '#directory/client/uuid-table.ts';
import { normalizeAttributeType, normalizeDnText } from '#protocol/ldap/dn.ts';
import type { Attribute } from '#protocol/ldap/messages.ts';
import type { Difference, VerifyReport } from '#replication/client/status.ts';
import { decide, replicatedAttributes } from '#replication/decide.ts';
import { findAtMaster, findByUuid, readAllEntries } from '#replication/replica.ts';
import type { Scope } from '#replication/scope.ts';

/** Differences that are listed. */
export const differencesMax = 1000;
/** Differing entries of one run that are looked at again; beyond, something is wrong as a whole. */
export const suspectsMax = 100_000;

/** Compares; `keepsCsn` is false for a replica that has CSNs of its own. At most `listedMax` differences are listed. */
export async function compareServers(
  name: string,
  master: LdapConnection,
  replica: LdapConnection,
  suffix: string,
  keepsCsn: boolean,
  scope: Scope,
  listedMax = differencesMax,
): Promise<VerifyReport> {
  const table = new UuidTable();
  for await (const entry of readAllEntries(master, suffix, scope.selection, scope)) {
    table.mark(entry.uuid);
    const [high, low] = digest(entry.dn, scope.trim(entry).attributes, keepsCsn);
    table.setFingerprint(entry.uuid, high, low);
  }
  const entries = table.size;
  table.clearMarks();
  const suspects: string[] = [];
  for await (const entry of readAllEntries(replica, suffix, scope.selection)) {
    const [high, low] = digest(entry.dn, scope.trim(entry).attributes, keepsCsn);
    const isEqual = table.hasFingerprint(entry.uuid, high, low);
    if (table.has(entry.uuid)) table.mark(entry.uuid);
    if (!isEqual && suspects.length < suspectsMax) suspects.push(entry.uuid);
  }
  for (const uuid of table.unmarked()) if (suspects.length < suspectsMax) suspects.push(uuid);
  const differences: Difference[] = [];
  let differing = 0;
  for (const uuid of suspects) {
    const difference = await lookAgain(master, replica, suffix, uuid, keepsCsn, scope);
    if (difference === undefined) continue;
    differing += 1;
    if (differences.length < listedMax) differences.push(difference);
  }
  return { replica: name, entries, differences, differing };
}

async function lookAgain(
  master: LdapConnection,
  replica: LdapConnection,
  suffix: string,
  uuid: string,
  keepsCsn: boolean,
  scope: Scope,
): Promise<Difference | undefined> {
  const [wanted, present] = await Promise.all([findAtMaster(master, suffix, uuid, scope), findByUuid(replica, suffix, uuid, scope)]);
  if (wanted === undefined) return present === undefined ? undefined : { uuid, dn: present.dn, kind: 'extra', what: [] };
  if (present === undefined) return { uuid, dn: wanted.dn, kind: 'missing', what: [] };
  const what = decide(wanted, present, keepsCsn).flatMap((step) =>
    step.kind === 'modify' ? step.changes.map((change) => change.attribute.type) : ['dn'],
  );
  return what.length === 0 ? undefined : { uuid, dn: wanted.dn, kind: 'different', what: [...new Set(what)] };
}

function digest(dn: string, attributes: readonly Attribute[], keepsCsn: boolean): readonly [number, number] {
  const lines: string[] = [];
  for (const attribute of replicatedAttributes(attributes, keepsCsn)) {
    const type = normalizeAttributeType(attribute.type);
    for (const value of attribute.values) lines.push(`${type}:${value.toString('latin1')}`);
  }
  const hash = createHash('sha1').update(normalizeDnText(dn) ?? dn);
  for (const line of lines.sort()) hash.update('\u0000').update(line, 'latin1');
  const bytes = hash.digest();
  return [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
}

/** One line for status pages. */
export function describeReport(report: VerifyReport): string {
  if (report.differing === 0) return `equal: ${report.entries} entries`;
  const first = report.differences[0];
  return `${report.differing} of ${report.entries} entries differ, first: ${first?.kind} "${first?.dn}" ${first?.what.join(', ')}`.trimEnd();
}
