/**
 * What replication keeps at the replica itself, so that whichever service takes over finds it there: the lease, the checkpoint, and the list
 * of refused entries.
 *
 * Our servers keep it beside the tree (directory/client/authority.ts): no entry, no change that anybody follows. On any other LDAP server
 * it is the entry `cn=archipelago-replication` below the suffix, which comparisons pass over.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import { type AuthorityAnswer, askAuthority, hasAuthority, makeFence } from '#directory/client/authority.ts';
import type { LdapConnection, WriteGuard } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { makeAssertion, manageDsaIt } from '#protocol/ldap/controls.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, type Modification, textOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';

/** A lease as it is stored. */
export interface LeaseRecord {
  /** Raised at each take-over (`nextNumber`). */
  readonly number: number;
  /** Empty: given up in good order. */
  readonly holder: string;
  /** Changes with each renewal; that it does not is how others see that the holder is gone. No clock is compared. */
  readonly beat: number;
}

const numberStepMax = 1_000_000;

/**
 * The number of the next holder. By a step that nobody can foresee: after an older copy of the replica was put back numbers begin again below
 * that of a holder of before, and a step of one would lead back to it, so that what that one still sends would count.
 */
export function nextNumber(present: LeaseRecord | undefined, random: Random): number {
  return (present?.number ?? 0) + 1 + random.integer(numberStepMax);
}

/** A value that is kept beside the lease. */
export type KeptName = 'checkpoint' | 'refused';

/** See the header of this file. Every method rejects as the connection does. */
export interface StatePlace {
  readLease(): Promise<LeaseRecord | undefined>;
  /** Stores `next` if the lease is still `expected`; false when it is not. */
  swapLease(expected: LeaseRecord | undefined, next: LeaseRecord): Promise<boolean>;
  read(name: KeptName): Promise<string | undefined>;
  /** Stores a value while the lease has that number and holder; throws `REPL_LEASE_LOST` when it has not. */
  keep(name: KeptName, text: string | undefined, lease: LeaseRecord): Promise<void>;
}

/** Name of the entry on other servers, below the suffix. */
export const stateEntryRdn = 'cn=archipelago-replication';

/** Finds out what kind of server it is. `prepare` makes sure that the suffix entry is there. */
export async function openStatePlace(connection: LdapConnection, suffix: string, prepare: () => Promise<void>): Promise<StatePlace> {
  if (await hasAuthority(connection)) return new OwnPlace(connection);
  await prepare();
  return new EntryPlace(connection, `${stateEntryRdn},${suffix}`);
}

class OwnPlace implements StatePlace {
  readonly #connection: LdapConnection;

  constructor(connection: LdapConnection) {
    this.#connection = connection;
  }

  async readLease(): Promise<LeaseRecord | undefined> {
    return leaseOf(await askAuthority(this.#connection, { op: 'look' }));
  }

  async swapLease(expected: LeaseRecord | undefined, next: LeaseRecord): Promise<boolean> {
    const answer = await askAuthority(this.#connection, {
      op: 'keep',
      set: { lease: leaseText(next), beat: String(next.beat) },
      expect: expected === undefined ? { lease: null, beat: null } : { lease: leaseText(expected), beat: String(expected.beat) },
    });
    return answer.isDone;
  }

  async read(name: KeptName): Promise<string | undefined> {
    return (await askAuthority(this.#connection, { op: 'look' })).kept[name];
  }

  async keep(name: KeptName, text: string | undefined, lease: LeaseRecord): Promise<void> {
    const answer = await askAuthority(this.#connection, {
      op: 'keep',
      set: { [name]: text ?? null },
      expect: { lease: leaseText(lease) },
    });
    if (!answer.isDone) throw leaseLost(this.#connection.url);
  }
}

function leaseText(lease: LeaseRecord): string {
  return `${lease.number} ${lease.holder}`;
}

function leaseOf({ kept }: AuthorityAnswer): LeaseRecord | undefined {
  return parseLease(kept.lease === undefined ? undefined : `${kept.lease} ${kept.beat ?? 0}`);
}

function parseLease(text: string | undefined): LeaseRecord | undefined {
  const match = /^(\d{1,15}) (\S*) (\d{1,15})$/.exec(text ?? '');
  return match === null ? undefined : { number: Number(match[1]), holder: match[2] ?? '', beat: Number(match[3]) };
}

/** Attributes of `applicationProcess` (RFC 4519 §3.3) that hold the values. */
const attributeOf = { lease: 'l', checkpoint: 'description', refused: 'ou' } as const;

class EntryPlace implements StatePlace {
  readonly #connection: LdapConnection;
  readonly #dn: string;

  constructor(connection: LdapConnection, dn: string) {
    this.#connection = connection;
    this.#dn = dn;
  }

  async readLease(): Promise<LeaseRecord | undefined> {
    const entry = await this.#connection.readEntry(this.#dn, [attributeOf.lease]);
    return entry === undefined ? undefined : parseLease(textOf(entry.attributes, attributeOf.lease));
  }

  async swapLease(expected: LeaseRecord | undefined, next: LeaseRecord): Promise<boolean> {
    const value = attribute(attributeOf.lease, `${leaseText(next)} ${next.beat}`);
    try {
      if (expected === undefined) {
        await this.#connection.add(this.#dn, [
          attribute('objectClass', 'applicationProcess'),
          attribute('cn', 'archipelago-replication'),
          value,
        ]);
      } else {
        // Deleting the very value is the comparison (RFC 4511 §4.6): all changes happen or none.
        await this.#connection.modify(this.#dn, [
          { kind: 'delete', attribute: attribute(attributeOf.lease, `${leaseText(expected)} ${expected.beat}`) },
          { kind: 'add', attribute: value },
        ]);
      }
      return true;
    } catch (error) {
      const code = resultCodeOf(error);
      const isTaken = code === resultCodes.entryAlreadyExists || code === resultCodes.noSuchAttribute || code === resultCodes.noSuchObject;
      if (isTaken) return false;
      throw error;
    }
  }

  async read(name: KeptName): Promise<string | undefined> {
    const entry = await this.#connection.readEntry(this.#dn, [attributeOf[name]]);
    return entry === undefined ? undefined : textOf(entry.attributes, attributeOf[name]);
  }

  async keep(name: KeptName, text: string | undefined, lease: LeaseRecord): Promise<void> {
    const change: Modification = {
      kind: 'replace',
      attribute: text === undefined ? { type: attributeOf[name], values: [] } : attribute(attributeOf[name], text),
    };
    const isOurs: Filter = {
      kind: 'substrings',
      attribute: attributeOf.lease,
      // The holder's name ends in random digits: none is the beginning of another.
      initial: Buffer.from(leaseText(lease)),
      any: [],
      final: undefined,
    };
    try {
      await this.#connection.modify(this.#dn, [change], [makeAssertion(isOurs), manageDsaIt]);
    } catch (error) {
      const code = resultCodeOf(error);
      if (code === resultCodes.assertionFailed || code === resultCodes.noSuchObject) throw leaseLost(this.#connection.url);
      throw error;
    }
  }
}

function leaseLost(url: string): PlatformError {
  return new PlatformError('REPL_LEASE_LOST', `another replication service writes ${url} now`);
}

/**
 * The guard of a service that is the only one: it takes the next number for each connection, without waiting for anybody. So what an earlier
 * connection, or an earlier run that was killed, had on its way and arrives late is refused, instead of undoing what came after it.
 */
export async function fenceConnection(connection: LdapConnection, term: number, random: Random): Promise<WriteGuard> {
  const free = (): undefined => undefined;
  if (!(await hasAuthority(connection))) return { controls: [], refusal: free };
  const place = new OwnPlace(connection);
  for (;;) {
    const present = await place.readLease();
    const next = { number: nextNumber(present, random), holder: `only/${random.bytes(4).toString('hex')}`, beat: 1 };
    if (await place.swapLease(present, next)) return { controls: [makeFence(term, next.number)], refusal: free };
  }
}

/** Puts the suffix entry of a replica that is empty in place, as the master has it. */
export async function ensureSuffix(
  replica: LdapConnection,
  suffix: string,
  read: () => Promise<readonly Attribute[] | undefined>,
  add: (attributes: readonly Attribute[]) => Promise<unknown>,
): Promise<void> {
  if ((await replica.readEntry(suffix, ['1.1'])) !== undefined) return;
  const attributes = await read();
  if (attributes === undefined) throw new PlatformError('DIR_NOT_FOUND', `the master has no entry "${suffix}"`);
  try {
    await add(attributes);
  } catch (error) {
    if (resultCodeOf(error) !== resultCodes.entryAlreadyExists) throw error;
  }
}

/** Checkpoint and refused entries kept at the replica, for those who know them as files. */
export class SharedState implements Pick<Files, 'read' | 'replace' | 'unlink'> {
  readonly #place: () => Promise<StatePlace>;
  readonly #lease: LeaseRecord;

  constructor(place: () => Promise<StatePlace>, lease: LeaseRecord) {
    this.#place = place;
    this.#lease = lease;
  }

  async read(path: string): Promise<Buffer> {
    const text = await (await this.#place()).read(nameOf(path));
    if (text === undefined) throw Object.assign(new Error(`nothing is kept as ${path}`), { code: 'ENOENT' });
    return Buffer.from(text);
  }

  async replace(path: string, content: Uint8Array | string): Promise<void> {
    const text = typeof content === 'string' ? content : Buffer.from(content).toString('utf8');
    await (await this.#place()).keep(nameOf(path), text.trimEnd(), this.#lease);
  }

  async unlink(path: string): Promise<void> {
    await (await this.#place()).keep(nameOf(path), undefined, this.#lease);
  }
}

function nameOf(path: string): KeptName {
  return path.endsWith('.refused.json') ? 'refused' : 'checkpoint';
}
