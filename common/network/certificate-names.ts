/** Names in a certificate's subjectAltName (RFC 5280 §4.2.1.6), from the text that Node makes of it. */
import { X509Certificate } from 'node:crypto';

/** `DNS:…`, `URI:…` and the rest; without those that Node had to quote, which are no names of servers and might be made to look like several. */
function entriesOf(subjectAltName: string | undefined): readonly string[] {
  const entries = subjectAltName?.match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? [];
  return entries.filter((entry) => !entry.includes('"')).map((entry) => entry.trim());
}

/** DNS and URI names; entries of other kinds as they are. */
export function alternativeNames(subjectAltName: string | undefined): readonly string[] {
  return entriesOf(subjectAltName).map((entry) => entry.replace(/^(?:DNS|URI):/, ''));
}

/** DNS names that a certificate (PEM) is for, in lower case. */
export function serverNamesIn(cert: string): readonly string[] {
  return entriesOf(new X509Certificate(cert).subjectAltName).flatMap((entry) =>
    entry.startsWith('DNS:') ? [entry.slice(4).toLowerCase()] : [],
  );
}
