/**
 * What the server is doing, as entries below `cn=Monitor`, named and typed as OpenLDAP's are, so that tools made for those read these:
 *
 *   cn=Monitor
 *   ├─ cn=Start,cn=Time            monitorTimestamp
 *   ├─ cn=Current,cn=Connections   monitorCounter; cn=Followers beside it: those that follow changes
 *   ├─ cn=Failed,cn=Binds          monitorCounter; cn=Refused and cn=Addresses (refused now) beside it
 *   ├─ cn=Entries,cn=Database      monitorCounter; cn=Accounts and cn=Changes (number of the last one) beside it
 *   └─ cn=Bind,cn=Operations       monitorOpInitiated; one for each operation that came so far
 *
 * They are made when they are asked for, and are for the services of the installation, not for accounts.
 */
import type { DirectoryStatus } from '#directory/client/status.ts';
import { type Attribute, attribute, type SearchRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { isService } from '../access/access.ts';
import { Refusal } from '../schema/refusal.ts';
import { compileFilter } from './filter-match.ts';
import type { Operation } from './operation.ts';
import { compileSelection } from './selection.ts';
import type { EntryName, Tree } from './tree.ts';

/** Base of these entries. */
export const monitorDn = 'cn=Monitor';

/** Whether a name is theirs. */
export function isMonitorName(tree: Tree, name: EntryName): boolean {
  return name.keys.at(-1) === tree.parseName(monitorDn).keys[0];
}

/** Answers a search at or below `cn=Monitor`. */
export function searchMonitor(tree: Tree, status: DirectoryStatus, startedAt: string, request: SearchRequest, operation: Operation): void {
  if (!isService(operation.who)) throw new Refusal('insufficientAccessRights', `${monitorDn} is for the services of the installation`);
  const baseKey = tree.keyOf(tree.parseName(request.baseDn));
  const entries = monitorEntries(status, startedAt).map((entry) => ({ ...entry, key: tree.keyOf(tree.parseName(entry.dn)) }));
  if (!entries.some(({ key }) => key === baseKey)) {
    throw new Refusal('noSuchObject', 'there is no such entry below cn=Monitor', { matchedDn: monitorDn });
  }
  const matches = compileFilter(tree.schema, request.filter, () => true);
  const selection = compileSelection(tree.schema, request.attributes, request.typesOnly, () => true);
  let sent = 0;
  for (const { dn, key, attributes } of entries) {
    const isBase = key === baseKey;
    const parentKey = key.slice(key.indexOf(',') + 1);
    const isIn =
      request.scope === 'base'
        ? isBase
        : request.scope === 'one'
          ? !isBase && parentKey === baseKey
          : isBase || key.endsWith(`,${baseKey}`);
    if (!isIn || matches(attributes) !== true) continue;
    if (request.sizeLimit > 0 && sent === request.sizeLimit) {
      throw new Refusal('sizeLimitExceeded', `more than ${request.sizeLimit} entries match`);
    }
    operation.send({ type: 'searchResultEntry', dn, attributes: selection.select(attributes) });
    sent += 1;
  }
  operation.send({ type: 'searchResultDone', resultCode: resultCodes.success, matchedDn: '', diagnosticMessage: '' });
}

function monitorEntries(status: DirectoryStatus, startedAt: string): { dn: string; attributes: Attribute[] }[] {
  const entry = (rdns: readonly string[], objectClass: string, ...more: Attribute[]) => ({
    dn: [...rdns.map((name) => `cn=${name}`), monitorDn].join(','),
    attributes: [
      attribute('objectClass', 'monitor', objectClass),
      attribute('structuralObjectClass', objectClass),
      attribute('cn', rdns[0] ?? 'Monitor'),
      ...more,
    ],
  });
  const counter = (name: string, parent: string, count: number) =>
    entry([name, parent], 'monitorCounterObject', attribute('monitorCounter', String(count)));
  const operations = Object.entries(status.operations);
  const total = operations.reduce((sum, [, count]) => sum + count, 0);
  return [
    entry([], 'monitorServer', attribute('monitoredInfo', `Archipelago, ${status.mode}`)),
    entry(['Time'], 'monitorContainer'),
    entry(['Start', 'Time'], 'monitoredObject', attribute('monitorTimestamp', startedAt)),
    entry(['Connections'], 'monitorContainer'),
    counter('Current', 'Connections', status.connections),
    counter('Followers', 'Connections', status.followers),
    entry(['Binds'], 'monitorContainer'),
    counter('Failed', 'Binds', status.binds?.failed ?? 0),
    counter('Refused', 'Binds', status.binds?.refused ?? 0),
    counter('Addresses', 'Binds', status.binds?.addressesRefused ?? 0),
    entry(['Database'], 'monitorContainer', attribute('monitoredInfo', `state ${status.contextCsn}`)),
    counter('Entries', 'Database', status.entries),
    counter('Accounts', 'Database', status.accounts),
    counter('Changes', 'Database', status.lastChangeNumber),
    counter('CacheBytes', 'Database', status.cache?.bytes ?? 0),
    counter('CacheBytesMax', 'Database', status.cache?.bytesMax ?? 0),
    entry(['Operations'], 'monitorOperation', attribute('monitorOpInitiated', String(total))),
    ...operations.map(([name, count]) =>
      entry(
        [`${name.slice(0, 1).toUpperCase()}${name.slice(1)}`, 'Operations'],
        'monitorOperation',
        attribute('monitorOpInitiated', String(count)),
      ),
    ),
  ];
}
