/**
 * Distinguished names (RFC 4514). Parsing keeps the spelling: `formatDn(parseDn(text))` differs from `text` in escapes and optional
 * spaces at most. `normalizeDn` gives the key under which equal names are equal: types by their short name in lower case, values folded
 * as caseIgnoreMatch asks (RFC 4518, the part that matters for names of mail systems), parts of a multi-valued RDN in order.
 */

import { isUtf8 } from 'node:buffer';
import { normalized } from '#common/unicode.ts';

/** One `type=value`; the value is what is meant, without escapes. */
export interface Ava {
  readonly type: string;
  readonly value: string;
}

/** One level of a name; more than one part when written with `+`. */
export type Rdn = readonly Ava[];

/** A name, from the entry itself up to the root. The empty DN is the root DSE. */
export type Dn = readonly Rdn[];

/** Longest DN text and most levels that are parsed. */
export const dnTextMax = 8192;
export const dnLevelsMax = 64;

const typePattern = /^(?:[A-Za-z][A-Za-z0-9-]*|(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*)$/;

/** Parses a DN; `undefined` when it is none. Spaces around `,`, `+` and `=` are tolerated, as every server does. */
export function parseDn(text: string): Dn | undefined {
  if (text.length > dnTextMax) return undefined;
  if (text.trim() === '') return [];
  const levels: Rdn[] = [];
  let avas: Ava[] = [];
  let at = 0;
  for (;;) {
    const equals = text.indexOf('=', at);
    if (equals < 0) return undefined;
    const type = text.slice(at, equals).trim();
    if (!typePattern.test(type)) return undefined;
    const parsed = parseValue(text, equals + 1);
    if (parsed === undefined) return undefined;
    avas.push({ type, value: parsed.value });
    at = parsed.end + 1;
    const separator = text[parsed.end];
    if (separator === '+') continue;
    levels.push(avas);
    if (levels.length > dnLevelsMax) return undefined;
    avas = [];
    if (separator === undefined) return levels;
  }
}

/** Parses one RDN, as in a Modify DN request; `undefined` when it is none or more than one. */
export function parseRdn(text: string): Rdn | undefined {
  const dn = parseDn(text);
  return dn?.length === 1 ? dn[0] : undefined;
}

// Reads a value up to an unescaped `,` or `+` or the end (RFC 4514 §3); `end` is the position of what ended it.
function parseValue(text: string, from: number): { value: string; end: number } | undefined {
  let at = from;
  while (text[at] === ' ') at += 1;
  if (text[at] === '#') return parseHexValue(text, at + 1);
  let value = '';
  // Spaces at the end count only when escaped; `kept` is the length up to the last character that counts.
  let kept = 0;
  let pairs: number[] = [];
  const flush = (): boolean => {
    if (pairs.length === 0) return true;
    const octets = Buffer.from(pairs);
    pairs = [];
    if (!isUtf8(octets)) return false;
    value += octets.toString('utf8');
    kept = value.length;
    return true;
  };
  for (; at < text.length; at += 1) {
    const char = text[at] as string;
    if (char === '\\') {
      const pair = text.slice(at + 1, at + 3);
      if (/^[0-9a-fA-F]{2}$/.test(pair)) {
        pairs.push(Number.parseInt(pair, 16));
        at += 2;
        continue;
      }
      const next = text[at + 1];
      if (next === undefined || !' "#+,;<=>\\'.includes(next) || !flush()) return undefined;
      value += next;
      kept = value.length;
      at += 1;
      continue;
    }
    if (!flush()) return undefined;
    if (char === ',' || char === '+') break;
    if (char === '"' || char === ';' || char === '<' || char === '>' || char === '\u0000') return undefined;
    value += char;
    if (char !== ' ') kept = value.length;
  }
  if (!flush()) return undefined;
  return { value: value.slice(0, kept), end: at };
}

// `#` and the hex digits of a BER value (RFC 4514 §2.4); only text is of use in a name here.
function parseHexValue(text: string, from: number): { value: string; end: number } | undefined {
  let end = from;
  while (end < text.length && text[end] !== ',' && text[end] !== '+') end += 1;
  const digits = text.slice(from, end).trimEnd();
  if (!/^(?:[0-9a-fA-F]{2})+$/.test(digits)) return undefined;
  const octets = Buffer.from(digits, 'hex');
  const content = octets.subarray(2);
  if (octets.length < 2 || octets[1] !== content.length || content.length > 0x7f || !isUtf8(content)) return undefined;
  return { value: content.toString('utf8'), end };
}

/** Text of a DN, with the escapes that RFC 4514 §2.4 asks for and no more. */
export function formatDn(dn: Dn): string {
  return dn.map(formatRdn).join(',');
}

/** Text of one RDN. */
export function formatRdn(rdn: Rdn): string {
  return rdn.map((ava) => `${ava.type}=${escapeDnValue(ava.value)}`).join('+');
}

/** A value as it stands in a DN. */
export function escapeDnValue(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: NUL is one of the characters that must be escaped
  return value.replace(/["+,;<>\\]|^[ #]| $|\u0000/g, (char) => (char === '\u0000' ? '\\00' : `\\${char}`));
}

/** How one value of an RDN is folded; `type` is the normalised type. */
export type NormalizeValue = (type: string, value: string) => string;

/** The key of a DN; see the header. With a schema at hand, `normalizeValue` replaces the default folding. */
export function normalizeDn(dn: Dn, normalizeValue: NormalizeValue = foldValue): string {
  return dn.map((rdn) => normalizeRdn(rdn, normalizeValue)).join(',');
}

/** The key of one RDN. */
export function normalizeRdn(rdn: Rdn, normalizeValue: NormalizeValue = foldValue): string {
  if (rdn.length === 1) return normalizeAva(rdn[0] as Ava, normalizeValue);
  return rdn
    .map((ava) => normalizeAva(ava, normalizeValue))
    .sort()
    .join('+');
}

function normalizeAva(ava: Ava, normalizeValue: NormalizeValue): string {
  const type = normalizeAttributeType(ava.type);
  return `${type}=${escapeDnValue(normalizeValue(type, ava.value))}`;
}

/** The key of a DN given as text; `undefined` when it is no DN. */
export function normalizeDnText(text: string, normalizeValue?: NormalizeValue): string | undefined {
  const dn = parseDn(text);
  return dn === undefined ? undefined : normalizeDn(dn, normalizeValue);
}

/** caseIgnoreMatch for names: NFKC, lower case, no spaces at the ends, single spaces within (RFC 4518 §2.6.1). */
export function foldValue(_type: string, value: string): string {
  return normalized(value, 'NFKC').toLowerCase().trim().replace(/\s+/g, ' ');
}

// Short names of RFC 4514 §3 with their OIDs and long names, so that each type has one key.
const typeNames: Readonly<Record<string, string>> = {
  '2.5.4.3': 'cn',
  commonname: 'cn',
  '2.5.4.7': 'l',
  localityname: 'l',
  '2.5.4.8': 'st',
  stateorprovincename: 'st',
  '2.5.4.10': 'o',
  organizationname: 'o',
  '2.5.4.11': 'ou',
  organizationalunitname: 'ou',
  '2.5.4.6': 'c',
  countryname: 'c',
  '2.5.4.9': 'street',
  streetaddress: 'street',
  '0.9.2342.19200300.100.1.25': 'dc',
  domaincomponent: 'dc',
  '0.9.2342.19200300.100.1.1': 'uid',
  userid: 'uid',
};

/** An attribute type in lower case, under its short name where it has several. */
export function normalizeAttributeType(type: string): string {
  const folded = type.toLowerCase();
  return typeNames[folded] ?? folded;
}

/** Splits off the first RDN, keeping the spelling of both parts; `undefined` for the empty DN. Expects a valid DN. */
export function splitDn(text: string): { readonly rdn: string; readonly parent: string } | undefined {
  if (text.trim() === '') return undefined;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === ',') return { rdn: withoutTrailingSpaces(text.slice(0, at)), parent: text.slice(at + 1).trimStart() };
  }
  return { rdn: text, parent: '' };
}

// RFC 4514 §2.4: a space that ends a value is escaped, and belongs to it.
function withoutTrailingSpaces(rdn: string): string {
  const trimmed = rdn.trimEnd();
  if (trimmed.length === rdn.length || !trimmed.endsWith('\\')) return trimmed;
  const backslashes = trimmed.length - trimmed.replace(/\\+$/, '').length;
  return backslashes % 2 === 1 ? rdn.slice(0, trimmed.length + 1) : trimmed;
}

/** `rdn` below `parent`, both as text. */
export function joinDn(rdn: string, parent: string): string {
  return parent === '' ? rdn : `${rdn},${parent}`;
}

/** Whether a normalised name is `base` or below it; both are keys from `normalizeDn`. */
export function isWithin(normalized: string, normalizedBase: string): boolean {
  if (normalizedBase === '' || normalized === normalizedBase) return true;
  if (!normalized.endsWith(`,${normalizedBase}`)) return false;
  // The comma must be a separator, not an escaped one.
  let backslashes = 0;
  for (let at = normalized.length - normalizedBase.length - 2; at >= 0 && normalized[at] === '\\'; at -= 1) backslashes += 1;
  return backslashes % 2 === 0;
}
