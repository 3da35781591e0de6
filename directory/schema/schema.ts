/**
 * The schema in force: attribute types and object classes by name, with what they inherit filled in (RFC 4512 §4.1).
 *
 * It is the one place that turns values and names into the keys by which they are compared, so filters, indexes, names and the rules for
 * unique addresses cannot disagree.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { type MatchingRule, plainMatchingRules } from './matching-rules.ts';
import { type Definition, parseDefinition } from './parse-definition.ts';
import { dnSyntaxOid, nameAndUidSyntaxOid, type Syntax, syntaxes } from './syntaxes.ts';

/** An attribute type with what it inherits. */
export interface AttributeType {
  readonly oid: string;
  /** First name, as it is shown. */
  readonly name: string;
  /** First name in lower case: the key for maps and indexes. */
  readonly key: string;
  readonly syntax: Syntax;
  readonly equality: MatchingRule | undefined;
  readonly ordering: MatchingRule | undefined;
  readonly substrings: MatchingRule | undefined;
  readonly isSingleValued: boolean;
  /** USAGE other than userApplications: returned on request only (RFC 4512 §3.4). */
  readonly isOperational: boolean;
  /** NO-USER-MODIFICATION. */
  readonly isServerOnly: boolean;
  /** Keys of this type and of all that inherit from it. */
  readonly family: ReadonlySet<string>;
  /** False for a name that the schema does not know and a replica took over all the same. */
  readonly isKnown: boolean;
}

/** An object class with what it inherits. */
export interface ObjectClass {
  readonly oid: string;
  readonly name: string;
  readonly key: string;
  readonly kind: 'abstract' | 'structural' | 'auxiliary';
  /** Direct superiors. */
  readonly superiors: readonly ObjectClass[];
  /** Keys of this class and of all above it. */
  readonly lineage: ReadonlySet<string>;
  /** Attribute keys, inherited ones included. */
  readonly must: ReadonlySet<string>;
  readonly may: ReadonlySet<string>;
}

/** An attribute description (RFC 4512 §2.5) split: the type, and its options in lower case, sorted. */
export interface ParsedDescription {
  readonly type: AttributeType;
  readonly options: readonly string[];
  /** Canonical spelling: the type's name, then the options. */
  readonly canonical: string;
}

/** Rules of common schema files that compare parts of structured values, which is not done here. */
const rulesLeftOut: ReadonlySet<string> = new Set(
  (
    'certificateExactMatch certificateMatch certificateListExactMatch certificateListMatch certificatePairExactMatch ' +
    'presentationAddressMatch protocolInformationMatch integerFirstComponentMatch directoryStringFirstComponentMatch wordMatch keywordMatch authzMatch'
  ).split(' '),
);

const syntaxesByOid = new Map(syntaxes.map((syntax) => [syntax.oid, syntax]));
const descriptionPattern = /^([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)((?:;[A-Za-z0-9-]+)*)$/;
const parsedDescriptionsMax = 4096;

/** See the header of this file. */
export class Schema {
  /** What was added to the definitions that every server has: `attribute x`, `object class y`. */
  readonly extension: string[] = [];
  #isExtended = false;
  /** As they are published. */
  readonly attributeTypeTexts: string[] = [];
  readonly objectClassTexts: string[] = [];
  readonly matchingRules: readonly MatchingRule[];
  readonly #rules: ReadonlyMap<string, MatchingRule>;
  readonly #types = new Map<string, AttributeType>();
  readonly #superiors = new Map<AttributeType, AttributeType>();
  readonly #classes = new Map<string, ObjectClass>();
  readonly #descriptions = new Map<string, ParsedDescription>();

  /**
   * @param normalizeDn key of a DN given as text, `undefined` when it is none; gets this very schema
   */
  constructor(
    attributeTypes: readonly string[],
    objectClasses: readonly string[],
    normalizeDn: (schema: Schema, dn: string) => string | undefined,
  ) {
    this.matchingRules = [
      ...plainMatchingRules,
      {
        oid: '2.5.13.1',
        name: 'distinguishedNameMatch',
        syntaxOid: dnSyntaxOid,
        key: (value) => normalizeDn(this, value.toString('utf8')),
      },
      {
        oid: '2.5.13.23',
        name: 'uniqueMemberMatch',
        syntaxOid: nameAndUidSyntaxOid,
        // A name, and after `#` a bit string that tells equal names of different times apart (RFC 4517 §3.3.21).
        key: (value) => {
          const [, dn = '', uid = ''] = /^([\s\S]*?)(#'[01]*'B)?$/.exec(value.toString('utf8')) ?? [];
          const key = normalizeDn(this, dn);
          return key === undefined ? undefined : `${key}${uid}`;
        },
      },
      ...['2.5.13.0 objectIdentifierMatch', '2.5.13.30 objectIdentifierFirstComponentMatch'].map((rule): MatchingRule => {
        const [oid, name] = rule.split(' ') as [string, string];
        return { oid, name, syntaxOid: '1.3.6.1.4.1.1466.115.121.1.38', key: (value) => this.#identifierKey(value.toString('utf8')) };
      }),
    ];
    this.#rules = new Map(this.matchingRules.flatMap((rule) => [[rule.name, rule] as const, [rule.oid, rule] as const]));
    for (const text of attributeTypes) this.define('attribute', text);
    for (const text of objectClasses) this.define('class', text);
    this.#isExtended = true;
  }

  /**
   * Adds a definition in the form of RFC 4512 §4.1, or throws `CONFIG_INVALID`. One that is there already, by OID and first name, is passed over; before
   * the schema is in use only.
   */
  define(kind: 'attribute' | 'class', text: string): void {
    const definition = parseDefinition(text);
    const known: ReadonlyMap<string, { readonly oid: string; readonly name: string }> = kind === 'attribute' ? this.#types : this.#classes;
    const names = definition.names.length === 0 ? [definition.oid] : definition.names;
    const same = known.get(definition.oid);
    if (same !== undefined && names.some((name) => known.get(name.toLowerCase()) === same)) return;
    const taken = [definition.oid, ...names].find((name) => known.has(name.toLowerCase()));
    if (taken !== undefined) {
      const owner = known.get(taken.toLowerCase());
      throw new PlatformError(
        'CONFIG_INVALID',
        `${taken} belongs to ${kind === 'attribute' ? 'attribute type' : 'object class'} ${owner?.name} (${owner?.oid}) already`,
      );
    }
    if (kind === 'attribute') this.#defineType(definition);
    else this.#defineClass(definition);
    (kind === 'attribute' ? this.attributeTypeTexts : this.objectClassTexts).push(text);
    if (this.#isExtended) this.extension.push(`${kind === 'attribute' ? 'attribute' : 'object class'} ${names[0]}`);
  }

  /** An attribute type by any of its names or its OID. */
  attributeType(name: string): AttributeType | undefined {
    return this.#types.get(name.toLowerCase());
  }

  /** An object class by any of its names or its OID. */
  objectClass(name: string): ObjectClass | undefined {
    return this.#classes.get(name.toLowerCase());
  }

  /** Splits an attribute description; `undefined` when it is malformed or, unless `lenient`, of no known type. */
  description(text: string, lenient = false): ParsedDescription | undefined {
    const known = this.#descriptions.get(text);
    if (known !== undefined) return known;
    const parts = descriptionPattern.exec(text);
    if (parts === null) return undefined;
    const found = this.attributeType(parts[1] as string);
    if (found === undefined && !lenient) return undefined;
    const type = found ?? unknownType(parts[1] as string);
    const options = [...new Set((parts[2] as string).toLowerCase().split(';').slice(1))].sort();
    const parsed = { type, options, canonical: [type.name, ...options].join(';') };
    if (found !== undefined && this.#descriptions.size < parsedDescriptionsMax) this.#descriptions.set(text, parsed);
    return parsed;
  }

  #defineType(definition: Definition): void {
    const { oid, fields } = definition;
    const word = (keyword: string): string | undefined => fields.get(keyword)?.[0];
    const name = definition.names[0] ?? oid;
    const superior = word('SUP') === undefined ? undefined : this.#requireType(word('SUP') as string, name);
    const ruleOf = (keyword: string, inherited: MatchingRule | undefined): MatchingRule | undefined => {
      const ruleName = word(keyword);
      if (ruleName === undefined) return inherited;
      const rule = this.#rules.get(ruleName);
      // An attribute without a rule can be held and read; filters on its values are undefined (RFC 4511 §4.5.1.7).
      if (rulesLeftOut.has(ruleName)) return undefined;
      if (rule === undefined) throw new PlatformError('CONFIG_INVALID', `attribute type ${name}: no matching rule ${ruleName}`);
      return rule;
    };
    const syntaxOid = word('SYNTAX')?.replace(/\{\d+\}$/, '');
    const syntax = syntaxOid === undefined ? superior?.syntax : syntaxesByOid.get(syntaxOid);
    if (syntax === undefined) throw new PlatformError('CONFIG_INVALID', `attribute type ${name}: no syntax ${syntaxOid ?? 'given'}`);
    const type: AttributeType = {
      oid,
      name,
      key: name.toLowerCase(),
      syntax,
      equality: ruleOf('EQUALITY', superior?.equality),
      ordering: ruleOf('ORDERING', superior?.ordering),
      substrings: ruleOf('SUBSTR', superior?.substrings),
      isSingleValued: fields.has('SINGLE-VALUE'),
      isOperational: (word('USAGE') ?? 'userApplications') !== 'userApplications',
      isServerOnly: fields.has('NO-USER-MODIFICATION'),
      family: new Set([name.toLowerCase()]),
      isKnown: true,
    };
    for (const one of [oid, ...definition.names]) this.#types.set(one.toLowerCase(), type);
    if (superior !== undefined) this.#superiors.set(type, superior);
    for (let above = superior; above !== undefined; above = this.#superiors.get(above)) (above.family as Set<string>).add(type.key);
  }

  #requireType(name: string, by: string): AttributeType {
    const type = this.attributeType(name);
    if (type === undefined)
      throw new PlatformError('CONFIG_INVALID', `${by} refers to attribute type ${name}, which is not defined before`);
    return type;
  }

  #defineClass(definition: Definition): void {
    const { oid, fields, names } = definition;
    const name = names[0] ?? oid;
    const superiors = (fields.get('SUP') ?? []).map((superior) => {
      const found = this.objectClass(superior);
      if (found === undefined) throw new PlatformError('CONFIG_INVALID', `${name} refers to object class ${superior}, not defined before`);
      return found;
    });
    const keys = (keyword: string): string[] => (fields.get(keyword) ?? []).map((attribute) => this.#requireType(attribute, name).key);
    const key = name.toLowerCase();
    const made: ObjectClass = {
      oid,
      name,
      key,
      kind: fields.has('ABSTRACT') ? 'abstract' : fields.has('AUXILIARY') ? 'auxiliary' : 'structural',
      superiors,
      lineage: new Set([key, ...superiors.flatMap((superior) => [...superior.lineage])]),
      must: new Set([...keys('MUST'), ...superiors.flatMap((superior) => [...superior.must])]),
      may: new Set([...keys('MAY'), ...superiors.flatMap((superior) => [...superior.may])]),
    };
    for (const one of [oid, ...names]) this.#classes.set(one.toLowerCase(), made);
  }

  // objectIdentifierMatch: a name and its OID are equal (RFC 4517 §4.2.26).
  #identifierKey(text: string): string {
    const trimmed = text.trim();
    return this.objectClass(trimmed)?.key ?? this.attributeType(trimmed)?.key ?? trimmed.toLowerCase();
  }
}

const anyOctets: Syntax = { oid: '1.3.6.1.4.1.1466.115.121.1.40', description: 'Octet String', isText: false, check: () => true };

function unknownType(name: string): AttributeType {
  const key = name.toLowerCase();
  return {
    oid: key,
    name,
    key,
    syntax: anyOctets,
    equality: plainMatchingRules.find((rule) => rule.name === 'caseIgnoreMatch'),
    ordering: undefined,
    substrings: plainMatchingRules.find((rule) => rule.name === 'caseIgnoreSubstringsMatch'),
    isSingleValued: false,
    isOperational: false,
    isServerOnly: false,
    family: new Set([key]),
    isKnown: false,
  };
}
