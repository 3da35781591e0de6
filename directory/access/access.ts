/**
 * Who may do what. One table by right; the operations ask, nothing else decides.
 *
 * | right       | reads                                  | writes                                        |
 * |-------------|----------------------------------------|-----------------------------------------------|
 * | admin       | all                                    | all                                           |
 * | replicator  | all                                    | all, on a replica                             |
 * | cluster     | all, userPassword included             | accounts                                      |
 * | provisioner | all but userPassword                   | accounts and domains                          |
 * | frontend    | what routing needs, never userPassword | nothing                                       |
 * | self        | its own entry, but no userPassword     | its own userPassword                          |
 * | anonymous   | root DSE and subschema                 | nothing                                       |
 */
import type { ServiceIdentity } from '#directory/config.ts';

export type Rights = ServiceIdentity['rights'] | 'self' | 'anonymous';

/** Who asks: as bound on a connection. */
export interface Requester {
  /** As it is shown; empty for anonymous. */
  readonly dn: string;
  readonly rights: Rights;
  /** entryUUID of the bound entry, with `self`. */
  readonly uuid: string | undefined;
}

export const anonymous: Requester = { dn: '', rights: 'anonymous', uuid: undefined };

/** What an entry is, as far as access goes. */
export type EntryKind = 'account' | 'domain' | 'other';

/** The kind of an entry by the keys of its object classes. */
export function kindOf(classKeys: ReadonlySet<string>): EntryKind {
  if (classKeys.has('mailaccount')) return 'account';
  return classKeys.has('maildomain') ? 'domain' : 'other';
}

const routingAttributes = new Set(
  (
    'objectclass uid cn mail mailalternateaddress hostserver accountstatus mailregion mailquota maildomainalias clustermember clusterweight ou o dc ' +
    'entryuuid entrycsn entrydn contextcsn structuralobjectclass hassubordinates subschemasubentry createtimestamp modifytimestamp'
  ).split(' '),
);

/** Whether the tree may be searched at all; the root DSE and the subschema always may. */
export function maySearch(who: Requester): boolean {
  return who.rights !== 'anonymous';
}

/** Whether an entry may be seen. */
export function maySeeEntry(who: Requester, entryUuid: string): boolean {
  if (who.rights === 'self') return entryUuid === who.uuid;
  return who.rights !== 'anonymous';
}

/** Whether an attribute may be read, compared or used in a filter. */
export function mayRead(who: Requester, attributeKey: string): boolean {
  switch (who.rights) {
    case 'admin':
    case 'replicator':
    case 'cluster':
      return true;
    case 'provisioner':
    case 'self':
      return attributeKey !== 'userpassword';
    case 'frontend':
      return routingAttributes.has(attributeKey);
    case 'anonymous':
      return false;
  }
}

/** Whether entries of that kind may be added, changed, renamed and removed. */
export function mayWrite(who: Requester, kind: EntryKind, mode: 'master' | 'replica'): boolean {
  switch (who.rights) {
    case 'admin':
      return true;
    case 'replicator':
      return mode === 'replica';
    case 'cluster':
      return kind === 'account';
    case 'provisioner':
      return kind === 'account' || kind === 'domain';
    default:
      return false;
  }
}

/** Whether this requester may change just these attributes of its own entry. */
export function mayWriteSelf(who: Requester, entryUuid: string, attributeKeys: readonly string[]): boolean {
  return who.rights === 'self' && who.uuid === entryUuid && attributeKeys.every((key) => key === 'userpassword');
}

/** Whether the relax control is honoured: names, times and CSNs as given. */
export function mayRelax(who: Requester): boolean {
  return who.rights === 'admin' || who.rights === 'replicator';
}

/** Whether changes may be followed (RFC 4533). An account follows nothing. */
export function mayFollow(who: Requester): boolean {
  return who.rights !== 'self' && who.rights !== 'anonymous';
}

/** Most entries of one search without paging; undefined is no limit. Services follow and list the whole tree, accounts see themselves. */
export function sizeLimitOf(who: Requester): number | undefined {
  return who.rights === 'self' ? 100 : undefined;
}
