/**
 * From an LDAP entry to the record that the other rooms see. An account's name is `uid`@`cn of the domain entry`, both taken from the DN,
 * so that the name and the entry can never disagree. What a value breaks concerns that value only: a bad alternate address is left
 * out, a bad hostServer is reported in the record; an entry whose name cannot be read at all gives no record, with the reason.
 */
import {
  type AccountName,
  type DomainName,
  printable,
  tryParseAccountName,
  tryParseAccountUuid,
  tryParseDomainName,
} from '#common/account-name.ts';
import { type ClusterName, parseMemberName, tryParseClusterName } from '#common/host-server.ts';
import { Secret } from '#common/secret.ts';
import { type AttributeNames, archipelagoNames } from '#directory/client/attribute-names.ts';
import { uuidOf } from '#directory/client/entry-uuid.ts';
import {
  type AccountRecord,
  type AccountStatus,
  type ClusterMember,
  type ClusterRecord,
  type DirectoryRecord,
  type DomainRecord,
  type ForeignService,
  foreignProtocols,
  type SubsetRecord,
} from '#directory/client/records.ts';
import { type Dn, normalizeAttributeType, parseDn } from '#protocol/ldap/dn.ts';
import { type Attribute, findAttribute, textOf, textsOf } from '#protocol/ldap/messages.ts';

/** An entry as a search gives it. */
export interface Entry {
  readonly dn: string;
  readonly attributes: readonly Attribute[];
}

/** The record, or why there is none: `other` entries are not of our classes and concern nobody. */
export type RecordOutcome =
  | { readonly outcome: 'record'; readonly record: DirectoryRecord }
  | { readonly outcome: 'other' }
  /** `isUnreadable`: it may be as good as any, and is not shown as a whole to this identity. */
  | { readonly outcome: 'unusable'; readonly detail: string; readonly isUnreadable: boolean };

/** Makes the record of an entry. `uuid` is given when it came otherwise, as in a sync state control. */
export function recordFromEntry(entry: Entry, options: { uuid?: string; names?: AttributeNames } = {}): RecordOutcome {
  const names = options.names ?? archipelagoNames;
  const classes = textsOf(entry.attributes, 'objectClass').map((value) => value.toLowerCase());
  const isA = (name: string): boolean => classes.includes(name.toLowerCase());
  const kind = isA(names.accountClass)
    ? 'account'
    : isA(names.domainClass)
      ? 'domain'
      : isA(names.clusterClass)
        ? 'cluster'
        : isA(names.subsetClass)
          ? 'subset'
          : undefined;
  if (kind === undefined) return { outcome: 'other' };
  const uuid = tryParseAccountUuid(options.uuid ?? uuidOf(entry.attributes, names) ?? '');
  if (uuid === undefined) return unusable(entry, 'has no entryUUID that this identity may read', true);
  const dn = parseDn(entry.dn);
  if (dn === undefined) return unusable(entry, 'has a name that is no DN');
  const common = { uuid, dn: entry.dn, csn: textOf(entry.attributes, names.entryCsn) ?? '' };
  if (kind === 'account') return accountRecord(entry, dn, common, names);
  if (kind === 'subset') return subsetRecord(entry, dn, common, names);
  return kind === 'domain' ? domainRecord(entry, dn, common, names) : clusterRecord(entry, dn, common, names);
}

/** The name of the account that an entry of this DN would be; `undefined` when none could have it. */
export function accountNameOf(text: string, names: AttributeNames = archipelagoNames): AccountName | undefined {
  const dn = parseDn(text);
  const local = dn === undefined ? undefined : namingValue(dn, 0, names.uid);
  const domain = dn === undefined ? undefined : namingValue(dn, 1, names.cn);
  return local === undefined || domain === undefined ? undefined : tryParseAccountName(`${local}@${domain}`);
}

type Common = Pick<AccountRecord, 'uuid' | 'dn' | 'csn'>;

function accountRecord(entry: Entry, dn: Dn, common: Common, names: AttributeNames): RecordOutcome {
  const local = namingValue(dn, 0, names.uid);
  const domain = namingValue(dn, 1, names.cn);
  if (local === undefined || domain === undefined) {
    return unusable(entry, `is an account whose DN does not start with ${names.uid}=…,${names.cn}=…`);
  }
  const name = tryParseAccountName(`${local}@${domain}`);
  if (name === undefined) return unusable(entry, `names no account: "${printable(`${local}@${domain}`)}"`);
  const addresses = new Set<AccountName>();
  for (const text of [...textsOf(entry.attributes, names.mail), ...textsOf(entry.attributes, names.mailAlternateAddress)]) {
    const address = tryParseAccountName(text);
    if (address !== undefined && address !== name) addresses.add(address);
  }
  const passwords = [
    ...textsOf(entry.attributes, names.userPassword),
    // RFC 3112 §2.5 and RFC 5803 §2: scheme, `$`, the rest.
    ...textsOf(entry.attributes, names.authPassword).map((text) => text.trim().replace(/^([A-Z0-9-]{0,15}[A-Z0-9])\s*\$\s*/, '{$1}')),
  ];
  const record: AccountRecord = {
    kind: 'account',
    ...common,
    name,
    ...hostServerOf(entry, names),
    addresses: [...addresses],
    status: statusOf(textOf(entry.attributes, names.accountStatus)),
    quotaBytes: countOf(textOf(entry.attributes, names.mailQuota)),
    passwords: passwords.length === 0 ? noPasswords : new Secret(passwords),
    region: textOf(entry.attributes, names.mailRegion),
    displayName: textOf(entry.attributes, names.displayName) ?? textOf(entry.attributes, names.cn),
  };
  return { outcome: 'record', record };
}

const noPasswords = new Secret<readonly string[]>([]);

function domainRecord(entry: Entry, dn: Dn, common: Common, names: AttributeNames): RecordOutcome {
  const name = tryParseDomainName(namingValue(dn, 0, names.cn) ?? '');
  if (name === undefined) return unusable(entry, `is a domain whose DN does not start with ${names.cn}=a.domain`);
  const aliases = new Set<DomainName>();
  for (const text of textsOf(entry.attributes, names.mailDomainAlias)) {
    const alias = tryParseDomainName(text);
    if (alias !== undefined && alias !== name) aliases.add(alias);
  }
  const catchAll = tryParseAccountName(textOf(entry.attributes, names.mailCatchAll) ?? '');
  const record: DomainRecord = { kind: 'domain', ...common, name, aliases: [...aliases], ...(catchAll === undefined ? {} : { catchAll }) };
  return { outcome: 'record', record };
}

function clusterRecord(entry: Entry, dn: Dn, common: Common, names: AttributeNames): RecordOutcome {
  const name = tryParseClusterName(namingValue(dn, 0, names.cn) ?? '');
  if (name === undefined) return unusable(entry, `is a cluster whose DN does not start with ${names.cn}=a.cluster.name`);
  const isForeign = textsOf(entry.attributes, 'objectClass').some((value) => value.toLowerCase() === names.foreignClass.toLowerCase());
  const parse = isForeign ? parseForeignMember : parseMember;
  const members = textsOf(entry.attributes, names.clusterMember).flatMap((text) => parse(text) ?? []);
  const services = textsOf(entry.attributes, names.foreignService).flatMap((text) => parseForeignService(text) ?? []);
  const weight = countOf(textOf(entry.attributes, names.clusterWeight)) ?? 100;
  const record: ClusterRecord = {
    kind: 'cluster',
    ...common,
    name,
    members,
    weight: Math.min(100, weight),
    region: textOf(entry.attributes, names.mailRegion),
    ...(isForeign ? { foreign: services } : {}),
  };
  return { outcome: 'record', record };
}

function subsetRecord(entry: Entry, dn: Dn, common: Common, names: AttributeNames): RecordOutcome {
  const name = namingValue(dn, 0, names.cn)?.toLowerCase();
  if (name === undefined) return unusable(entry, `is a subset whose DN does not start with ${names.cn}=`);
  const record: SubsetRecord = {
    kind: 'subset',
    ...common,
    name,
    settings: textsOf(entry.attributes, names.frontendSetting),
    frontends: textsOf(entry.attributes, names.subsetFrontend),
  };
  return { outcome: 'record', record };
}

/** `back1.west.isp.example 127.0.0.1:4711`; `undefined` when it is not of that form. */
export function parseMember(text: string): ClusterRecord['members'][number] | undefined {
  const match = /^(\S+)\s+(\[[0-9a-fA-F:.]+\]|[^\s:]+):(\d{1,5})$/.exec(text.trim());
  if (match === null || Number(match[3]) > 65_535) return undefined;
  try {
    return {
      name: parseMemberName(match[1] as string),
      host: (match[2] as string).replace(/^\[|\]$/g, ''),
      port: Number(match[3]),
    };
  } catch {
    // Not a member's name: the line is passed over as any malformed value is.
    return undefined;
  }
}

/** `dove1.legacy.isp.example 192.0.2.1 weight=50`: a host of a foreign cluster; `undefined` when it is not of that form. */
export function parseForeignMember(text: string): ClusterMember | undefined {
  const match = /^(\S+)\s+(\[[0-9a-fA-F:.]+\]|[^\s:=]+)(?:\s+weight=(\d{1,3}))?$/.exec(text.trim());
  const weight = Number(match?.[3] ?? 100);
  const name = tryParseDomainName(match?.[1] ?? '');
  if (match === null || weight > 100 || name === undefined || !name.includes('.')) return undefined;
  return { name: parseMemberName(name), host: (match[2] as string).replace(/^\[|\]$/g, ''), port: 0, weight };
}

/** `imap 143 starttls`; `undefined` when it is not of that form. */
export function parseForeignService(text: string): ForeignService | undefined {
  const [protocol = '', port = '', tls = '', ...more] = text.trim().toLowerCase().split(/\s+/);
  if (more.length > 0 || !/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535) return undefined;
  if (tls !== 'none' && tls !== 'starttls' && tls !== 'implicit') return undefined;
  const known = foreignProtocols.find((name) => name === protocol);
  return known === undefined ? undefined : { protocol: known, port: Number(port), tls };
}

function hostServerOf(entry: Entry, names: AttributeNames): { hostServer: ClusterName | undefined; hostServerProblem: string | undefined } {
  const values = findAttribute(entry.attributes, names.hostServer)?.values ?? [];
  if (values.length === 0) return { hostServer: undefined, hostServerProblem: `${names.hostServer} is missing` };
  const text = (values[0] as Buffer).toString('utf8');
  if (values.length > 1)
    return { hostServer: undefined, hostServerProblem: `${names.hostServer} has ${values.length} values, expected one` };
  const hostServer = tryParseClusterName(text);
  return {
    hostServer,
    hostServerProblem: hostServer === undefined ? `${names.hostServer} "${printable(text)}" is no cluster name` : undefined,
  };
}

/** A missing status is `active`; one that is not known is taken for `maintenance`: refused for now, lost for nobody. */
function statusOf(text: string | undefined): AccountStatus {
  if (text === undefined) return 'active';
  const folded = text.trim().toLowerCase();
  return folded === 'active' || folded === 'locked' || folded === 'closed' ? folded : 'maintenance';
}

function countOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text);
}

// Value of that type in the RDN at `level`; RDNs of several parts are looked through.
function namingValue(dn: Dn, level: number, type: string): string | undefined {
  const wanted = normalizeAttributeType(type);
  return dn[level]?.find((ava) => normalizeAttributeType(ava.type) === wanted)?.value;
}

function unusable(entry: Entry, why: string, isUnreadable = false): RecordOutcome {
  return { outcome: 'unusable', detail: `entry "${printable(entry.dn)}" ${why}`, isUnreadable };
}
