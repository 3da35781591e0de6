/**
 * The two entries outside the tree that everybody may read: the root DSE (RFC 4512 §5.1) and the subschema (RFC 4512 §4.2). Tools learn from
 * them what this server can do, so they name only what works.
 */

import { accessRulesOid } from '#directory/client/access-rules.ts';
import { asOfOid, authorityOid, fenceOid, forwardedOid, roleAttribute } from '#directory/client/authority.ts';
import { backupOid } from '#directory/client/backup.ts';
import { controlOids } from '#protocol/ldap/controls.ts';
import { imageBatchOid } from '#protocol/ldap/image-batch.ts';
import { type Attribute, attribute, extendedOids } from '#protocol/ldap/messages.ts';
import { passwordPolicyOid } from '../access/password-policy.ts';
import type { Schema } from '../schema/schema.ts';
import { syntaxes } from '../schema/syntaxes.ts';
import { monitorDn } from './monitor.ts';
import { subschemaDn } from './tree.ts';

/** Controls that are obeyed. */
export const supportedControls: readonly string[] = [
  controlOids.pagedResults,
  controlOids.manageDsaIt,
  controlOids.syncRequest,
  controlOids.assertion,
  controlOids.preRead,
  controlOids.postRead,
  controlOids.relax,
  controlOids.serverSideSort,
  controlOids.treeDelete,
  controlOids.proxiedAuthorization,
  passwordPolicyOid,
  fenceOid,
  asOfOid,
  forwardedOid,
];

/** All operational attributes (RFC 3673), attributes by class (RFC 4529), absolute filters (RFC 4526), increment (RFC 4525). */
const supportedFeatures = ['1.3.6.1.4.1.4203.1.5.1', '1.3.6.1.4.1.4203.1.5.2', '1.3.6.1.4.1.4203.1.5.3', '1.3.6.1.1.14'];

/** What depends on the connection that asks. */
export interface ConnectionOffers {
  readonly startTls: boolean;
  readonly saslMechanisms: readonly string[];
  readonly backup: boolean;
  readonly images: boolean;
  /** What this server is among the others; `undefined` where that is not known. */
  readonly role: string | undefined;
}

/** Attributes of the root DSE. */
export function rootDse(suffix: string, connection: ConnectionOffers, version: string): Attribute[] {
  const extensions: string[] = [extendedOids.passwordModify, extendedOids.whoAmI, extendedOids.cancel, accessRulesOid];
  if (connection.role !== undefined) extensions.push(authorityOid);
  if (connection.backup) extensions.push(backupOid);
  if (connection.images) extensions.push(imageBatchOid);
  if (connection.startTls) extensions.push(extendedOids.startTls);
  return [
    attribute('objectClass', 'top', 'extensibleObject'),
    attribute('structuralObjectClass', 'top'),
    attribute('namingContexts', suffix),
    attribute('monitorContext', monitorDn),
    attribute('subschemaSubentry', subschemaDn),
    attribute('supportedLDAPVersion', '3'),
    attribute('supportedControl', ...supportedControls),
    attribute('supportedExtension', ...extensions),
    attribute('supportedFeatures', ...supportedFeatures),
    ...(connection.saslMechanisms.length === 0 ? [] : [attribute('supportedSASLMechanisms', ...connection.saslMechanisms)]),
    ...(connection.role === undefined ? [] : [attribute(roleAttribute, connection.role)]),
    attribute('vendorName', 'Archipelago'),
    attribute('vendorVersion', version),
    attribute('entryDN', ''),
  ];
}

/** Attributes of the subschema entry. `startedAt` is a generalized time: clients cache by modifyTimestamp. */
export function subschema(schema: Schema, startedAt: string): Attribute[] {
  return [
    attribute('objectClass', 'top', 'subentry', 'subschema', 'extensibleObject'),
    attribute('structuralObjectClass', 'subentry'),
    attribute('cn', 'Subschema'),
    attribute('createTimestamp', startedAt),
    attribute('modifyTimestamp', startedAt),
    attribute('entryDN', subschemaDn),
    attribute('subschemaSubentry', subschemaDn),
    attribute('hasSubordinates', 'FALSE'),
    attribute('ldapSyntaxes', ...syntaxes.map((syntax) => `( ${syntax.oid} DESC '${syntax.description}' )`)),
    attribute('matchingRules', ...schema.matchingRules.map((rule) => `( ${rule.oid} NAME '${rule.name}' SYNTAX ${rule.syntaxOid} )`)),
    attribute('attributeTypes', ...schema.attributeTypeTexts),
    attribute('objectClasses', ...schema.objectClassTexts),
  ];
}
