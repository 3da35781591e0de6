/** Controls as bytes, for clients that send any control they are given. */
import { controlOids, makeAssertion, makePagedResults, makeReadEntry, makeSyncRequest } from '#protocol/ldap/controls.ts';
import { filterFromText } from '#protocol/ldap/filter.ts';
import { makeSortRequest } from '#protocol/ldap/sort.ts';
import type { WantedControl } from './model.ts';

export interface RawControl {
  readonly oid: string;
  readonly critical: boolean;
  /** Base64. */
  readonly value: string | undefined;
}

/** Paged results have a cookie from answer to answer: a client does them itself, from `pageSize`. */
export function rawControl(control: WantedControl): RawControl {
  const critical = control.critical ?? false;
  const made = (oid: string, value?: Buffer): RawControl => ({ oid, critical, value: value?.toString('base64') });
  switch (control.kind) {
    case 'assertion':
      return made(controlOids.assertion, makeAssertion(filterFromText(control.filter)).value);
    case 'preRead':
    case 'postRead':
      return made(controlOids[control.kind], makeReadEntry(control.kind, control.attributes).value);
    case 'paged':
      return made(controlOids.pagedResults, makePagedResults({ size: control.size, cookie: Buffer.alloc(0) }).value);
    case 'sort':
      return made(
        controlOids.serverSideSort,
        makeSortRequest(control.keys.map((key) => ({ attribute: key.attribute, rule: undefined, reverse: key.reverse ?? false }))).value,
      );
    case 'manageDsaIt':
    case 'relax':
    case 'treeDelete':
      return made(controlOids[control.kind]);
    case 'proxiedAuthorization':
      return made(controlOids.proxiedAuthorization, Buffer.from(control.identity));
    case 'sync':
      return made(controlOids.syncRequest, makeSyncRequest({ mode: 'refreshOnly', cookie: undefined, reloadHint: false }).value);
    case 'raw':
      return made(control.oid, control.value === undefined ? undefined : Buffer.from(control.value));
  }
}
