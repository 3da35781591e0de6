/**
 * Cookies of RFC 4533 in OpenLDAP's form with one field more: `rid=001,csn=20261122…,pos=<database>.<change number>`.
 *
 * OpenLDAP consumers keep the csn and drop the rest; our own followers give all of it back. `pos` is exact, but only for the database that
 * gave it; `csn` is understood by every server of the same master.
 */

/** A cookie's parts. */
export interface SyncCookie {
  /** Replica number of an OpenLDAP consumer, given back as it came. */
  readonly rid: string | undefined;
  readonly csn: string | undefined;
  readonly databaseId: string | undefined;
  readonly changeNumber: number | undefined;
}

/** Reads a cookie; `undefined` when it is none of ours or OpenLDAP's. */
export function readCookie(cookie: Buffer): SyncCookie | undefined {
  if (cookie.length > 1024) return undefined;
  const fields = new Map(
    cookie
      .toString('latin1')
      .split(',')
      .map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)] as const),
  );
  const rid = fields.get('rid');
  // Of the CSNs of several masters the lowest is where nothing is missed.
  const csn = fields.get('csn')?.split(';').sort()[0];
  const position = /^([0-9a-f]{1,32})\.(\d{1,15})$/.exec(fields.get('pos') ?? '');
  if (rid === undefined && csn === undefined && position === null) return undefined;
  return {
    rid,
    csn: csn === '' ? undefined : csn,
    databaseId: position?.[1],
    changeNumber: position === null ? undefined : Number(position[2]),
  };
}

/** Writes a cookie. */
export function makeCookie(cookie: { rid: string | undefined; csn: string; databaseId: string; changeNumber: number }): Buffer {
  const csn = cookie.csn === '' ? '' : `csn=${cookie.csn},`;
  return Buffer.from(`rid=${cookie.rid ?? '000'},${csn}pos=${cookie.databaseId}.${cookie.changeNumber}`);
}
