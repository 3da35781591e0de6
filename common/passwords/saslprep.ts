/**
 * Passwords brought into one form before they are hashed for SCRAM, so that a password typed on another keyboard is the same password: SASLprep
 * (RFC 4013), as RFC 5802 §2.2 asks. What a password may not hold by that profile is left as it was typed: refusing it here would lock its owner out.
 */
import { normalized } from '#common/unicode.ts';

/** RFC 3454 C.1.2: spaces that are not ASCII become one that is. */
const spaces = /[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/g;
/** RFC 3454 B.1: mapped to nothing. */
const nothing = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|[\u200b-\u200d]|\u2060|[\ufe00-\ufe0f]|\ufeff/g;

/** The prepared password. */
export function prepared(password: string): string {
  return normalized(password.replace(spaces, ' ').replace(nothing, ''), 'NFKC');
}
