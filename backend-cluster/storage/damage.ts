/**
 * Accounts in which damage was found that lost something. The record keeps the account read-only from one opening to the next, also when
 * the damage is in a body, which opening does not look at, until a repair takes it away.
 */
import { type AccountUuid, tryParseAccountUuid } from '#common/account-name.ts';
import { asPlatformError, messageOf } from '#common/errors/platform-error.ts';
import type { DamagedAccount, Finding } from './account-store.ts';
import { corrupt } from './binary.ts';
import { parseStoredJson, type SmallRecords } from './small-records.ts';

/** Findings that are kept of one account; a check shows all. */
const findingsKeptMax = 50;

/** Remembers damage; what was remembered before stays, with the new findings after it. */
export async function noteDamage(damaged: SmallRecords, found: DamagedAccount): Promise<void> {
  const known = await readDamage(damaged, found.uuid);
  const findings = [...(known?.findings ?? [])];
  for (const finding of found.findings) if (!findings.some(({ file }) => file === finding.file)) findings.push(finding);
  if (known !== undefined && findings.length === known.findings.length) return;
  await writeDamage(damaged, { ...found, ...known, findings });
}

/** Says that a repair has the account until then, by the wall clock: nobody else opens it meanwhile. */
export async function markRepairing(damaged: SmallRecords, known: DamagedAccount, untilMs: number): Promise<void> {
  await writeDamage(damaged, { ...known, repairingUntilMs: untilMs });
}

/** `undefined` when no damage is known. */
export async function readDamage(damaged: SmallRecords, uuid: AccountUuid): Promise<DamagedAccount | undefined> {
  const text = await damaged.read(uuid);
  if (text === undefined) return undefined;
  try {
    return parse(uuid, text);
  } catch (error) {
    if (asPlatformError(error).code !== 'STORE_CORRUPT') throw error;
    // That there is a record says that the account is damaged. What it was is found anew by a check or a repair, which also takes the record away.
    return { uuid, findings: [{ file: `damaged/${uuid}`, problem: messageOf(error) }], foundAtMs: 0, foundBy: 'record' };
  }
}

/** All of them, in order; at most `limit` are read. */
export async function listDamage(damaged: SmallRecords, limit: number): Promise<{ count: number; accounts: DamagedAccount[] }> {
  const uuids = (await damaged.names()).flatMap((name) => tryParseAccountUuid(name) ?? []);
  const accounts: DamagedAccount[] = [];
  for (const uuid of uuids.slice(0, limit)) {
    const known = await readDamage(damaged, uuid);
    if (known !== undefined) accounts.push(known);
  }
  return { count: uuids.length, accounts };
}

async function writeDamage(damaged: SmallRecords, { uuid, ...rest }: DamagedAccount): Promise<void> {
  const findings = rest.findings
    .slice(0, findingsKeptMax)
    .map(({ file, problem }) => ({ file: file.slice(0, 500), problem: problem.slice(0, 300) }));
  await damaged.replace(uuid, JSON.stringify({ ...rest, findings }));
}

function parse(uuid: AccountUuid, text: string): DamagedAccount {
  const value = parseStoredJson(text, `damaged/${uuid}`) as Partial<DamagedAccount> | null;
  if (!Array.isArray(value?.findings) || typeof value.foundAtMs !== 'number') throw corrupt(`damaged/${uuid} has no findings or no date`);
  const findings = value.findings.map((one: Partial<Finding> | null) => ({ file: String(one?.file), problem: String(one?.problem) }));
  const repairing = typeof value.repairingUntilMs === 'number' ? { repairingUntilMs: value.repairingUntilMs } : {};
  return { uuid, findings, foundAtMs: value.foundAtMs, foundBy: String(value.foundBy ?? ''), ...repairing };
}
