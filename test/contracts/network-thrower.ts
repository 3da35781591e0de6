/**
 * A process in which handlers of some connections throw, and which lives on (`uncaughtException`). Prints how many connections got their answer
 * all the same and what was thrown. The arguments name the implementation and say whether TLS is spoken.
 */
import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { systemClock } from '#common/clock.ts';
import type { Network } from '#common/network/network.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { networks } from './network-table.ts';

const network = networks[process.argv[2] ?? ''] as Network;
const isSecure = process.argv[3] === 'under TLS';
const thrown = { accept: 0, data: 0, end: 0, close: 0, drain: 0 };
class Thrown extends Error {
  readonly where: keyof typeof thrown;
  constructor(where: keyof typeof thrown) {
    super(where);
    this.where = where;
  }
}
process.on('uncaughtException', (error) => {
  if (!(error instanceof Thrown)) throw error;
  thrown[error.where] += 1;
});
const fail = (where: keyof typeof thrown): never => {
  throw new Thrown(where);
};

async function identity(): Promise<{ cert: string; key: string }> {
  const { certificate, key } = await (await createThrowawayCa(systemClock, systemRandom)).issue(['localhost']);
  return { cert: certificate, key };
}

let accepted = 0;
const listener = await network.listen(isSecure ? { tls: await identity() } : {}, (connection) => {
  accepted += 1;
  // The last but one, and the last.
  if (accepted === 32) {
    connection.handle({ data: () => {}, close: () => {} });
    fail('accept');
  }
  if (accepted === 31) {
    connection.handle({ data: () => {}, drain: () => fail('drain'), close: () => {} });
    connection.write(Buffer.alloc(33_554_432));
    return;
  }
  // Two of three answer as they should.
  if (accepted > 10) {
    connection.handle({ data: (chunk) => connection.write(chunk), end: () => connection.end(), close: () => {} });
    return;
  }
  connection.handle({
    data: () => fail('data'),
    end: () => {
      connection.end();
      fail('end');
    },
    close: () => fail('close'),
  });
});

function connect(ready = (): void => {}): Socket {
  const target = { port: listener.port, host: '127.0.0.1', allowHalfOpen: true };
  return isSecure ? connectTls({ ...target, rejectUnauthorized: false }, ready) : connectPlain(target, ready);
}

/** Connects, says a word and ends; resolves with what came back. */
function ask(): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(() => socket.end('word'));
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

const answers = await Promise.all(Array.from({ length: 30 }, ask));
const reader = connect();
let read = 0;
await new Promise<void>((resolve) => {
  reader.on('data', (chunk) => {
    read += chunk.length;
    if (read === 33_554_432) resolve();
  });
});
while (thrown.drain === 0) await new Promise(setImmediate);
connect().on('error', () => {});
while (thrown.accept === 0) await new Promise(setImmediate);
const answered = answers.filter((answer) => answer === 'word').length;
process.stdout.write(JSON.stringify({ answered, thrown }), () => process.exit(0));
