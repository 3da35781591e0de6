/**
 * Our own schema. The OIDs hang on the arc of a UUID (ITU-T X.667): 2.25.<087378b2-e3d1-4fab-8726-8688b031c833 as a number>, then
 * 1.n for attribute types and 2.n for object classes. A number once given is never used again.
 *
 * deploy/openldap/archipelago.ldif holds the same definitions for OpenLDAP; a test compares the two.
 */

/** Our arc. */
export const mailOidArc = '2.25.11233386167282336856843219451289651251';

const text = '1.3.6.1.4.1.1466.115.121.1.15';
const ia5 = '1.3.6.1.4.1.1466.115.121.1.26';
const integer = '1.3.6.1.4.1.1466.115.121.1.27';
const ia5Match = 'EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreIA5SubstringsMatch';
const integerMatch = 'EQUALITY integerMatch ORDERING integerOrderingMatch';

/** Attribute types. */
export const mailAttributeTypes: readonly string[] = [
  `( ${mailOidArc}.1.1 NAME 'hostServer' DESC 'Name of the backend cluster that hosts the account: its members names without the first label' ${ia5Match} SYNTAX ${ia5}{255} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.2 NAME 'mailAlternateAddress' DESC 'Further address of the account' ${ia5Match} SYNTAX ${ia5}{320} )`,
  `( ${mailOidArc}.1.3 NAME 'accountStatus' DESC 'active, locked, maintenance or closed' ${ia5Match} SYNTAX ${ia5}{16} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.4 NAME 'mailQuota' DESC 'Bytes the account may hold' ${integerMatch} SYNTAX ${integer} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.5 NAME 'mailRegion' DESC 'Region that the account or cluster belongs to' EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX ${text}{64} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.6 NAME 'mailDomainAlias' DESC 'Further name of the domain' ${ia5Match} SYNTAX ${ia5}{255} )`,
  `( ${mailOidArc}.1.7 NAME 'clusterMember' DESC 'Member of the cluster: full name, space, host:port' ${ia5Match} SYNTAX ${ia5}{512} )`,
  `( ${mailOidArc}.1.8 NAME 'clusterWeight' DESC 'Share of new accounts, 0 to 100; 0 takes none' ${integerMatch} SYNTAX ${integer} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.9 NAME 'foreignService' DESC 'Service of a foreign cluster: protocol, port, and none, starttls or implicit' ${ia5Match} SYNTAX ${ia5}{64} )`,
  `( ${mailOidArc}.1.10 NAME 'mailCatchAll' DESC 'Account that takes mail for addresses of the domain that nobody has' ${ia5Match} SYNTAX ${ia5}{320} SINGLE-VALUE )`,
  `( ${mailOidArc}.1.11 NAME 'frontendSetting' DESC 'Setting of all frontends of a subset: name, space, value' ${ia5Match} SYNTAX ${ia5}{255} )`,
  `( ${mailOidArc}.1.12 NAME 'subsetFrontend' DESC 'Frontend of the subset: full name, space, host:port at which the others reach it' ${ia5Match} SYNTAX ${ia5}{512} )`,
];

/** Object classes. */
export const mailObjectClasses: readonly string[] = [
  `( ${mailOidArc}.2.1 NAME 'mailAccount' DESC 'Account of the mail platform, named uid in a mailDomain' SUP top AUXILIARY MUST uid MAY ( hostServer $ mail $ mailAlternateAddress $ accountStatus $ mailQuota $ mailRegion $ userPassword ) )`,
  `( ${mailOidArc}.2.2 NAME 'mailDomain' DESC 'Mail domain; its accounts are its children' SUP top STRUCTURAL MUST cn MAY ( mailDomainAlias $ mailCatchAll $ description ) )`,
  `( ${mailOidArc}.2.3 NAME 'mailCluster' DESC 'Backend cluster of the topology' SUP top STRUCTURAL MUST cn MAY ( clusterMember $ clusterWeight $ mailRegion $ description ) )`,
  `( ${mailOidArc}.2.4 NAME 'foreignCluster' DESC 'Added to a mailCluster whose members are plain IMAP, POP3 or LMTP servers' SUP top AUXILIARY MUST foreignService )`,
  `( ${mailOidArc}.2.5 NAME 'frontendSubset' DESC 'Frontend subset of the topology' SUP top STRUCTURAL MUST cn MAY ( frontendSetting $ subsetFrontend $ mailRegion $ description ) )`,
];
