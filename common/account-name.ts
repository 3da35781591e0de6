/**
 * Names of accounts and domains. An account's name is `uid`@`cn of its domain entry`; both are compared without regard to case
 * (RFC 4519 §2.39: uid is caseIgnore; DNS names: RFC 4343). Parse at the edge, then trust the type.
 */
import { domainToASCII } from 'node:url';
import { PlatformError } from '#common/errors/platform-error.ts';
import { normalized } from '#common/unicode.ts';

declare const brand: unique symbol;

/** `local@domain`, folded: lower case, domain in A-label form. */
export type AccountName = string & { readonly [brand]: 'AccountName' };
/** A domain in lower case A-label form, without a closing dot. */
export type DomainName = string & { readonly [brand]: 'DomainName' };
/** `entryUUID` of an account: lower case with hyphens. Storage and sessions hold this, never the name. */
export type AccountUuid = string & { readonly [brand]: 'AccountUuid' };

/** Longest local part and longest domain, octets (RFC 5321 §4.5.3.1). */
export const localPartBytesMax = 64;
export const domainBytesMax = 255;

// What a local part may not hold here: controls, spaces, quotes, and what LDAP, paths and route keys would have to escape.
// biome-ignore lint/suspicious/noControlCharactersInRegex: naming the controls is the purpose
const badInLocalPart = /[\u0000-\u0020\u007f"(),:;<>@[\\\]/]|\.\.|^\.|\.$/;
// domainToASCII reads its argument as a URL's host: it ends at / \ ? #, drops tabs and line ends and undoes %41. None of that is a name.
const writtenDomain = /^(?:[\p{L}\p{M}\p{N}._\u3002\u200c-]|\u200d){1,255}$/u;
const domainPattern = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;
// Lower case, no A-labels, and no number at the end, which makes an address of it.
const plainDomain =
  /^(?=.{1,253}$)(?!.*xn--)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Parses a domain; `undefined` when it is none. */
export function tryParseDomainName(text: string): DomainName | undefined {
  const written = text.trim();
  // What domainToASCII would give back as it is: nearly every name.
  if (plainDomain.test(written)) return written as DomainName;
  if (!writtenDomain.test(written)) return undefined;
  const ascii = domainToASCII(written.replace(/\.$/, '')).toLowerCase();
  return domainPattern.test(ascii) ? (ascii as DomainName) : undefined;
}

/** Parses a domain or throws `NAME_DOMAIN_INVALID`. */
export function parseDomainName(text: string): DomainName {
  const domain = tryParseDomainName(text);
  if (domain === undefined) {
    throw new PlatformError('NAME_DOMAIN_INVALID', `"${printable(text)}" is not a domain name`, { fields: { domain: printable(text) } });
  }
  return domain;
}

/** Parses `local@domain`, or a bare local part when `defaultDomain` is given; `undefined` when it is no account name. */
export function tryParseAccountName(text: string, defaultDomain?: DomainName): AccountName | undefined {
  const at = text.lastIndexOf('@');
  const local = normalized(at < 0 ? text : text.slice(0, at), 'NFKC').toLowerCase();
  if (local === '' || Buffer.byteLength(local) > localPartBytesMax || badInLocalPart.test(local)) return undefined;
  const domain = at < 0 ? defaultDomain : tryParseDomainName(text.slice(at + 1));
  return domain === undefined ? undefined : (`${local}@${domain}` as AccountName);
}

/** Parses an account name or throws `NAME_ACCOUNT_INVALID`. */
export function parseAccountName(text: string, defaultDomain?: DomainName): AccountName {
  const name = tryParseAccountName(text, defaultDomain);
  if (name === undefined) {
    throw new PlatformError('NAME_ACCOUNT_INVALID', `"${printable(text)}" is not an account name; expected local@domain`, {
      fields: { account: printable(text) },
    });
  }
  return name;
}

/** The part before the last `@`. */
export function localPartOf(name: AccountName): string {
  return name.slice(0, name.lastIndexOf('@'));
}

/** The part after the last `@`. */
export function domainOf(name: AccountName): DomainName {
  return name.slice(name.lastIndexOf('@') + 1) as DomainName;
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Parses an `entryUUID` in any case; `undefined` when it is none. */
export function tryParseAccountUuid(text: string): AccountUuid | undefined {
  const folded = text.toLowerCase();
  return uuidPattern.test(folded) ? (folded as AccountUuid) : undefined;
}

/** Parses an `entryUUID` or throws `NAME_UUID_INVALID`. */
export function parseAccountUuid(text: string): AccountUuid {
  const uuid = tryParseAccountUuid(text);
  if (uuid === undefined) throw new PlatformError('NAME_UUID_INVALID', `"${printable(text)}" is not an entryUUID`);
  return uuid;
}

/** Text from outside made safe for a message: controls replaced, at most 100 characters. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing controls is the purpose
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, '?');
  return clean.length > 100 ? `${clean.slice(0, 100)}…` : clean;
}
