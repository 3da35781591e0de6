/**
 * What may be done with an attribute of an entry, as bits. A level holds those below it, as in OpenLDAP's access rules:
 *
 *   none < disclose < auth < compare < search < read < write (add and delete of values) < manage
 */

/** Single privileges. */
export const privilegeBits = { disclose: 1, auth: 2, compare: 4, search: 8, read: 16, add: 32, delete: 64, manage: 128 } as const;

/** Name of a single privilege. */
export type Privilege = keyof typeof privilegeBits;

/** All of them, lowest first. */
export const privilegeNames = Object.keys(privilegeBits) as Privilege[];

/** Levels by name. */
export const levels: Readonly<Record<string, number>> = {
  none: 0,
  disclose: 1,
  auth: 3,
  compare: 7,
  search: 15,
  read: 31,
  write: 127,
  manage: 255,
};

/** Letters of the form `=wx`, as OpenLDAP writes them. */
export const privilegeLetters: Readonly<Record<string, number>> = {
  '0': 0,
  d: privilegeBits.disclose,
  x: privilegeBits.auth,
  c: privilegeBits.compare,
  s: privilegeBits.search,
  r: privilegeBits.read,
  a: privilegeBits.add,
  z: privilegeBits.delete,
  w: privilegeBits.add | privilegeBits.delete,
  m: privilegeBits.manage,
};

/** Privileges as people read them: `read (disclose auth compare search read)`, or the names alone where no level is meant. */
export function privilegesText(bits: number): string {
  const names = privilegeNames.filter((name) => (bits & privilegeBits[name]) !== 0).join(' ');
  const level = Object.keys(levels).find((name) => levels[name] === bits);
  if (level === undefined) return names;
  return bits === 0 ? 'none' : `${level} (${names})`;
}
