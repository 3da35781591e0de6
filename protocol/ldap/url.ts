/**
 * LDAP URLs (RFC 4516): `ldap://host:port/dn?attributes?scope?filter?extensions`, and `ldaps://`. What is after the host is percent-decoded.
 */
import { type Filter, parseFilter } from '#protocol/ldap/filter.ts';
import type { SearchScope } from '#protocol/ldap/messages.ts';

/** The parts of an LDAP URL; what is not written has the standard's default. */
export interface LdapUrl {
  readonly scheme: 'ldap' | 'ldaps';
  /** Without brackets; empty when the URL names no host. */
  readonly host: string;
  readonly port: number;
  readonly dn: string;
  readonly attributes: readonly string[];
  readonly scope: SearchScope;
  readonly filter: Filter | undefined;
}

const pattern = /^(ldaps?):\/\/(?:(\[[0-9a-fA-F:.]+\]|[^/?#:[\]]*)(?::(\d{1,5}))?)(?:\/(.*))?$/i;

/** Parses a URL; `undefined` when it is none. */
export function parseLdapUrl(text: string): LdapUrl | undefined {
  const match = pattern.exec(text.trim());
  if (match === null) return undefined;
  const scheme = (match[1] as string).toLowerCase() === 'ldaps' ? 'ldaps' : 'ldap';
  const port = match[3] === undefined ? (scheme === 'ldaps' ? 636 : 389) : Number(match[3]);
  if (port > 65_535) return undefined;
  const [dn = '', attributes = '', scope = '', filterText = ''] = (match[4] ?? '').split('?').map(decode);
  const scopeName = scope === '' ? 'base' : scope.toLowerCase();
  if (scopeName !== 'base' && scopeName !== 'one' && scopeName !== 'sub') return undefined;
  const filter = filterText === '' ? undefined : parseFilter(filterText);
  if (filter?.outcome === 'malformed') return undefined;
  return {
    scheme,
    host: (match[2] ?? '').replace(/^\[|\]$/g, ''),
    port,
    dn,
    attributes: attributes === '' ? [] : attributes.split(','),
    scope: scopeName,
    filter: filter?.filter,
  };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    // A percent sign that starts no escape stands for itself.
    return part;
  }
}
