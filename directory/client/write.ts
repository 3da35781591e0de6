/**
 * Writes accounts and domains on the master. Each operation is one LDAP write; where the master is a plain LDAP server, what ours does by
 * itself (keeping `mail` in step with a rename) is a second one.
 *
 * A write whose answer did not come may have happened: it fails with `DIR_NO_MASTER`, and the caller, whose operation is journalled,
 * looks again before it repeats.
 */
import { type AccountName, type AccountUuid, type DomainName, domainOf, localPartOf } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { createPasswordHasher, type PasswordHasher } from '#common/passwords/password-hasher.ts';
import type { Secret } from '#common/secret.ts';
import type { DirectoryPorts, ResolvedAccess } from '#directory/client/access.ts';
import { type AttributeNames, archipelagoNames, recordAttributes } from '#directory/client/attribute-names.ts';
import type { CopyIntent, DirectoryCopies, DirectoryWriter, NewAccount } from '#directory/client/directory.ts';
import { DirectoryServers } from '#directory/client/directory-servers.ts';
import { uuidFilter } from '#directory/client/entry-uuid.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { domainDn } from '#directory/client/lookup.ts';
import type { AccountRecord, AccountStatus } from '#directory/client/records.ts';
import { recordFromEntry } from '#directory/client/records-from-entry.ts';
import { escapeDnValue, splitDn } from '#protocol/ldap/dn.ts';
import { and, equal } from '#protocol/ldap/filter.ts';
import { type Attribute, attribute, textOf } from '#protocol/ldap/messages.ts';

/** What a writer needs. */
export interface WriterOptions {
  readonly access: ResolvedAccess;
  readonly ports: DirectoryPorts;
  /** Shared with whoever else hashes in this process; default: one of its own. */
  readonly hasher?: PasswordHasher;
  /** Carries each change to the other servers. */
  readonly copies?: DirectoryCopies;
  readonly onClose?: () => Promise<void>;
}

/** Makes a writer; the connection to the master is opened when first needed. */
export function openDirectoryWriter(options: WriterOptions): DirectoryWriter {
  return new Writer(options);
}

class Writer implements DirectoryWriter {
  readonly #access: ResolvedAccess;
  readonly #names: AttributeNames;
  readonly #attributes: readonly string[];
  readonly #servers: DirectoryServers;
  readonly #hasher: PasswordHasher;
  readonly #copies: DirectoryCopies | undefined;
  readonly #onClose: () => Promise<void>;

  constructor(options: WriterOptions) {
    this.#access = options.access;
    this.#names = options.access.names ?? archipelagoNames;
    this.#attributes = recordAttributes(this.#names, true);
    this.#servers = new DirectoryServers(options.access, options.ports);
    this.#copies = options.copies;
    this.#onClose = options.onClose ?? (() => Promise.resolve());
    this.#hasher = options.hasher ?? createPasswordHasher(options.ports.random);
  }

  async createAccount(account: NewAccount): Promise<AccountRecord> {
    const names = this.#names;
    const local = localPartOf(account.name);
    const title = account.displayName ?? local;
    const attributes: Attribute[] = [
      attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', names.accountClass),
      attribute(names.uid, local),
      attribute(names.cn, title),
      attribute('sn', title),
      attribute(names.mail, account.name),
    ];
    if (account.displayName !== undefined) attributes.push(attribute(names.displayName, account.displayName));
    if (account.hostServer !== undefined) attributes.push(attribute(names.hostServer, account.hostServer));
    if (account.quotaBytes !== undefined) attributes.push(attribute(names.mailQuota, String(account.quotaBytes)));
    if (account.status !== undefined) attributes.push(attribute(names.accountStatus, account.status));
    if (account.region !== undefined) attributes.push(attribute(names.mailRegion, account.region));
    const dn = `${names.uid}=${escapeDnValue(local)},${domainDn(domainOf(account.name), this.#access.suffix, names)}`;
    return this.#everywhere({ dn }, async (master) => {
      const secret = account.password === undefined ? [] : [attribute(names.userPassword, await this.#storable(master, account.password))];
      await this.#forEntry(master.add(dn, [...attributes, ...secret]), `domain ${domainOf(account.name)}`);
      // Read back: the master chose entryUUID, and hostServer if none was given.
      const record = await this.#readAccount(master, dn);
      return { answer: record, uuid: record.uuid };
    });
  }

  async renameAccount(uuid: AccountUuid, to: AccountName): Promise<AccountRecord> {
    const names = this.#names;
    return this.#everywhere({ uuid }, async (master) => {
      const before = await this.#findByUuid(master, uuid);
      const oldParent = splitDn(before.dn)?.parent ?? '';
      const newRdn = `${names.uid}=${escapeDnValue(localPartOf(to))}`;
      const moves = domainOf(to) !== domainOf(before.name);
      const newSuperior = moves ? domainDn(domainOf(to), this.#access.suffix, names) : undefined;
      if (before.name !== to) {
        const rename = master.modifyDn({ dn: before.dn, newRdn, deleteOldRdn: true, newSuperior });
        await this.#forEntry(rename, `domain ${domainOf(to)} or account ${before.name}`);
      }
      const dn = `${newRdn},${newSuperior ?? oldParent}`;
      const entry = await master.readEntry(dn, [names.mail]);
      if (entry !== undefined && textOf(entry.attributes, names.mail)?.toLowerCase() === before.name && before.name !== to) {
        await master.modify(dn, [{ kind: 'replace', attribute: attribute(names.mail, to) }]);
      }
      return { answer: await this.#readAccount(master, dn), uuid };
    });
  }

  async removeAccount(uuid: AccountUuid): Promise<void> {
    await this.#everywhere({ uuid }, async (master) => {
      await master.delete((await this.#findByUuid(master, uuid)).dn);
      return { answer: undefined, uuid };
    });
  }

  async setPassword(uuid: AccountUuid, password: Secret<string>): Promise<void> {
    await this.#replace(uuid, async (master) => attribute(this.#names.userPassword, await this.#storable(master, password)));
  }

  async setStatus(uuid: AccountUuid, status: AccountStatus): Promise<void> {
    await this.#replace(uuid, () => attribute(this.#names.accountStatus, status));
  }

  async createDomain(domain: DomainName): Promise<void> {
    const names = this.#names;
    const attributes = [attribute('objectClass', 'top', names.domainClass), attribute(names.cn, domain)];
    const dn = domainDn(domain, this.#access.suffix, names);
    await this.#everywhere({ dn }, async (master) => {
      await master.add(dn, attributes);
      const entry = this.#copies === undefined ? undefined : await master.readEntry(dn, [names.entryUuid]);
      return { answer: undefined, uuid: textOf(entry?.attributes ?? [], names.entryUuid)?.toLowerCase() ?? '' };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copies?.[Symbol.asyncDispose]();
    await this.#servers[Symbol.asyncDispose]();
    await this.#onClose();
  }

  copies(): readonly unknown[] {
    return this.#copies?.status() ?? [];
  }

  // On the master, and from there to wherever the changes are carried.
  async #everywhere<T>(
    subject: CopyIntent['subject'],
    work: (master: LdapConnection) => Promise<{ readonly answer: T; readonly uuid: string }>,
  ): Promise<T> {
    const copies = this.#copies;
    if (copies === undefined) return (await this.#servers.askMaster(work)).answer;
    const intent = await copies.begin(subject);
    let made: { readonly answer: T; readonly uuid: string };
    try {
      made = await this.#servers.askMaster(work);
    } catch (error) {
      // Refused, or not answered, or stopped after a first step: the others get what the master turns out to have.
      void copies.unknown(intent);
      throw error;
    }
    await copies.done(intent, made.uuid);
    return made.answer;
  }

  async #replace(uuid: AccountUuid, value: (master: LdapConnection) => Attribute | Promise<Attribute>): Promise<void> {
    await this.#everywhere({ uuid }, async (master) => {
      const { dn } = await this.#findByUuid(master, uuid);
      await master.modify(dn, [{ kind: 'replace', attribute: await value(master) }]);
      return { answer: undefined, uuid };
    });
  }

  /**
   * The password as the master shall be given it. 389-DS takes a scheme that it does not know for a password in clear and hashes it once
   * more, and nobody could log in; it gets the password itself and keeps it by its own scheme.
   */
  async #storable(master: LdapConnection, password: Secret<string>): Promise<string> {
    const root = await master.readEntry('', ['vendorName']);
    const hashesItself = root !== undefined && textOf(root.attributes, 'vendorName')?.startsWith('389 ') === true;
    return hashesItself ? password.reveal() : this.#hasher.hashPassword(password);
  }

  async #findByUuid(master: LdapConnection, uuid: AccountUuid): Promise<AccountRecord> {
    const names = this.#names;
    const filter = and(equal('objectClass', names.accountClass), uuidFilter(uuid, names));
    const [entry] = await master.searchAll({ baseDn: this.#access.suffix, filter, attributes: this.#attributes }, 1);
    const made = entry === undefined ? undefined : recordFromEntry(entry, { names });
    if (made?.outcome === 'record' && made.record.kind === 'account') return made.record;
    throw new PlatformError('DIR_NOT_FOUND', `the master directory has no account with entryUUID ${uuid}`);
  }

  async #readAccount(master: LdapConnection, dn: string): Promise<AccountRecord> {
    const entry = await master.readEntry(dn, this.#attributes);
    const made = entry === undefined ? undefined : recordFromEntry(entry, { names: this.#names });
    if (made?.outcome === 'record' && made.record.kind === 'account') return made.record;
    const why = made?.outcome === 'unusable' ? made.detail : `"${dn}" cannot be read back by ${this.#access.bindDn}`;
    throw new PlatformError('DIR_DENIED', `the entry was written, but ${why}`);
  }

  /** noSuchObject to an Add or Modify DN is about what is above the entry: say what that is. */
  async #forEntry(write: Promise<unknown>, parent: string): Promise<void> {
    try {
      await write;
    } catch (error) {
      if (!(error instanceof PlatformError) || error.code !== 'DIR_NOT_FOUND') throw error;
      throw new PlatformError('DIR_NOT_FOUND', `the master directory has no ${parent}: ${error.message}`, {
        fields: error.fields,
        cause: error,
      });
    }
  }
}
