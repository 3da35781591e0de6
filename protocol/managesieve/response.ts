/** What a ManageSieve server writes (RFC 5804 §1.2, §4): strings, and the lines that end an answer. */

/** A string as it is written: quoted where that can be, else a literal. */
export function sieveString(text: string): string {
  const isQuotable = text.length <= 1024 && !/[\r\n\0]/.test(text);
  if (isQuotable) return `"${text.replace(/["\\]/g, '\\$&')}"`;
  const bytes = Buffer.from(text);
  return `{${bytes.length}}\r\n${text}`;
}

/** The last line of an answer; `code` without its parentheses. */
export function sieveAnswer(verdict: 'OK' | 'NO' | 'BYE', text: string, code?: string): string {
  return `${verdict}${code === undefined ? '' : ` (${code})`} ${sieveString(text)}\r\n`;
}
