/**
 * Attribute syntaxes (RFC 4517 §3.3): which octets an attribute of each syntax may hold.
 */
import { isAscii, isUtf8 } from 'node:buffer';

/** One syntax. */
export interface Syntax {
  readonly oid: string;
  readonly description: string;
  /** Values are text (UTF-8); otherwise octets that no tool should print. */
  readonly isText: boolean;
  /** Whether ASCII without controls, at least one character of it, is always of this syntax. */
  readonly takesAscii?: boolean;
  check(value: Buffer): boolean;
}

const arc = '1.3.6.1.4.1.1466.115.121.1';
function byText(oid: string, description: string, pattern: RegExp): Syntax {
  return { oid, description, isText: true, check: (value) => isUtf8(value) && pattern.test(value.toString('utf8')) };
}

/** Text of any characters, at least one. */
function anyText(oid: string, description: string): Syntax {
  return { oid, description, isText: true, takesAscii: true, check: (value) => value.length > 0 && isUtf8(value) };
}

function octets(oid: string, description: string): Syntax {
  return { oid, description, isText: false, check: () => true };
}

const printableString = /^[A-Za-z0-9'()+,\-./:? =]+$/;
const oidOrName = /^(?:[0-9]+(?:\.[0-9]+)*|[A-Za-z][A-Za-z0-9-]*)$/;
const generalizedTime =
  /^\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?)?([.,]\d+)?(Z|[+-]([01]\d|2[0-3])([0-5]\d)?)$/;
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** OpenLDAP's change sequence number: time, count, server, modification. */
export const csnPattern = /^\d{14}(\.\d{6})?Z#[0-9a-f]{6}#[0-9a-f]{2,3}#[0-9a-f]{6}$/;

/** All syntaxes the schema uses, shown in `ldapSyntaxes`. `dn` is checked where the DN parser is: see schema.ts. */
export const syntaxes: readonly Syntax[] = [
  anyText(`${arc}.1`, 'ACI Item'),
  anyText(`${arc}.3`, 'Attribute Type Description'),
  octets(`${arc}.4`, 'Audio'),
  octets(`${arc}.5`, 'Binary'),
  octets(`${arc}.6`, 'Bit String'),
  byText(`${arc}.7`, 'Boolean', /^(TRUE|FALSE)$/),
  octets(`${arc}.8`, 'Certificate'),
  octets(`${arc}.9`, 'Certificate List'),
  octets(`${arc}.10`, 'Certificate Pair'),
  byText(`${arc}.11`, 'Country String', /^[A-Za-z]{2}$/),
  { oid: `${arc}.12`, description: 'DN', isText: true, check: isUtf8 },
  anyText(`${arc}.13`, 'Data Quality'),
  anyText(`${arc}.14`, 'Delivery Method'),
  anyText(`${arc}.15`, 'Directory String'),
  anyText(`${arc}.16`, 'DIT Content Rule Description'),
  anyText(`${arc}.19`, 'DSA Quality'),
  anyText(`${arc}.21`, 'Enhanced Guide'),
  anyText(`${arc}.22`, 'Facsimile Telephone Number'),
  octets(`${arc}.23`, 'Fax'),
  byText(`${arc}.24`, 'Generalized Time', generalizedTime),
  anyText(`${arc}.25`, 'Guide'),
  // The whole of ASCII (RFC 4517 §3.3.15).
  { oid: `${arc}.26`, description: 'IA5 String', isText: true, takesAscii: true, check: isAscii },
  byText(`${arc}.27`, 'INTEGER', /^(0|-?[1-9]\d{0,99})$/),
  octets(`${arc}.28`, 'JPEG'),
  anyText(`${arc}.30`, 'Matching Rule Description'),
  anyText(`${arc}.31`, 'Matching Rule Use Description'),
  { oid: `${arc}.34`, description: 'Name And Optional UID', isText: true, check: isUtf8 },
  byText(`${arc}.36`, 'Numeric String', /^[0-9 ]+$/),
  anyText(`${arc}.37`, 'Object Class Description'),
  byText(`${arc}.38`, 'OID', oidOrName),
  anyText(`${arc}.39`, 'Other Mailbox'),
  octets(`${arc}.40`, 'Octet String'),
  anyText(`${arc}.41`, 'Postal Address'),
  anyText(`${arc}.42`, 'Protocol Information'),
  anyText(`${arc}.43`, 'Presentation Address'),
  byText(`${arc}.44`, 'Printable String', printableString),
  octets(`${arc}.49`, 'Supported Algorithm'),
  byText(`${arc}.50`, 'Telephone Number', printableString),
  octets(`${arc}.51`, 'Teletex Terminal Identifier'),
  anyText(`${arc}.52`, 'Telex Number'),
  byText(`${arc}.53`, 'UTC Time', /^\d{10}(\d\d)?(Z|[+-]\d{4})?$/),
  anyText(`${arc}.54`, 'LDAP Syntax Description'),
  anyText(`${arc}.58`, 'Substring Assertion'),
  byText('1.3.6.1.1.1.0.0', 'NIS Netgroup Triple', /^\([^,]*,[^,]*,[^,]*\)$/),
  anyText('1.3.6.1.1.1.0.1', 'Boot Parameter'),
  byText('1.3.6.1.1.16.1', 'UUID', uuid),
  anyText('1.3.6.1.4.1.4203.666.2.7', 'OpenLDAP Authz'),
  byText('1.3.6.1.4.1.4203.666.11.2.1', 'CSN', csnPattern),
];

/** OID of the DN syntax. */
export const dnSyntaxOid = `${arc}.12`;

/** OID of the syntax of unique members. */
export const nameAndUidSyntaxOid = `${arc}.34`;
