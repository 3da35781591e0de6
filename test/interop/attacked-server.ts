/** A Directory Server as a process of its own, to be attacked: `attacked-server.ts IDLE-TIMEOUT-MS`. Prints its URL and ends with its standard input. */
import { startTestDirectory } from '../unit/directory/test-directory.ts';

const directory = await startTestDirectory({
  connectionsMax: 20_000,
  idleTimeoutMs: Number(process.argv[2]),
  listeners: [{ address: '127.0.0.1', port: 0, tls: 'none' }],
});
process.stdout.write(`${directory.url}\n`);
process.stdin.resume().once('end', async () => {
  await directory[Symbol.asyncDispose]();
  process.exit(0);
});
