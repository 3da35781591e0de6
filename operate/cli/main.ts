/** Entry of the `archipelago` command: the real terminal, and nothing else. */
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline/promises';
import { holdProcess, systemClock } from '#common/clock.ts';
import { runCli } from './program.ts';
import type { Terminal } from './terminal.ts';

const inputBytesMax = 65_536;

const terminal: Terminal = {
  env: process.env,
  clock: systemClock,
  isTerminal: process.stdout.isTTY,
  isInteractive: process.stdin.isTTY && process.stderr.isTTY,
  out: (text) => process.stdout.write(text),
  async flushed() {
    const { stdout } = process;
    if (stdout.writableNeedDrain && !stdout.destroyed) {
      await new Promise<void>((resolve) => {
        const events = ['drain', 'close', 'error'];
        const done = (): void => {
          for (const event of events) stdout.off(event, done);
          resolve();
        };
        for (const event of events) stdout.on(event, done);
      });
    }
    return stdout.errored === null && !stdout.destroyed;
  },
  err: (text) => process.stderr.write(text),
  async readInput() {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
      bytes += chunk.byteLength;
      if (bytes > inputBytesMax) throw new RangeError(`standard input has more than ${inputBytesMax} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
  },
  async ask(question) {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return await lines.question(question);
    } finally {
      lines.close();
    }
  },
  readFile: (path) => readFile(path, 'utf8'),
};

// A reader such as head may stop early; that is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});
// A verb may wait for nothing but a timer of the product, and those do not keep the process alive.
const hold = holdProcess();
process.exitCode = await runCli(process.argv.slice(2), terminal);
hold.cancel();
