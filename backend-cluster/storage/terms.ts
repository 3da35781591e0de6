/**
 * The Controller's terms. A term belongs to whoever created its file, for ever; files are never removed, so no number is free twice.
 */
import type { MemberName } from '#common/host-server.ts';
import type { TermClaim } from './account-store.ts';
import { corrupt } from './binary.ts';
import { numberName, parseNumberName } from './layout.ts';
import { parseStoredJson, type SmallRecords } from './small-records.ts';

/** Highest term ever claimed; 0 when none was. */
export async function highestTerm(terms: SmallRecords): Promise<number> {
  const names = await terms.names();
  // A member obeys no lower term from now on, also after a power cut.
  await terms.settle();
  return names.reduce((highest, name) => Math.max(highest, parseNumberName(name) ?? 0), 0);
}

/** See `AccountStore.claimTerm`. */
export async function claimTerm(terms: SmallRecords, term: number, claim: TermClaim): Promise<boolean> {
  const content = JSON.stringify({ member: claim.member, incarnation: claim.incarnation });
  if (await terms.create(numberName(term), content)) return true;
  const owner = await readTerm(terms, term);
  return owner?.member === claim.member && owner.incarnation === claim.incarnation;
}

/** See `AccountStore.readTerm`. */
export async function readTerm(terms: SmallRecords, term: number): Promise<TermClaim | undefined> {
  const name = numberName(term);
  const text = await terms.read(name);
  if (text === undefined) return undefined;
  const value = parseStoredJson(text, `cluster/terms/${name}`) as Partial<Record<keyof TermClaim, unknown>> | null;
  if (typeof value?.member !== 'string' || typeof value.incarnation !== 'string') throw corrupt(`cluster/terms/${name} names no member`);
  return { member: value.member as MemberName, incarnation: value.incarnation };
}
