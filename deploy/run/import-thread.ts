/** One thread of an import, see import-threads.ts: blocks of LDIF in, batches of prepared entries out. */
import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { createPasswordHasher } from '#common/passwords/password-hasher.ts';
import { systemRandom } from '#common/random.ts';
import type { SchemaFile } from '#directory/schema/schema-file.ts';
import { createPrepareBlock } from '#directory/tools/prepare-block.ts';
import type { ThreadAnswer } from './import-threads.ts';

const port = parentPort;
if (port === null) throw new Error('import-thread.ts is a thread of an import and no program');
const prepare = createPrepareBlock({
  clock: systemClock,
  random: systemRandom,
  hasher: createPasswordHasher(systemRandom),
  schemaFiles: workerData as SchemaFile[],
});
let before: ArrayBuffer | undefined;
let last: Promise<void> = Promise.resolve();

async function answer(octets: ArrayBuffer): Promise<void> {
  try {
    const batch = await prepare(Buffer.from(octets));
    port?.postMessage({ batch } satisfies ThreadAnswer, [batch.octets.buffer as ArrayBuffer, batch.numbers.buffer as ArrayBuffer]);
  } catch (error) {
    port?.postMessage({ failed: messageOf(error) } satisfies ThreadAnswer);
  }
  // Given back at once, because a thread that makes little garbage is collected seldom; the next block is compared with this one.
  before?.transfer(0);
  before = octets;
}

// One after the other: the answers come in the order of the questions.
port.on('message', (octets: ArrayBuffer) => {
  last = last.then(() => answer(octets));
});
