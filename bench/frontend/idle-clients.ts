/**
 * IMAP clients that log in, select INBOX and idle: a process of its own, because one has descriptors for so many. Prints `idle` once all do, and
 * `lost N` whenever connections have been closed. Ends with its standard input.
 */
import { connect } from 'node:net';

const [given = ''] = process.argv.slice(2);
const { frontends, accounts, from, count } = JSON.parse(given) as {
  readonly frontends: readonly string[];
  readonly accounts: readonly { readonly name: string; readonly password: string }[];
  readonly from: number;
  readonly count: number;
};
const atATime = 50;
let lost = 0;

/** Resolves once the client idles. */
function idle(number: number): Promise<void> {
  const account = accounts[number % accounts.length] as (typeof accounts)[number];
  const [host = '', port] = (frontends[number % frontends.length] as string).split(':');
  // One loopback address for 64 clients: a frontend takes a hundred of one address.
  const socket = connect({ host, port: Number(port), localAddress: `127.0.${1 + (number >> 6)}.${1 + (number & 63)}` });
  const said = [
    { after: 'ready', say: `a LOGIN ${account.name} ${account.password}\r\n` },
    { after: 'a OK', say: 'b SELECT INBOX\r\nc IDLE\r\n' },
  ];
  return new Promise((resolve, reject) => {
    let heard = '';
    let failure: Error | undefined;
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      lost += 1;
      process.stdout.write(`lost ${lost}\n`);
      reject(new Error(`client ${number} was closed after "${heard}"`, { cause: failure }));
    });
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('latin1');
      const next = said[0];
      if (next !== undefined && heard.includes(next.after)) {
        said.shift();
        heard = '';
        socket.write(next.say);
      } else if (next === undefined && heard.includes('+ idling')) {
        heard = '';
        resolve();
      }
    });
  });
}

process.stdin.resume().once('end', () => process.exit(0));
for (let at = 0; at < count; at += atATime) {
  await Promise.all(Array.from({ length: Math.min(atATime, count - at) }, (_, i) => idle(from + at + i)));
}
process.stdout.write('idle\n');
