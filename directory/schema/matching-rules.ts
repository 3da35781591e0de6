/**
 * Matching rules (RFC 4517 §4.2, string preparation RFC 4518), each as a function to a key: two values match when their keys are equal, and
 * are ordered as their keys are. The same keys are stored in the index, so filter and index cannot disagree.
 */
import { normalized } from '#common/unicode.ts';

/** One matching rule. */
export interface MatchingRule {
  readonly oid: string;
  readonly name: string;
  readonly syntaxOid: string;
  /** Key of a value; `undefined` when it is no value of the rule's syntax. */
  key(value: Buffer): string | undefined;
  /** Whether every value has a key. */
  readonly hasKeyAlways?: boolean;
  /** The key of ASCII without controls, without spaces at its ends and without two in a row: the value itself, or in lower case. */
  readonly plainKey?: 'same' | 'lower';
  /** Key of a piece of a value, for substrings: insignificant spaces at the cut are kept. */
  pieceKey?(piece: Buffer): string | undefined;
}

const arc = '1.3.6.1.4.1.1466.115.121.1';

// RFC 4518 §2.2: some code points map to nothing, others to a space.
const mappedToNothing = /\u00ad|\u034f|\u1806|[\u180b-\u180e]|[\u200b-\u200f]|[\u202a-\u202e]|[\u2060-\u2063]|[\ufe00-\ufe0f]|\ufeff/g;
const spaces = /[\s\u0085]+/g;

/** A directory string prepared for comparison: NFKC, folded when asked, inner runs of spaces as one, outer ones dropped (RFC 4518 §2.6.1). */
export function preparedText(text: string, fold: boolean): string {
  return preparedPiece(text, fold).trim();
}

function preparedPiece(text: string, fold: boolean): string {
  // Nearly every name is lower-case ASCII without spaces: nothing to do for those, and little where single spaces are within.
  if (/^[!-@[-~]*$/.test(text)) return text;
  if (/^[!-~]+(?: [!-~]+)*$/.test(text)) return fold ? text.toLowerCase() : text;
  const folded = fold ? normalized(text, 'NFKC').toLowerCase() : text;
  return normalized(folded.replace(mappedToNothing, ''), 'NFKC').replace(spaces, ' ');
}

function textKeys(fold: boolean) {
  return {
    hasKeyAlways: true,
    plainKey: fold ? ('lower' as const) : ('same' as const),
    key: (value: Buffer) => preparedText(value.toString('utf8'), fold),
    pieceKey: (piece: Buffer) => preparedPiece(piece.toString('utf8'), fold),
  };
}

function withoutCharacters(pattern: RegExp) {
  const key = (value: Buffer): string => value.toString('utf8').toLowerCase().replace(pattern, '');
  return { key, pieceKey: key };
}

/**
 * Integers as text whose order is theirs: sign and count of digits first, negative ones complemented.
 */
export function integerKey(value: Buffer): string | undefined {
  const text = value.toString('latin1').trim();
  const parts = /^(-?)0*(\d{1,100})$/.exec(text);
  if (parts === null) return undefined;
  const digits = (parts[2] as string).replace(/^0+(?=\d)/, '');
  if (parts[1] === '' || digits === '0') return `1${String(digits.length).padStart(3, '0')}${digits}`;
  const complement = digits.replace(/\d/g, (digit) => String(9 - Number(digit)));
  return `0${String(999 - digits.length)}${complement}`;
}

/** Generalized time (RFC 4517 §3.3.13) as UTC text with nine digits of fraction. */
export function generalizedTimeKey(value: Buffer): string | undefined {
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d)?)?(?:[.,](\d+))?(Z|[+-]\d\d(?:\d\d)?)$/.exec(value.toString('latin1'));
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second, fraction = '0', zone = 'Z'] = parts;
  const unitMs = minute === undefined ? 3_600_000 : second === undefined ? 60_000 : 1000;
  const offsetMinutes = zone === 'Z' ? 0 : Number(`${zone[0]}1`) * (Number(zone.slice(1, 3)) * 60 + Number(zone.slice(3) || 0));
  const whole = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute ?? 0), Number(second ?? 0));
  const ms = whole - offsetMinutes * 60_000;
  if (unitMs === 1000) return `${compactTime(ms)}.${fraction.padEnd(9, '0').slice(0, 9)}`;
  return `${compactTime(ms + Number(`0.${fraction}`) * unitMs)}.000000000`;
}

function compactTime(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace(/[-:T]/g, '');
}

const octetKey = (value: Buffer): string => value.toString('latin1');
const lowered = (value: Buffer): string => value.toString('utf8').trim().toLowerCase();
const booleanKey = (value: Buffer): string | undefined => (/^(TRUE|FALSE)$/i.test(value.toString('latin1')) ? lowered(value) : undefined);
const uuidKey = (value: Buffer): string | undefined =>
  /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value.toString('latin1')) ? lowered(value) : undefined;

function rule(
  oid: string,
  name: string,
  syntax: string,
  keys: Pick<MatchingRule, 'key' | 'pieceKey' | 'hasKeyAlways' | 'plainKey'>,
): MatchingRule {
  return { oid, name, syntaxOid: syntax.includes('.') ? syntax : `${arc}.${syntax}`, ...keys };
}

/**
 * All rules but distinguishedNameMatch and objectIdentifierMatch, whose keys need the schema itself: schema.ts adds them.
 */
export const plainMatchingRules: readonly MatchingRule[] = [
  rule('2.5.13.2', 'caseIgnoreMatch', '15', textKeys(true)),
  rule('2.5.13.3', 'caseIgnoreOrderingMatch', '15', textKeys(true)),
  rule('2.5.13.4', 'caseIgnoreSubstringsMatch', '58', textKeys(true)),
  rule('2.5.13.5', 'caseExactMatch', '15', textKeys(false)),
  rule('2.5.13.6', 'caseExactOrderingMatch', '15', textKeys(false)),
  rule('2.5.13.7', 'caseExactSubstringsMatch', '58', textKeys(false)),
  rule('2.5.13.8', 'numericStringMatch', '36', withoutCharacters(/ /g)),
  rule('2.5.13.9', 'numericStringOrderingMatch', '36', withoutCharacters(/ /g)),
  rule('2.5.13.10', 'numericStringSubstringsMatch', '58', withoutCharacters(/ /g)),
  rule('2.5.13.11', 'caseIgnoreListMatch', '41', textKeys(true)),
  rule('2.5.13.12', 'caseIgnoreListSubstringsMatch', '58', textKeys(true)),
  rule('2.5.13.13', 'booleanMatch', '7', { key: booleanKey }),
  rule('2.5.13.14', 'integerMatch', '27', { key: integerKey }),
  rule('2.5.13.15', 'integerOrderingMatch', '27', { key: integerKey }),
  rule('2.5.13.16', 'bitStringMatch', '6', { key: octetKey }),
  rule('2.5.13.17', 'octetStringMatch', '40', { key: octetKey }),
  rule('2.5.13.18', 'octetStringOrderingMatch', '40', { key: octetKey }),
  rule('2.5.13.20', 'telephoneNumberMatch', '50', withoutCharacters(/[ -]/g)),
  rule('2.5.13.21', 'telephoneNumberSubstringsMatch', '58', withoutCharacters(/[ -]/g)),
  rule('2.5.13.27', 'generalizedTimeMatch', '24', { key: generalizedTimeKey }),
  rule('2.5.13.28', 'generalizedTimeOrderingMatch', '24', { key: generalizedTimeKey }),
  rule('1.3.6.1.4.1.1466.109.114.1', 'caseExactIA5Match', '26', textKeys(false)),
  rule('1.3.6.1.4.1.4203.1.2.1', 'caseExactIA5SubstringsMatch', '58', textKeys(false)),
  rule('1.3.6.1.4.1.1466.109.114.2', 'caseIgnoreIA5Match', '26', textKeys(true)),
  rule('1.3.6.1.4.1.1466.109.114.3', 'caseIgnoreIA5SubstringsMatch', '58', textKeys(true)),
  rule('1.3.6.1.1.16.2', 'UUIDMatch', '1.3.6.1.1.16.1', { key: uuidKey }),
  rule('1.3.6.1.1.16.3', 'UUIDOrderingMatch', '1.3.6.1.1.16.1', { key: uuidKey }),
  rule('1.3.6.1.4.1.4203.666.11.2.2', 'CSNMatch', '1.3.6.1.4.1.4203.666.11.2.1', { key: lowered }),
  rule('1.3.6.1.4.1.4203.666.11.2.3', 'CSNOrderingMatch', '1.3.6.1.4.1.4203.666.11.2.1', { key: lowered }),
];
