/**
 * Rules for our own entries that a schema cannot say: names that are real names, `hostServer` that names a known cluster, addresses that
 * belong to one account only. Every refusal says what is there and what would be accepted.
 *
 * An account's addresses are its name (`uid`@`cn of its domain`, and at each alias of the domain), `mail` and `mailAlternateAddress`.
 */
import { domainOf, localPartOf, printable, tryParseAccountName, tryParseDomainName } from '#common/account-name.ts';
import { clusterOf, parseMemberName, tryParseClusterName } from '#common/host-server.ts';
import { foreignProtocols } from '#directory/client/records.ts';
import { parseForeignMember, parseForeignService } from '#directory/client/records-from-entry.ts';
import type { Rdn } from '#protocol/ldap/dn.ts';
import { type Attribute, findAttribute, textOf, textsOf } from '#protocol/ldap/messages.ts';
import { hostTally, rdnKey } from '../schema/mail-schema.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Tree } from '../server/tree.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import type { PlacementCandidate } from './place.ts';

const clustersMax = 1000;
const addressAttributes = ['mail', 'mailalternateaddress'] as const;
/** Addresses of one account: each is looked for in the whole directory before a write. */
export const accountAddressesMax = 1000;
const statuses = ['active', 'locked', 'maintenance', 'closed'];
const memberPattern = /^(\S+) (\S+):(\d{1,5})$/;

/** What is to be checked: an entry as it would be. */
export interface EntryDraft {
  readonly parentId: number;
  readonly rdn: Rdn;
  readonly attributes: readonly Attribute[];
  /** Keys of all its classes and those above them. */
  readonly classKeys: ReadonlySet<string>;
  /** The entry as it is; undefined for a new one. */
  readonly before: StoredEntry | undefined;
  /** The writer says by the relax control that the account's data is where the new `hostServer` says. */
  readonly mayRehost: boolean;
}

/** Refuses an account, domain or cluster that breaks a rule; other entries pass. */
export function checkMailRules(tree: Tree, draft: EntryDraft): void {
  if (draft.classKeys.has('mailaccount')) checkAccount(tree, draft);
  if (draft.classKeys.has('maildomain')) checkDomain(tree, draft);
  if (draft.classKeys.has('mailcluster')) checkCluster(draft.attributes);
  else if (draft.classKeys.has('foreigncluster')) {
    throw new Refusal('objectClassViolation', 'foreignCluster is added to a mailCluster entry; this one is none');
  }
}

/** The names of a domain entry: `cn`, then its aliases. Empty when the entry is no domain. */
export function domainNames(domain: StoredEntry | undefined): readonly string[] {
  if (domain === undefined) return [];
  // Domains stay decoded while accounts are added to them (`byIdOften`), so the list is found again by the attributes that it is made of.
  let names = knownDomains.get(domain.attributes);
  if (names === undefined) {
    names = hasClass(domain, 'maildomain') ? namesOfDomain(domain.attributes) : [];
    knownDomains.set(domain.attributes, names);
  }
  return names;
}

const knownDomains = new WeakMap<readonly Attribute[], readonly string[]>();

/** The same by a domain's attributes. */
export function namesOfDomain(attributes: readonly Attribute[]): string[] {
  return [...textsOf(attributes, 'cn').slice(0, 1), ...textsOf(attributes, 'mailDomainAlias')].map((name) => name.toLowerCase());
}

/** `uid`@`domain` of an account below that parent; `undefined` when it has none. */
export function accountNameOf(tree: Tree, parentId: number, uid: string | undefined): string | undefined {
  const domain = domainNames(tree.store.byIdOften(parentId))[0];
  return uid === undefined || domain === undefined ? undefined : tryParseAccountName(`${uid}@${domain}`);
}

/** The uid in a relative name. */
export function uidOf(rdn: Rdn | undefined): string | undefined {
  return rdn?.find((ava) => ['uid', 'userid'].includes(ava.type.toLowerCase()))?.value;
}

/** The clusters of the topology. */
export function knownClusters(tree: Tree): PlacementCandidate[] {
  return tree.store
    .idsWithKey({ attribute: 'objectclass', value: 'mailcluster' }, 0, clustersMax)
    .map((id) => tree.store.byIdOften(id) as StoredEntry)
    .map(({ attributes }) => {
      const name = (textOf(attributes, 'cn') ?? '').toLowerCase();
      return {
        name,
        // Nobody makes accounts on servers that are not ours but their own administrators.
        weight: isForeign(attributes) ? 0 : Number(textOf(attributes, 'clusterWeight') ?? 100),
        region: textOf(attributes, 'mailRegion'),
        accounts: tree.store.tally(hostTally(name)),
      };
    });
}

/** Refuses a status or quota that is none. */
export function checkAccountValues(attributes: readonly Attribute[]): void {
  const status = textOf(attributes, 'accountStatus');
  if (status !== undefined && !statuses.includes(status.toLowerCase())) {
    throw new Refusal('constraintViolation', `accountStatus is "${printable(status)}"; it must be one of ${statuses.join(', ')}`);
  }
  const quota = textOf(attributes, 'mailQuota');
  if (quota?.startsWith('-')) throw new Refusal('constraintViolation', `mailQuota is ${quota}; it must be 0 or more bytes`);
}

function checkAccount(tree: Tree, draft: EntryDraft): void {
  const { attributes, before } = draft;
  checkAccountValues(attributes);
  const host = textOf(attributes, 'hostServer');
  const hostBefore = before === undefined ? undefined : textOf(before.attributes, 'hostServer');
  checkHostServer(tree, host, hostBefore);
  if (!draft.mayRehost) checkStays(tree, host, hostBefore);

  const domain = tree.store.byIdOften(draft.parentId);
  const names = domainNames(domain);
  if (domain === undefined || names.length === 0) {
    const parent = domain === undefined ? 'nothing' : tree.store.dnOf(domain);
    throw new Refusal('namingViolation', `an account stands directly below its mailDomain entry; ${parent} is none`);
  }
  const addresses = new Set<string>();
  // Values of uid that an earlier name left behind (deleteOldRdn false) are no names.
  const uid = uidOf(draft.rdn);
  if (uid === undefined) throw new Refusal('namingViolation', 'an account is named by its uid: uid=<local part>,<domain entry>');
  for (const name of names) addresses.add(accountAddress('uid', `${uid}@${name}`));
  // Of a name written as names are compared it is known already that no other entry has it.
  const own = new Set(draft.rdn.length === 1 ? names.map((name) => `${uid}@${name}`) : []);
  for (const type of ['mail', 'mailAlternateAddress']) {
    for (const address of textsOf(attributes, type)) if (!addresses.has(address)) addresses.add(accountAddress(type, address));
  }
  if (addresses.size > accountAddressesMax) {
    throw new Refusal(
      'constraintViolation',
      `an account has at most ${accountAddressesMax} addresses; this one would have ${addresses.size}`,
    );
  }
  for (const address of addresses) {
    const other = ownerOf(tree, address, before?.id, own.has(address));
    if (other !== undefined) {
      throw new Refusal('constraintViolation', `the address ${printable(address)} belongs to ${tree.store.dnOf(other)} already`);
    }
  }
}

// The mail stays behind: the other cluster would serve an empty account at once, and what is delivered there is lost to the first.
function checkStays(tree: Tree, value: string | undefined, before: string | undefined): void {
  if (before === undefined || value?.toLowerCase() === before.toLowerCase()) return;
  // The hosts of a foreign cluster share their storage: from one to another no mail moves.
  const from = foreignClusterOf(tree, before);
  if (from !== undefined && value !== undefined && foreignClusterOf(tree, value) === from) return;
  throw new Refusal(
    'unwillingToPerform',
    `hostServer is ${printable(before)} and would become ${printable(value ?? 'nothing')}: this attribute does not move the account's mail. ` +
      'An administrator who has moved it sends the relax control (ldapmodify -e relax)',
  );
}

function checkHostServer(tree: Tree, value: string | undefined, before: string | undefined): void {
  if (value === undefined || value === before) return;
  const name = tryParseClusterName(value);
  if (name !== undefined && (hasCluster(tree, name) || foreignClusterOf(tree, name) !== undefined)) return;
  const known = knownClusters(tree).map((cluster) => cluster.name);
  const list = known.length === 0 ? 'the topology holds no cluster yet' : `known clusters: ${known.sort().slice(0, 20).join(', ')}`;
  throw new Refusal('constraintViolation', `hostServer "${printable(value)}" names no cluster of the topology; ${list}`);
}

/** What a hostServer may say of this cluster: its name, and if it is a foreign one its hosts'. */
export function hostNamesOf(attributes: readonly Attribute[]): string[] {
  const cluster = (textOf(attributes, 'cn') ?? '').toLowerCase();
  if (!isForeign(attributes)) return [cluster];
  return [cluster, ...textsOf(attributes, 'clusterMember').flatMap((member) => parseForeignMember(member)?.name ?? [])];
}

function isForeign(attributes: readonly Attribute[]): boolean {
  return textsOf(attributes, 'objectClass').some((value) => value.toLowerCase() === 'foreigncluster');
}

function hasCluster(tree: Tree, name: string): boolean {
  return clusterNamed(tree, name) !== undefined;
}

function clusterNamed(tree: Tree, name: string): StoredEntry | undefined {
  for (const id of tree.store.idsWithKey({ attribute: 'cn', value: name }, 0, 100)) {
    const entry = tree.store.byIdOften(id);
    if (entry !== undefined && hasClass(entry, 'mailcluster')) return entry;
  }
  return undefined;
}

/** Name of the foreign cluster that a hostServer means: the cluster itself, or one of its hosts, which pins the account there. */
function foreignClusterOf(tree: Tree, hostServer: string): string | undefined {
  const name = hostServer.toLowerCase();
  const whole = clusterNamed(tree, name);
  if (whole !== undefined) return isForeign(whole.attributes) ? name : undefined;
  const cluster = memberCluster(name);
  const entry = cluster === undefined ? undefined : clusterNamed(tree, cluster);
  return entry !== undefined && hostNamesOf(entry.attributes).includes(name) ? cluster : undefined;
}

function accountAddress(type: string, text: string): string {
  const address = tryParseAccountName(text);
  if (address === undefined)
    throw new Refusal('constraintViolation', `${type}: "${printable(text)}" is not an address of the form local@domain`);
  return address;
}

/** Whoever has the address already: as mail, as mailAlternateAddress, or, unless `isNameFree`, as its name in a domain of ours. */
export function ownerOf(tree: Tree, address: string, exceptId: number | undefined, isNameFree = false): StoredEntry | undefined {
  const { store } = tree;
  // Mostly nobody has it, which one look into the index tells.
  for (const attribute of store.hasKeyOf(addressAttributes, address) ? addressAttributes : []) {
    for (const id of store.idsWithKey({ attribute, value: address }, 0, 10)) {
      const entry = store.byId(id);
      if (id !== exceptId && entry !== undefined && hasClass(entry, 'mailaccount')) return entry;
    }
  }
  const name = isNameFree ? undefined : tryParseAccountName(address);
  if (name === undefined) return undefined;
  for (const domain of domainsNamed(tree, domainOf(name))) {
    const entry = store.child(domain.id, rdnKey(tree.schema, [{ type: 'uid', value: localPartOf(name) }]));
    if (entry !== undefined && entry.id !== exceptId && hasClass(entry, 'mailaccount')) return entry;
  }
  return undefined;
}

function domainsNamed(tree: Tree, name: string): StoredEntry[] {
  const found: StoredEntry[] = [];
  for (const attribute of ['cn', 'maildomainalias']) {
    for (const id of tree.store.idsWithKey({ attribute, value: name }, 0, 10)) {
      const entry = tree.store.byIdOften(id);
      if (entry !== undefined && hasClass(entry, 'maildomain')) found.push(entry);
    }
  }
  return found;
}

function checkDomain(tree: Tree, draft: EntryDraft): void {
  checkDomainNames(draft.attributes, (name) => {
    const other = domainsNamed(tree, name).find((domain) => domain.id !== draft.before?.id);
    return other === undefined ? undefined : tree.store.dnOf(other);
  });
}

/** Refuses a domain with a name that is none, or that another has, or a catch-all that is no account name; `ownerOf` says who, for a name in lower case. */
export function checkDomainNames(attributes: readonly Attribute[], ownerOf: (name: string) => string | undefined): void {
  const names = [...textsOf(attributes, 'cn'), ...textsOf(attributes, 'mailDomainAlias')];
  for (const name of names) {
    if (tryParseDomainName(name) !== name.toLowerCase()) {
      const ascii = tryParseDomainName(name);
      const hint = ascii === undefined ? 'use letters, digits, hyphens and dots' : `write it as ${ascii}`;
      throw new Refusal('constraintViolation', `"${printable(name)}" is not a domain name here; ${hint}`);
    }
    const owner = ownerOf(name.toLowerCase());
    if (owner !== undefined) {
      throw new Refusal('constraintViolation', `the domain name ${printable(name)} belongs to ${owner} already`);
    }
  }
  const catchAll = textOf(attributes, 'mailCatchAll');
  if (catchAll !== undefined && tryParseAccountName(catchAll) === undefined) {
    throw new Refusal('constraintViolation', `mailCatchAll is "${printable(catchAll)}"; it must be an account such as office@isp.example`);
  }
}

/** Refuses a cluster with a name, weight or member that is none. */
export function checkCluster(attributes: readonly Attribute[]): void {
  const name = textOf(attributes, 'cn') ?? '';
  const cluster = tryParseClusterName(name);
  if (cluster === undefined)
    throw new Refusal('constraintViolation', `"${printable(name)}" is not a cluster name such as west.isp.example`);
  const weight = Number(textOf(attributes, 'clusterWeight') ?? 100);
  if (weight < 0 || weight > 100) throw new Refusal('constraintViolation', `clusterWeight is ${weight}; it must be from 0 to 100`);
  if (isForeign(attributes)) {
    checkForeign(cluster, attributes);
    return;
  }
  for (const member of textsOf(attributes, 'clusterMember')) {
    const parts = memberPattern.exec(member);
    if (parts === null || Number(parts[3]) > 65_535 || Number(parts[3]) < 1) {
      throw new Refusal(
        'constraintViolation',
        `clusterMember "${printable(member)}" is malformed; write the full name, a space and host:port, as in "back1.west.isp.example 192.0.2.1:4711"`,
      );
    }
    if (memberCluster(parts[1] as string) !== cluster) {
      throw new Refusal(
        'constraintViolation',
        `clusterMember "${printable(member)}" is not of cluster ${cluster}: a member is <label>.${cluster}`,
      );
    }
  }
}

function checkForeign(cluster: string, attributes: readonly Attribute[]): void {
  for (const text of textsOf(attributes, 'clusterMember')) {
    const member = parseForeignMember(text);
    if (member === undefined || memberCluster(member.name) !== cluster) {
      throw new Refusal(
        'constraintViolation',
        `clusterMember "${printable(text)}" names no host of the foreign cluster ${cluster}; write <label>.${cluster}, a space, the address and perhaps a weight, as in "dove1.${cluster} 192.0.2.1 weight=50"`,
      );
    }
  }
  for (const text of textsOf(attributes, 'foreignService')) {
    if (parseForeignService(text) !== undefined) continue;
    throw new Refusal(
      'constraintViolation',
      `foreignService "${printable(text)}" is malformed; write one of ${foreignProtocols.join(', ')}, a port, and none, starttls or implicit, as in "imap 143 starttls"`,
    );
  }
}

function memberCluster(member: string): string | undefined {
  try {
    return clusterOf(parseMemberName(member));
  } catch {
    return undefined;
  }
}

function hasClass(entry: StoredEntry, key: string): boolean {
  const classes = findAttribute(entry.attributes, 'objectClass')?.values ?? [];
  return classes.some((value) => value.length === key.length && value.toString('latin1').toLowerCase() === key);
}
