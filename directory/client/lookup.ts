/**
 * Looks accounts up (RFC 4511 §4.5): by name, by any of their addresses, each also at the aliases of its domain.
 *
 * One round trip in the common case: the entry of that name, the addresses, and the domain's alias are asked for at once on one
 * connection. Only the master's "nothing found" means that there is nothing (see `LookupAnswer.authoritative`).
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf, localPartOf } from '#common/account-name.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { DirectoryPorts, ResolvedAccess } from '#directory/client/access.ts';
import { type AttributeNames, archipelagoNames, recordAttributes } from '#directory/client/attribute-names.ts';
import type { DirectoryReader, DirectoryServerStatus, LookupAnswer } from '#directory/client/directory.ts';
import { DirectoryServers } from '#directory/client/directory-servers.ts';
import { uuidFilter } from '#directory/client/entry-uuid.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import type { AccountRecord, ClusterRecord, DomainRecord } from '#directory/client/records.ts';
import { type Entry, type RecordOutcome, recordFromEntry } from '#directory/client/records-from-entry.ts';
import { escapeDnValue } from '#protocol/ldap/dn.ts';
import { and, equal, type Filter, or } from '#protocol/ldap/filter.ts';
import { textOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';

/** Entries taken from one answer when one is expected; more are a mistake in the tree. */
const ambiguousMax = 5;
/** Most clusters of one installation. */
const clustersMax = 1000;

/** What a reader needs. */
export interface LookupOptions {
  readonly access: ResolvedAccess;
  /** Read `userPassword` too; for those who verify passwords. */
  readonly withPasswords: boolean;
  readonly ports: DirectoryPorts;
}

/** Makes a reader; connections are opened when first needed. */
export function openDirectoryReader(options: LookupOptions): DirectoryReader {
  return new Lookup(options);
}

class Lookup implements DirectoryReader {
  readonly #options: LookupOptions;
  readonly #names: AttributeNames;
  readonly #attributes: readonly string[];
  readonly #servers: DirectoryServers;

  constructor(options: LookupOptions) {
    this.#options = options;
    this.#names = options.access.names ?? archipelagoNames;
    this.#attributes = recordAttributes(this.#names, options.withPasswords);
    this.#servers = new DirectoryServers(options.access, options.ports);
  }

  async findAccount(address: AccountName, options: { authoritative?: boolean } = {}): Promise<LookupAnswer> {
    const { found, ...by } = await this.#ask((connection) => this.#findByAddress(connection, address), options.authoritative === true);
    // Not while the server is asked: it answered, and is not to be avoided for what it said.
    if (found.length > 1) throw this.#ambiguous(address, found, by.server);
    return { record: found[0], ...by };
  }

  async findAccountByUuid(uuid: AccountUuid, options: { authoritative?: boolean } = {}): Promise<LookupAnswer> {
    const filter = and(equal('objectClass', this.#names.accountClass), uuidFilter(uuid, this.#names));
    const find = async (connection: LdapConnection) => this.#readable(await this.#entries(connection, filter, ambiguousMax));
    const { found, ...by } = await this.#ask(find, options.authoritative === true);
    return { record: found[0], ...by };
  }

  async findDomain(domain: DomainName): Promise<DomainRecord | undefined> {
    const { answer } = await this.#servers.askAny((connection) => this.#domainOf(connection, domain));
    return answer;
  }

  async listAccounts(
    filter: { domain?: DomainName; hostServer?: ClusterName; text?: string },
    limit: number,
  ): Promise<readonly AccountRecord[]> {
    const names = this.#names;
    const tests: Filter[] = [equal('objectClass', names.accountClass)];
    if (filter.hostServer !== undefined) tests.push(equal(names.hostServer, filter.hostServer));
    if (filter.text !== undefined && filter.text !== '') {
      const any = [Buffer.from(filter.text)];
      const contains = (attribute: string): Filter => ({ kind: 'substrings', attribute, initial: undefined, any, final: undefined });
      tests.push(or(contains(names.uid), contains(names.mail), contains(names.mailAlternateAddress), contains(names.displayName)));
    }
    const base = filter.domain === undefined ? this.#options.access.suffix : this.#domainDn(filter.domain);
    const { answer } = await this.#servers.askAny((connection) => this.#entries(connection, and(...tests), limit, base));
    return answer.flatMap((entry) => this.#account(recordFromEntry(entry, { names })) ?? []);
  }

  async listClusters(): Promise<readonly ClusterRecord[]> {
    const names = this.#names;
    const filter = equal('objectClass', names.clusterClass);
    const { answer } = await this.#servers.askAny((connection) =>
      connection.searchAll({ baseDn: this.#options.access.suffix, filter, attributes: this.#attributes }, clustersMax),
    );
    return answer.flatMap((entry) => {
      const made = recordFromEntry(entry, { names });
      if (made.outcome === 'unusable') this.#options.ports.log.warn({ component: 'directory-lookup' }, made.detail);
      return made.outcome === 'record' && made.record.kind === 'cluster' ? [made.record] : [];
    });
  }

  async servers(): Promise<readonly DirectoryServerStatus[]> {
    const { suffix } = this.#options.access;
    const { master } = this.#servers;
    const csns = await Promise.all(
      this.#servers.urls.map(async (url) => {
        try {
          const entry = await this.#servers.ask(url, (connection) => connection.readEntry(suffix, ['contextCSN']));
          return {
            url,
            isReachable: true,
            csn: entry === undefined ? undefined : textOf(entry.attributes, 'contextCSN'),
            error: undefined,
          };
        } catch (error) {
          // An answer, even a refusal, is an answer.
          return { url, isReachable: resultCodeOf(error) !== undefined, csn: undefined, error: messageOf(error) };
        }
      }),
    );
    const masterCsn = csns.find((one) => one.url === master)?.csn;
    return csns.map((one) => ({
      url: one.url,
      isMaster: one.url === master,
      reachable: one.isReachable,
      lastError: one.error ?? this.#servers.lastErrorOf(one.url),
      contextCsn: one.csn,
      lagMs: csnDistanceMs(masterCsn, one.csn),
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#servers[Symbol.asyncDispose]();
  }

  async #ask(
    find: (connection: LdapConnection) => Promise<readonly AccountRecord[]>,
    authoritative: boolean,
  ): Promise<Omit<LookupAnswer, 'record'> & { readonly found: readonly AccountRecord[] }> {
    if (authoritative) return { found: await this.#servers.askMaster(find), server: this.#servers.master, authoritative: true };
    const { answer, server } = await this.#servers.askAny(find);
    return { found: answer, server, authoritative: server === this.#servers.master };
  }

  async #findByAddress(connection: LdapConnection, address: AccountName): Promise<readonly AccountRecord[]> {
    const [found, domain] = await Promise.all([this.#findExactly(connection, address), this.#domainOf(connection, domainOf(address))]);
    if (found.length > 0 || domain === undefined || domain.name === domainOf(address)) return found;
    return this.#findExactly(connection, `${localPartOf(address)}@${domain.name}` as AccountName);
  }

  // The entry of that name wins over other accounts that have the name among their addresses, hidden ones too: `mail` left over from a rename on a server
  // that does not keep it in step still says where it came from, not where it belongs.
  async #findExactly(connection: LdapConnection, address: AccountName): Promise<readonly AccountRecord[]> {
    const names = this.#names;
    const dn = `${names.uid}=${escapeDnValue(localPartOf(address))},${this.#domainDn(domainOf(address))}`;
    const isAccount = equal('objectClass', names.accountClass);
    const byAddress = and(isAccount, or(equal(names.mail, address), equal(names.mailAlternateAddress, address)));
    const [byName, others] = await Promise.all([
      connection.readEntry(dn, this.#attributes, { filter: isAccount }),
      this.#entries(connection, byAddress, ambiguousMax),
    ]);
    const named = this.#readable(byName === undefined ? [] : [byName]);
    return named.length > 0 ? named : this.#readable(others);
  }

  async #domainOf(connection: LdapConnection, domain: DomainName): Promise<DomainRecord | undefined> {
    const names = this.#names;
    const filter = and(equal('objectClass', names.domainClass), or(equal(names.cn, domain), equal(names.mailDomainAlias, domain)));
    const entries = await connection.searchAll(
      { baseDn: this.#options.access.suffix, filter, attributes: this.#attributes, sizeLimit: ambiguousMax },
      ambiguousMax,
    );
    const domains = entries.flatMap((entry) => {
      const made = readable(recordFromEntry(entry, { names }));
      return made.outcome === 'record' && made.record.kind === 'domain' ? [made.record] : [];
    });
    return domains.find((one) => one.name === domain) ?? domains.find((one) => one.aliases.includes(domain));
  }

  async #entries(connection: LdapConnection, filter: Filter, limit: number, baseDn = this.#options.access.suffix): Promise<Entry[]> {
    const entries: Entry[] = [];
    try {
      for await (const item of connection.search({ baseDn, filter, attributes: this.#attributes, sizeLimit: limit })) {
        if (item.kind === 'entry') entries.push(item);
      }
    } catch (error) {
      // Our own limit, and a domain that does not exist.
      const code = resultCodeOf(error);
      if (code !== resultCodes.sizeLimitExceeded && code !== resultCodes.noSuchObject) throw error;
    }
    return entries;
  }

  #readable(entries: readonly Entry[]): AccountRecord[] {
    return entries.flatMap((entry) => this.#account(readable(recordFromEntry(entry, { names: this.#names }))) ?? []);
  }

  #account(made: RecordOutcome): AccountRecord | undefined {
    if (made.outcome === 'record') return made.record.kind === 'account' ? made.record : undefined;
    if (made.outcome === 'unusable') this.#options.ports.log.warn({ component: 'directory-lookup' }, made.detail);
    return undefined;
  }

  #ambiguous(address: AccountName, found: readonly AccountRecord[], server: string): PlatformError {
    const error = new PlatformError(
      'DIR_ADDRESS_AMBIGUOUS',
      `${found.length} accounts have the address ${address}: ${found.map(({ dn }) => dn).join('; ')}. Take it from all but one`,
      { fields: { account: address, peer: server } },
    );
    this.#options.ports.log.warn({ component: 'directory-lookup', ...error.fields, errCode: error.code }, error.message);
    return error;
  }

  #domainDn(domain: DomainName): string {
    return domainDn(domain, this.#options.access.suffix, this.#names);
  }
}

/** An entry that is there and hidden is no reason to say that there is none, which would be final. */
function readable(made: RecordOutcome): RecordOutcome {
  if (made.outcome === 'unusable' && made.isUnreadable) throw new PlatformError('DIR_ENTRY_UNREADABLE', made.detail);
  return made;
}

/** DN of a domain's entry. */
export function domainDn(domain: DomainName, suffix: string, names: AttributeNames = archipelagoNames): string {
  return `${names.cn}=${escapeDnValue(domain)},${suffix}`;
}

/** Time that one `contextCSN` is behind another, milliseconds; both are times of the master's clock. `undefined` when one is missing. */
export function csnDistanceMs(master: string | undefined, replica: string | undefined): number | undefined {
  const from = csnTimeMs(replica);
  const to = csnTimeMs(master);
  return from === undefined || to === undefined ? undefined : Math.max(0, to - from);
}

/** Time in a CSN, milliseconds since 1970; `undefined` when it is none. */
export function csnTimeMs(csn: string | undefined): number | undefined {
  const match = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,6}))?Z/.exec(csn ?? '');
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [number, number, number, number, number, number];
  return Date.UTC(year, month - 1, day, hour, minute, second) + Number((match[7] ?? '0').padEnd(6, '0')) / 1000;
}
