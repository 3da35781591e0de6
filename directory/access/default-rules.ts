/**
 * The rules that hold where the configuration says nothing else: the rights of the installation's services, and of accounts to themselves.
 * They stand behind the configured ones, in the same language.
 *
 * | who         | reads                                  | writes                |
 * |-------------|----------------------------------------|-----------------------|
 * | admin       | all                                    | all                   |
 * | replicator  | all                                    | all, on a replica     |
 * | cluster     | all, userPassword included             | accounts              |
 * | provisioner | all but userPassword                   | accounts and domains  |
 * | frontend    | what routing needs, never userPassword | nothing               |
 * | an account  | itself, but no userPassword            | its own userPassword  |
 * | anonymous   | root DSE and subschema                 | nothing               |
 */

const routingAttributes = [
  'entry',
  ...'objectClass uid cn mail mailAlternateAddress hostServer accountStatus mailRegion mailQuota'.split(' '),
  ...'mailDomainAlias mailCatchAll clusterMember clusterWeight foreignService frontendSetting subsetFrontend ou o dc'.split(' '),
  ...'entryUUID entryCSN entryDN contextCSN structuralObjectClass hasSubordinates subschemaSubentry createTimestamp modifyTimestamp'.split(
    ' ',
  ),
].join(',');

/** The texts, for a server of that mode. `suffix` is the base of its tree. */
export function defaultRules(suffix: string, mode: 'master' | 'replica'): readonly string[] {
  const replicator =
    mode === 'replica' ? 'by rights=admin manage by rights=replicator manage' : 'by rights=admin manage by rights=replicator read';
  const base = suffix.replaceAll('"', '\\"');
  return [
    // Where a search may begin: a bound entry learns that domains are there, anonymous that the tree is.
    `to dn.base="${base}" attrs=entry by rights=service break by self read by users search by * disclose`,
    'to filter=(!(objectClass=mailAccount)) attrs=entry by rights=service break by self read by users search by * none',
    `to attrs=children ${replicator} by rights=cluster write by rights=provisioner write by * none`,
    `to filter=(objectClass=mailAccount) attrs=userPassword ${replicator} by rights=cluster write by rights=provisioner =w by self =w by anonymous auth by * none`,
    `to attrs=userPassword ${replicator} by rights=cluster read by rights=provisioner =w by self =w by anonymous auth by * none`,
    `to attrs=${routingAttributes} by rights=frontend read by * break`,
    `to filter=(objectClass=mailAccount) ${replicator} by rights=cluster write by rights=provisioner write by self read by * none`,
    `to filter=(objectClass=mailDomain) ${replicator} by rights=cluster read by rights=provisioner write by self read by * none`,
    `to * ${replicator} by rights=cluster read by rights=provisioner read by self read by * none`,
  ];
}
