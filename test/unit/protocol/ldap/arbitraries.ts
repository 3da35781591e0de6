/** Generators of LDAP values for the property tests of this folder. */
import fc from 'fast-check';
import { Secret } from '#common/secret.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute, Control, LdapMessage, LdapOperation, LdapResult } from '#protocol/ldap/messages.ts';

export const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
export const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const oid = fc.constantFrom('1.2.840.113556.1.4.319', '1.3.6.1.4.1.4203.1.9.1.1');
const attributeName = fc.constantFrom('cn', 'mail', 'hostServer', 'userCertificate;binary', '2.5.4.3');

export const attribute: fc.Arbitrary<Attribute> = fc.record({ type: attributeName, values: fc.array(bytes, { maxLength: 4 }) });
export const control: fc.Arbitrary<Control> = fc.record({ oid, critical: fc.boolean(), value: fc.option(bytes, { nil: undefined }) });

export const filter: fc.Arbitrary<Filter> = fc.letrec<{ filter: Filter }>((tie) => ({
  filter: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    fc.record({
      kind: fc.constantFrom('equal' as const, 'greaterOrEqual' as const, 'lessOrEqual' as const, 'approx' as const),
      attribute: attributeName,
      value: bytes,
    }),
    fc.record({ kind: fc.constant('present' as const), attribute: attributeName }),
    fc
      .record({
        kind: fc.constant('substrings' as const),
        attribute: attributeName,
        initial: fc.option(nonEmpty(), { nil: undefined }),
        any: fc.array(nonEmpty(), { maxLength: 3 }),
        final: fc.option(nonEmpty(), { nil: undefined }),
      })
      .filter((one) => one.initial !== undefined || one.any.length > 0 || one.final !== undefined),
    fc.record({
      kind: fc.constant('extensible' as const),
      rule: fc.constantFrom(undefined, 'caseExactMatch', '2.4.8.10'),
      attribute: attributeName,
      value: bytes,
      dnAttributes: fc.boolean(),
    }),
    fc.record({
      kind: fc.constantFrom('and' as const, 'or' as const),
      filters: fc.array(tie('filter') as fc.Arbitrary<Filter>, { maxLength: 3 }),
    }),
    fc.record({ kind: fc.constant('not' as const), filter: tie('filter') as fc.Arbitrary<Filter> }),
  ),
})).filter;

function nonEmpty(): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ minLength: 1, maxLength: 20 }).map((array) => Buffer.from(array));
}

const count = fc.integer({ min: 0, max: 0x7fffffff });
const result: fc.Arbitrary<LdapResult> = fc.record({
  resultCode: fc.integer({ min: 0, max: 5000 }),
  matchedDn: text,
  diagnosticMessage: text,
});
const plainResultTypes = [
  'searchResultDone',
  'modifyResponse',
  'addResponse',
  'deleteResponse',
  'modifyDnResponse',
  'compareResponse',
] as const;

export const operation: fc.Arbitrary<LdapOperation> = fc.oneof(
  fc.record({
    type: fc.constant('bindRequest' as const),
    version: fc.integer({ min: 1, max: 127 }),
    name: text,
    authentication: fc.oneof(
      bytes.map((password) => ({ method: 'simple' as const, password: new Secret(password) })),
      fc.record({ method: fc.constant('sasl' as const), mechanism: text, credentials: bytes.map((value) => new Secret(value)) }),
    ),
  }),
  fc.record({ type: fc.constant('unbindRequest' as const) }),
  fc.record({
    type: fc.constant('searchRequest' as const),
    baseDn: text,
    scope: fc.constantFrom('base' as const, 'one' as const, 'sub' as const),
    derefAliases: fc.constantFrom('never' as const, 'searching' as const, 'finding' as const, 'always' as const),
    sizeLimit: count,
    timeLimitSeconds: count,
    typesOnly: fc.boolean(),
    filter,
    attributes: fc.array(attributeName, { maxLength: 5 }),
  }),
  fc.record({ type: fc.constant('searchResultEntry' as const), dn: text, attributes: fc.array(attribute, { maxLength: 6 }) }),
  fc.record({ type: fc.constant('searchResultReference' as const), urls: fc.array(text, { minLength: 1, maxLength: 3 }) }),
  fc.record({
    type: fc.constant('modifyRequest' as const),
    dn: text,
    changes: fc.array(
      fc.record({ kind: fc.constantFrom('add' as const, 'delete' as const, 'replace' as const, 'increment' as const), attribute }),
      { maxLength: 4 },
    ),
  }),
  fc.record({ type: fc.constant('addRequest' as const), dn: text, attributes: fc.array(attribute, { maxLength: 6 }) }),
  fc.record({ type: fc.constant('deleteRequest' as const), dn: text }),
  fc.record({
    type: fc.constant('modifyDnRequest' as const),
    dn: text,
    newRdn: text,
    deleteOldRdn: fc.boolean(),
    newSuperior: fc.option(text, { nil: undefined }),
  }),
  fc.record({ type: fc.constant('compareRequest' as const), dn: text, attribute: attributeName, value: bytes }),
  fc.record({ type: fc.constant('abandonRequest' as const), abandonedId: count }),
  fc.record({ type: fc.constant('extendedRequest' as const), oid, value: fc.option(bytes, { nil: undefined }) }),
  fc.record({
    type: fc.constant('intermediateResponse' as const),
    oid: fc.option(oid, { nil: undefined }),
    value: fc.option(bytes, { nil: undefined }),
  }),
  fc
    .tuple(result, fc.option(bytes, { nil: undefined }))
    .map(([one, serverSaslCredentials]) => ({ type: 'bindResponse' as const, ...one, serverSaslCredentials })),
  fc
    .tuple(result, fc.option(bytes, { nil: undefined }))
    .map(([one, value]) => ({ type: 'extendedResponse' as const, ...one, oid: undefined, value })),
  fc.tuple(fc.constantFrom(...plainResultTypes), result).map(([type, one]) => ({ type, ...one })),
);

export const message: fc.Arbitrary<LdapMessage> = fc.record({
  id: count,
  operation,
  controls: fc.array(control, { maxLength: 3 }),
});
