/**
 * Unicode normalization (UAX 15) of text that somebody else wrote. Normalizing sorts each run of combining marks, and sorting a run of
 * 400,000 alternating ones takes minutes. No language stacks more than a handful, so runs are cut where the Stream-Safe Text Format
 * (UAX 15 §13) cuts them: after thirty.
 */

/** Combining marks in a row that are brought into order together. */
const marksMax = 30;
// The two half-width Katakana marks become combining marks by NFKC.
const mark = '[\\p{M}\\uff9e\\uff9f]';
const beyondAscii = /[\u0080-\uffff]/;
const hasLongRun = new RegExp(`${mark}{${marksMax + 1}}`, 'u');
const piece = new RegExp(`[^\\p{M}\\uff9e\\uff9f]*${mark}{0,${marksMax}}`, 'gu');

/** `text.normalize(form)` in time that grows with the length of the text only; the same result for everything people write. */
export function normalized(text: string, form: 'NFC' | 'NFKC'): string {
  // ASCII is its own normal form; nearly every name is.
  if (!beyondAscii.test(text)) return text;
  if (!hasLongRun.test(text)) return text.normalize(form);
  return text.replace(piece, (part) => part.normalize(form));
}
