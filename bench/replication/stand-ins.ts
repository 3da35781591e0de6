/** Directory servers that make their entries up as they are asked for: a million of them take no memory beside the service that is measured. */
import { createServer, type Server, type Socket } from 'node:net';
import { Secret } from '#common/secret.ts';
import { controlOids, findControl, makePagedResults, readPagedResults } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import { encodeImageResult, imageBatchOid, readImageBatch } from '#protocol/ldap/image-batch.ts';
import { attribute, type Control, type LdapMessage, type LdapOperation, type SearchResultEntry } from '#protocol/ldap/messages.ts';

/** What every result ends with. */
export const done = { matchedDn: '', diagnosticMessage: '' };
/** CSN of all that is made up. */
export const csn = '20261127120000.000000Z#000000#000#000000';
const names = ['o=mail', 'cn=isp.example,o=mail'];

/** UUID of an entry by its number, spread as random ones are. */
export function uuidOf(number: number): string {
  const mixed = (Math.imul(number, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0');
  return `${mixed}-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;
}

/** The entry of that number; `mark` makes its content another. */
export function entryOf(number: number, mark = ''): SearchResultEntry {
  const uid = `user${number}`;
  return {
    type: 'searchResultEntry',
    dn: names[number] ?? `uid=${uid},cn=isp.example,o=mail`,
    attributes: [
      attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount'),
      attribute('uid', uid),
      attribute('cn', `User ${uid}`),
      attribute('sn', uid),
      attribute('mail', `${uid}${mark}@isp.example`),
      attribute('userPassword', '{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=='),
      attribute('entryUUID', uuidOf(number)),
      attribute('entryCSN', csn),
    ],
  };
}

/** Sends an operation to whoever asked; false when it should wait for `drain`. */
export type Send = (operation: LdapOperation, controls?: Control[]) => boolean;

/** A server that answers by `answer`. */
export async function standIn(answer: (message: LdapMessage, send: Send, socket: Socket) => Promise<void>) {
  const server: Server = createServer({ noDelay: true }, (socket) => {
    const decoder = new LdapDecoder({ messageBytesMax: 16_777_216 });
    let queue = Promise.resolve();
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      decoder.push(chunk);
      for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) {
        const { message } = next;
        const send: Send = (operation, controls = []) => socket.write(encodeMessage({ id: message.id, operation, controls }));
        queue = queue.then(() => answer(message, send, socket));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return { url: `ldap://127.0.0.1:${port}`, rootDn: 'cn=root', rootPassword: new Secret('secret'), close: () => server.close() };
}

/** Answers what any directory server is asked, and takes entries in batches; false when it was something else. */
export function ordinary({ operation }: LdapMessage, send: Send): boolean {
  if (operation.type === 'bindRequest') send({ type: 'bindResponse', resultCode: 0, ...done });
  else if (operation.type === 'searchRequest' && operation.baseDn === '' && operation.scope === 'base') {
    send({
      type: 'searchResultEntry',
      dn: '',
      attributes: [attribute('supportedControl', controlOids.assertion), attribute('supportedExtension', imageBatchOid)],
    });
    send({ type: 'searchResultDone', resultCode: 0, ...done });
  } else if (operation.type === 'addRequest') send({ type: 'addResponse', resultCode: 0, ...done });
  else if (operation.type === 'modifyRequest') send({ type: 'modifyResponse', resultCode: 0, ...done });
  else if (operation.type === 'extendedRequest') {
    const added = readImageBatch(operation.value)?.changes.length ?? 0;
    const counts = { added, modified: 0, renamed: 0, deleted: 0, remarks: [] };
    send({ type: 'extendedResponse', resultCode: 0, ...done, value: encodeImageResult(counts) });
  } else return operation.type === 'unbindRequest' || operation.type === 'abandonRequest';
  return true;
}

/** Answers a page of a search for everything; false when it was something else. An entry that is `undefined` is not there. */
export function page(
  { controls }: LdapMessage,
  send: Send,
  entries: number,
  entry: (number: number) => SearchResultEntry | undefined,
): boolean {
  const paged = readPagedResults(findControl(controls, controlOids.pagedResults)?.value);
  if (paged === undefined) return false;
  const from = Number(Buffer.from(paged.cookie).toString() || 0);
  const until = Math.min(entries, from + paged.size);
  for (let i = from; i < until; i += 1) {
    const found = entry(i);
    if (found !== undefined) send(found);
  }
  const next = until === entries ? Buffer.alloc(0) : Buffer.from(String(until));
  send({ type: 'searchResultDone', resultCode: 0, ...done }, [makePagedResults({ size: 0, cookie: next })]);
  return true;
}

/** Numbers of the entries whose UUIDs a filter names. */
export function namedIn(filter: Filter): number[] {
  if (filter.kind === 'and' || filter.kind === 'or') return [...new Set(filter.filters.flatMap(namedIn))];
  if (filter.kind !== 'equal') return [];
  const match = /-([0-9a-f]{12})$/.exec(filter.value.toString());
  return match === null ? [] : [Number.parseInt(match[1] as string, 16)];
}
