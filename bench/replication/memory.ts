/**
 * Memory of the replication service, a process of its own, with a master of very many entries. Master and replica are stand-ins that make
 * entries up as they are asked for, so that they take no memory beside it: a first load into an empty replica, and a comparison with a full one.
 *
 *   node bin/run.mjs bench/replication/memory.ts [--entries N]        default 1000000
 */
import { createServer, type Server, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { Secret } from '#common/secret.ts';
import { controlOids, encodeSyncInfo, findControl, makePagedResults, makeSyncState, readPagedResults } from '#protocol/ldap/controls.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { encodeImageResult, imageBatchOid, readImageBatch } from '#protocol/ldap/image-batch.ts';
import { attribute, type Control, type LdapMessage, type LdapOperation, type SearchResultEntry } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { startOwnReplication } from '#test/interop/server-process.ts';

const { values } = parseArgs({ options: { entries: { type: 'string' } } });
const entries = Number(values.entries ?? 1_000_000);
const done = { matchedDn: '', diagnosticMessage: '' };
const csn = '20261127120000.000000Z#000000#000#000000';
const cookie = Buffer.from(`rid=000,csn=${csn},pos=0123456789abcdef.1`);
const names = ['o=mail', 'cn=isp.example,o=mail'];

function uuidOf(number: number): string {
  // Spread as random ones are.
  const mixed = (Math.imul(number, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0');
  return `${mixed}-0000-4000-8000-${number.toString(16).padStart(12, '0')}`;
}

function entryOf(number: number): SearchResultEntry {
  const uid = `user${number}`;
  return {
    type: 'searchResultEntry',
    dn: names[number] ?? `uid=${uid},cn=isp.example,o=mail`,
    attributes: [
      attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount'),
      attribute('uid', uid),
      attribute('cn', `User ${uid}`),
      attribute('sn', uid),
      attribute('mail', `${uid}@isp.example`),
      attribute('userPassword', '{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=='),
      attribute('entryUUID', uuidOf(number)),
      attribute('entryCSN', csn),
    ],
  };
}

/** A server that answers by `answer`. */
async function standIn(
  answer: (message: LdapMessage, send: (operation: LdapOperation, controls?: Control[]) => boolean, socket: Socket) => Promise<void>,
) {
  const server: Server = createServer({ noDelay: true }, (socket) => {
    const decoder = new LdapDecoder({ messageBytesMax: 16_777_216 });
    let queue = Promise.resolve();
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      decoder.push(chunk);
      for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) {
        const { message } = next;
        const send = (operation: LdapOperation, controls: Control[] = []): boolean =>
          socket.write(encodeMessage({ id: message.id, operation, controls }));
        queue = queue.then(() => answer(message, send, socket));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return { url: `ldap://127.0.0.1:${port}`, rootDn: 'cn=root', rootPassword: new Secret('secret'), close: () => server.close() };
}

/** Answers what any directory server is asked; false when it was something else. */
function ordinary({ operation }: LdapMessage, send: (operation: LdapOperation) => boolean): boolean {
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
  else return operation.type === 'unbindRequest' || operation.type === 'abandonRequest';
  return true;
}

async function measure(title: string, isFull: boolean): Promise<void> {
  let written = 0;
  const over = Promise.withResolvers<void>();
  const master = await standIn(async (message, send, socket) => {
    if (ordinary(message, send)) return;
    if (findControl(message.controls, controlOids.syncRequest) === undefined) {
      send({ type: 'searchResultDone', resultCode: resultCodes.noSuchObject, ...done });
      return;
    }
    for (let i = 0; i < entries; i += 1) {
      const hasRoom = send(entryOf(i), [makeSyncState({ state: 'add', uuid: uuidOf(i), cookie: undefined })]);
      if (!hasRoom) await new Promise((resolve) => socket.once('drain', resolve));
    }
    const info = encodeSyncInfo({ kind: 'refreshPresent', cookie, refreshDone: true });
    send({ type: 'intermediateResponse', oid: controlOids.syncInfo, value: info });
  });
  const replica = await standIn(async (message, send) => {
    if (ordinary(message, send)) return;
    const { operation } = message;
    if (operation.type === 'extendedRequest') {
      const batch = readImageBatch(operation.value);
      written += batch?.changes.length ?? 0;
      const counts = { added: batch?.changes.length ?? 0, modified: 0, renamed: 0, deleted: 0, remarks: [] };
      send({ type: 'extendedResponse', resultCode: 0, ...done, value: encodeImageResult(counts) });
      // The state is told when everything has come.
      if (batch?.contextCsn !== undefined) over.resolve();
      return;
    }
    const paged = readPagedResults(findControl(message.controls, controlOids.pagedResults)?.value);
    if (!isFull || paged === undefined) {
      send({ type: 'searchResultDone', resultCode: resultCodes.noSuchObject, ...done });
      return;
    }
    const from = Number(Buffer.from(paged.cookie).toString() || 0);
    const until = Math.min(entries, from + paged.size);
    for (let i = from; i < until; i += 1) send(entryOf(i));
    const next = until === entries ? Buffer.alloc(0) : Buffer.from(String(until));
    send({ type: 'searchResultDone', resultCode: 0, ...done }, [makePagedResults({ size: 0, cookie: next })]);
  });
  const startedMs = performance.now();
  await using service = await startOwnReplication(master, { 'ldap-eu': replica });
  let highestMb = 0;
  let isOver = false;
  void over.promise.then(() => {
    isOver = true;
  });
  while (!isOver) {
    highestMb = Math.max(highestMb, await service.memoryMb());
    await new Promise((wake) => setTimeout(wake, 200));
  }
  const seconds = (performance.now() - startedMs) / 1000;
  process.stdout.write(
    `${title}: ${entries} entries, ${written} written, ${seconds.toFixed(1)} s; the service takes ${highestMb.toFixed(0)} MB at most, ${(await service.memoryMb()).toFixed(0)} MB afterwards\n`,
  );
  master.close();
  replica.close();
}

await measure('first load into an empty replica', false);
await measure('comparison with a replica that has everything', true);
process.exit(0);
