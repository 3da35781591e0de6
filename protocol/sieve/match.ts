/** How Sieve compares (RFC 5228 §2.7): match types by comparators. */

/** Tells whether a value has a key. */
export type Matcher = (value: string, key: string) => boolean;

/** RFC 4790 §9.2: only ASCII letters are folded. */
function folded(text: string): string {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

const byType: Readonly<Record<string, Matcher>> = {
  is: (value, key) => value === key,
  contains: (value, key) => value.includes(key),
  matches: glob,
};

/** Match types that there are. */
export const matchTypes: readonly string[] = Object.keys(byType);
/** Comparators that there are (RFC 5228 §2.7.3). */
export const comparators: readonly string[] = ['i;octet', 'i;ascii-casemap'];

/** The matcher of a match type and a comparator. */
export function matcherOf(type: string, comparator: string): Matcher {
  const matches = byType[type] as Matcher;
  return comparator === 'i;octet' ? matches : (value, key) => matches(folded(value), folded(key));
}

/** `*` any text, `?` one character, a backslash takes the next as it is (RFC 5228 §2.7.1). Time grows with the product of the lengths at most. */
export function glob(value: string, pattern: string): boolean {
  const text = [...value];
  const parts: (string | { readonly any: 'one' | 'many' })[] = [];
  for (const [part] of pattern.matchAll(/\\?[\s\S]/gu)) {
    if (part === '*') parts.push({ any: 'many' });
    else if (part === '?') parts.push({ any: 'one' });
    else parts.push(part.length > 1 && part.startsWith('\\') ? part.slice(1) : part);
  }
  let at = 0;
  let part = 0;
  // Where the last `*` stood, and how much it has taken: only that one is ever tried again.
  let star = -1;
  let taken = 0;
  while (at < text.length) {
    const wanted = parts[part];
    if (typeof wanted === 'object' && wanted.any === 'many') {
      star = part;
      taken = at;
      part += 1;
    } else if (wanted !== undefined && (typeof wanted === 'object' || wanted === text[at])) {
      at += 1;
      part += 1;
    } else if (star >= 0) {
      taken += 1;
      at = taken;
      part = star + 1;
    } else return false;
  }
  while (typeof parts[part] === 'object' && (parts[part] as { any: string }).any === 'many') part += 1;
  return part === parts.length;
}
