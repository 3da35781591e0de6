/**
 * A replica as a place to write to: entries found by `entryUUID`, written with the relax control so that UUID, CSN and stamps stay the
 * master's. slapd lets its root identity set everything but `entryCSN`; that is found out at the first refusal and remembered.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import {
  controlOids,
  findControl,
  makeAssertion,
  makePagedResults,
  manageDsaIt,
  readPagedResults,
  relax,
} from '#protocol/ldap/controls.ts';
import { splitDn } from '#protocol/ldap/dn.ts';
import { and, equal, type Filter, or } from '#protocol/ldap/filter.ts';
import {
  type EncodedImages,
  type Image,
  type ImageBatch,
  type ImageResult,
  imageBatchOid,
  readImageResult,
  writeImageBatch,
} from '#protocol/ldap/image-batch.ts';
import { type Attribute, attribute, type Control, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import type { EntryImage, Step } from '#replication/decide.ts';
import { inReplicaForm, masterUuidAttributes, masterUuidFilter, uuidOfEntry } from '#replication/master-entry.ts';
import { type Scope, wholeScope } from '#replication/scope.ts';

const pageSize = 1000;
/** Stamps and all are written as the master has them, and an entry that refers elsewhere (RFC 3296 §3) is one like any other. */
const asItIs: readonly Control[] = [relax, manageDsaIt];
const noImages: ImageResult = { added: 0, modified: 0, renamed: 0, deleted: 0, remarks: [] };
/** The service's own entry on servers that are not ours (state-place.ts). */
const stateEntryStart = 'cn=archipelago-replication,';

/** One entry of a full reading. */
export interface ReadEntry {
  readonly uuid: string;
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

/** See the header of this file. */
export class Replica {
  readonly connection: LdapConnection;
  readonly suffix: string;
  readonly scope: Scope;
  #keepsCsn: boolean;
  /** Whether a write can be made to depend on the entry's UUID (RFC 4528). */
  readonly asserts: boolean;
  /** Whether it is a server of our own, which takes entries in batches as they are at the master. */
  readonly takesImages: boolean;

  private constructor(
    connection: LdapConnection,
    suffix: string,
    keepsCsn: boolean,
    offers: { readonly asserts: boolean; readonly takesImages: boolean },
    scope: Scope,
  ) {
    this.scope = scope;
    this.connection = connection;
    this.suffix = suffix;
    this.#keepsCsn = keepsCsn;
    this.asserts = offers.asserts;
    this.takesImages = offers.takesImages;
  }

  /** Looks what the server can do. `keepsCsn` is what an earlier connection found out. */
  static async on(connection: LdapConnection, suffix: string, keepsCsn: boolean, scope: Scope): Promise<Replica> {
    const root = await connection.readEntry('', ['supportedControl', 'supportedExtension']);
    const offers = (type: string, oid: string): boolean => root !== undefined && textsOf(root.attributes, type).includes(oid);
    const asserts = offers('supportedControl', controlOids.assertion);
    const takesImages = offers('supportedExtension', imageBatchOid);
    return new Replica(connection, suffix, keepsCsn, { asserts, takesImages }, scope);
  }

  /** Whether the server takes `entryCSN` from us; assumed until it refuses. */
  get keepsCsn(): boolean {
    return this.#keepsCsn;
  }

  async find(uuid: string): Promise<EntryImage | undefined> {
    return findByUuid(this.connection, this.suffix, uuid, this.scope);
  }

  /** UUID of whoever has that name; `undefined` when nobody does. */
  async holderOf(dn: string): Promise<string | undefined> {
    const entry = await this.connection.readEntry(dn, ['entryUUID']);
    return entry === undefined ? undefined : (textOf(entry.attributes, 'entryUUID')?.toLowerCase() ?? '');
  }

  /** Does one step. Rejects as the connection does; a refused `entryCSN` is left out and the step done again. */
  async write(step: Step, uuid: string): Promise<void> {
    try {
      await this.#write(this.#keepsCsn ? step : withoutCsn(step), uuid);
    } catch (error) {
      const code = resultCodeOf(error);
      const isRefused = code === resultCodes.constraintViolation || code === resultCodes.unwillingToPerform;
      if (!this.#keepsCsn || !isRefused || !(error instanceof PlatformError) || !/entryCSN/i.test(error.message)) throw error;
      this.#keepsCsn = false;
      await this.#write(withoutCsn(step), uuid);
    }
  }

  async delete(dn: string, uuid: string): Promise<void> {
    await this.connection.delete(dn, [manageDsaIt, ...this.#onlyIf(uuid)]);
  }

  /** Gives an entry out of the way a name that nobody uses; its own change finds it by UUID. */
  async displace(dn: string, uuid: string): Promise<void> {
    const rdn = splitDn(dn)?.rdn ?? '';
    const type = rdn.slice(0, rdn.indexOf('=')).trim();
    await this.connection.modifyDn({ dn, newRdn: `${type}=displaced-${uuid}`, deleteOldRdn: true, newSuperior: undefined }, [
      ...asItIs,
      ...this.#onlyIf(uuid),
    ]);
  }

  /** Makes an entry of the replica's own the master's entry of that name. */
  async adopt(dn: string, uuid: string): Promise<void> {
    await this.connection.modify(dn, [{ kind: 'replace', attribute: attribute('entryUUID', uuid) }], asItIs);
  }

  /** Says as of which change this replica is current; only where the server keeps CSNs. */
  async setContextCsn(csn: string): Promise<void> {
    if (!this.#keepsCsn) return;
    try {
      await this.connection.modify(this.suffix, [{ kind: 'replace', attribute: attribute('contextCSN', csn) }], [relax]);
    } catch (error) {
      const code = resultCodeOf(error);
      if (code === undefined || (error instanceof PlatformError && error.kind === 'unavailable')) throw error;
      // A server that keeps its own contextCSN; status shows what it says.
      this.#keepsCsn = code !== resultCodes.constraintViolation && this.#keepsCsn;
    }
  }

  /** Makes entries what the images say, where `takesImages`; on the disk once `flushImages` has resolved. */
  writeImages(changes: readonly Image[], mayDisplace: boolean, encoded?: EncodedImages): Promise<ImageResult> {
    if (changes.length === 0 && encoded === undefined) return Promise.resolve(noImages);
    return this.#sendImages(changes, mayDisplace, undefined, encoded);
  }

  /** Resolves once all images written before are on the disk, and the replica says to be current as of `csn`. */
  async flushImages(csn: string): Promise<void> {
    await this.#sendImages([], false, csn);
  }

  async #sendImages(
    changes: readonly Image[],
    mayDisplace: boolean,
    contextCsn: string | undefined,
    encoded?: EncodedImages,
  ): Promise<ImageResult> {
    const batch: ImageBatch = { mayDisplace, contextCsn, ...this.scope.covered, changes, encoded };
    const { value } = await this.connection.extended(imageBatchOid, undefined, (writer) => writeImageBatch(writer, batch));
    const result = readImageResult(value);
    if (result !== undefined) return result;
    throw new PlatformError('PROTO_SYNTAX', `${this.connection.url} gave a malformed answer to a batch of entries`);
  }

  /** Every entry below the suffix, page by page. */
  readAll(attributes: readonly string[]): AsyncGenerator<ReadEntry> {
    return readAllEntries(this.connection, this.suffix, attributes);
  }

  async #write(step: Step, uuid: string): Promise<void> {
    const controls = [...asItIs, ...this.#onlyIf(uuid)];
    if (step.kind === 'add') await this.connection.add(step.dn, step.attributes, asItIs);
    else if (step.kind === 'modify') {
      if (step.changes.length > 0) await this.connection.modify(step.dn, step.changes, controls);
    } else {
      const { dn, newRdn, deleteOldRdn, newSuperior } = step;
      await this.connection.modifyDn({ dn, newRdn, deleteOldRdn, newSuperior }, controls);
    }
  }

  #onlyIf(uuid: string): readonly Control[] {
    return this.asserts ? [makeAssertion(equal('entryUUID', uuid))] : [];
  }
}

function withoutCsn(step: Step): Step {
  const isCsn = (one: Attribute): boolean => one.type.toLowerCase() === 'entrycsn';
  if (step.kind === 'add') return { ...step, attributes: step.attributes.filter((one) => !isCsn(one)) };
  if (step.kind === 'modify') return { ...step, changes: step.changes.filter((change) => !isCsn(change.attribute)) };
  return step;
}

/**
 * The master's entry with that `entryUUID`, as far as the replica shall have it; `undefined` when there is none. Rejects with
 * `DIR_UNAVAILABLE` where the master has no suffix.
 */
export async function findAtMaster(
  connection: LdapConnection,
  suffix: string,
  uuid: string,
  scope: Scope,
): Promise<EntryImage | undefined> {
  const [entry] = (await findManyAtMaster(connection, suffix, [uuid], scope)).values();
  return entry;
}

/** The same of several, by UUID. */
export async function findManyAtMaster(connection: LdapConnection, suffix: string, uuids: readonly string[], scope: Scope): Promise<Found> {
  const filters = uuids.map(masterUuidFilter);
  const named = filters.length === 1 ? (filters[0] as Filter) : or(...filters);
  try {
    return await findEntries(connection, suffix, scope.key === '' ? named : and(named, scope.filter), scope, uuids.length);
  } catch (error) {
    throw masterIsEmpty(error, connection, suffix);
  }
}

type Found = ReadonlyMap<string, EntryImage>;

/** A replica's entry with that `entryUUID`; `undefined` when there is none. */
export async function findByUuid(connection: LdapConnection, suffix: string, uuid: string, scope: Scope): Promise<EntryImage | undefined> {
  const [entry] = (await findAtReplica(connection, suffix, equal('entryUUID', uuid), scope, 1)).values();
  return entry;
}

/** The same of several, by UUID. */
export function findManyByUuid(connection: LdapConnection, suffix: string, uuids: readonly string[], scope: Scope): Promise<Found> {
  return findAtReplica(connection, suffix, or(...uuids.map((uuid) => equal('entryUUID', uuid))), scope, uuids.length);
}

// A replica that is still empty has no suffix either.
async function findAtReplica(connection: LdapConnection, suffix: string, filter: Filter, scope: Scope, limit: number): Promise<Found> {
  try {
    return await findEntries(connection, suffix, filter, scope, limit);
  } catch (error) {
    if (resultCodeOf(error) === resultCodes.noSuchObject) return new Map();
    throw error;
  }
}

async function findEntries(connection: LdapConnection, suffix: string, filter: Filter, scope: Scope, limit: number): Promise<Found> {
  const search = { baseDn: suffix, filter, attributes: [...scope.selection, ...masterUuidAttributes] };
  const found = await connection.searchAll(search, limit, [manageDsaIt]);
  const entries = found.map((one) => inReplicaForm(one));
  return new Map(entries.map((one) => [uuidOfEntry(one.attributes), scope.trim(one)]));
}

/** Every entry below `suffix`, page by page (RFC 2696), in no order; nothing when the suffix itself is missing. */
export async function* readAllEntries(
  connection: LdapConnection,
  suffix: string,
  attributes: readonly string[],
  entriesPerPage = pageSize,
): AsyncGenerator<ReadEntry> {
  try {
    yield* readPages(connection, suffix, attributes, wholeScope, entriesPerPage);
  } catch (error) {
    if (resultCodeOf(error) !== resultCodes.noSuchObject) throw error;
  }
}

/** The same of a master, as far as the replica shall have it; throws `DIR_UNAVAILABLE` when the suffix is missing. */
export async function* readAllAtMaster(
  connection: LdapConnection,
  suffix: string,
  attributes: readonly string[],
  scope: Scope,
  entriesPerPage = pageSize,
): AsyncGenerator<ReadEntry> {
  try {
    yield* readPages(connection, suffix, attributes, scope, entriesPerPage);
  } catch (error) {
    throw masterIsEmpty(error, connection, suffix);
  }
}

async function* readPages(
  connection: LdapConnection,
  suffix: string,
  attributes: readonly string[],
  scope: Scope,
  entriesPerPage: number,
): AsyncGenerator<ReadEntry> {
  let cookie: Buffer = Buffer.alloc(0);
  do {
    const search = connection.search({ baseDn: suffix, filter: scope.filter, attributes: [...masterUuidAttributes, ...attributes] }, [
      makePagedResults({ size: entriesPerPage, cookie }),
      manageDsaIt,
    ]);
    for await (const item of search) {
      if (item.kind !== 'entry' || item.dn.toLowerCase().startsWith(stateEntryStart)) continue;
      const { dn, attributes: read } = inReplicaForm({ dn: item.dn, attributes: item.attributes });
      yield { uuid: uuidOfEntry(read), dn, attributes: read };
    }
    const paged = readPagedResults(findControl(search.done?.controls ?? [], controlOids.pagedResults)?.value);
    cookie = Buffer.from(paged?.cookie ?? '');
  } while (cookie.length > 0);
}

// One whose database was lost, or that does not show it to us any more, must not pass for one that has removed everything.
function masterIsEmpty(error: unknown, { url }: LdapConnection, suffix: string): unknown {
  if (resultCodeOf(error) !== resultCodes.noSuchObject) return error;
  return new PlatformError(
    'DIR_UNAVAILABLE',
    `the master ${url} has no "${suffix}", or does not show it to us: it was restarted empty, or our rights there were changed. ` +
      'Nothing is taken for removed; bring its content back',
    { cause: error },
  );
}
