/**
 * Memory of the replication service, a process of its own, with a master of very many entries. Master and replica are stand-ins that make
 * entries up as they are asked for, so that they take no memory beside it: a first load into an empty replica, and a comparison with a full one.
 *
 *   node bin/run.mjs bench/replication/memory.ts [--entries N]        default 1000000
 */
import { parseArgs } from 'node:util';
import { controlOids, encodeSyncInfo, findControl, makeSyncState } from '#protocol/ldap/controls.ts';
import { readImageBatch } from '#protocol/ldap/image-batch.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { startOwnReplication } from '#test/interop/server-process.ts';
import { csn, done, entryOf, ordinary, page, standIn, uuidOf } from './stand-ins.ts';

const { values } = parseArgs({ options: { entries: { type: 'string' } } });
const entries = Number(values.entries ?? 1_000_000);
const cookie = Buffer.from(`rid=000,csn=${csn},pos=0123456789abcdef.1`);

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
    const { operation } = message;
    if (operation.type === 'extendedRequest') {
      const batch = readImageBatch(operation.value);
      written += batch?.changes.length ?? 0;
      // The state is told when everything has come.
      if (batch?.contextCsn !== undefined) over.resolve();
    }
    if (ordinary(message, send)) return;
    if (isFull && page(message, send, entries, entryOf)) return;
    send({ type: 'searchResultDone', resultCode: resultCodes.noSuchObject, ...done });
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
