/**
 * The one table of attribute and class names that the platform's entries have. Everything in this folder names attributes through it.
 */
import { uuidAttributes } from '#directory/client/entry-uuid.ts';

/** Names as they stand in a schema; compared without regard to case. */
export interface AttributeNames {
  readonly accountClass: string;
  readonly domainClass: string;
  readonly clusterClass: string;
  readonly subsetClass: string;
  /** Naming attribute of accounts; of domains, clusters and subsets. */
  readonly uid: string;
  readonly cn: string;
  readonly hostServer: string;
  readonly mail: string;
  readonly mailAlternateAddress: string;
  readonly accountStatus: string;
  readonly mailQuota: string;
  readonly mailRegion: string;
  readonly userPassword: string;
  /** RFC 3112; of other masters, which may keep SCRAM keys there. */
  readonly authPassword: string;
  readonly displayName: string;
  readonly mailDomainAlias: string;
  readonly mailCatchAll: string;
  readonly clusterMember: string;
  readonly clusterWeight: string;
  readonly foreignClass: string;
  readonly foreignService: string;
  readonly frontendSetting: string;
  readonly subsetFrontend: string;
  readonly entryUuid: string;
  readonly entryCsn: string;
}

/** Our own schema (directory/schema, deploy/openldap). */
export const archipelagoNames: AttributeNames = {
  accountClass: 'mailAccount',
  domainClass: 'mailDomain',
  clusterClass: 'mailCluster',
  subsetClass: 'frontendSubset',
  uid: 'uid',
  cn: 'cn',
  hostServer: 'hostServer',
  mail: 'mail',
  mailAlternateAddress: 'mailAlternateAddress',
  accountStatus: 'accountStatus',
  mailQuota: 'mailQuota',
  mailRegion: 'mailRegion',
  userPassword: 'userPassword',
  authPassword: 'authPassword',
  displayName: 'displayName',
  mailDomainAlias: 'mailDomainAlias',
  mailCatchAll: 'mailCatchAll',
  clusterMember: 'clusterMember',
  clusterWeight: 'clusterWeight',
  foreignClass: 'foreignCluster',
  foreignService: 'foreignService',
  frontendSetting: 'frontendSetting',
  subsetFrontend: 'subsetFrontend',
  entryUuid: 'entryUUID',
  entryCsn: 'entryCSN',
};

/** What must be read of an entry to make its record; `userPassword` for those who verify passwords only. */
export function recordAttributes(names: AttributeNames, withPasswords: boolean): readonly string[] {
  const list = [
    ...routeAttributes(names),
    names.uid,
    names.cn,
    names.accountStatus,
    names.mailQuota,
    names.displayName,
    ...uuidAttributes(names),
    names.entryCsn,
  ];
  return withPasswords ? [...list, names.userPassword, names.authPassword] : list;
}

/** What routing needs of an entry that comes with its UUID. */
export function routeAttributes(names: AttributeNames): readonly string[] {
  return [
    'objectClass',
    names.hostServer,
    names.mail,
    names.mailAlternateAddress,
    names.mailRegion,
    names.mailDomainAlias,
    names.mailCatchAll,
    names.clusterMember,
    names.clusterWeight,
    names.foreignService,
    names.frontendSetting,
    names.subsetFrontend,
  ];
}
