/**
 * What stands behind every proxy under measurement, in a process of its own: an IMAP server that knows the commands of the measurement and
 * takes any password, and nginx's `auth_http`, which sends everybody there. Prints its ports; ends with its standard input.
 */
import { createServer, type Socket } from 'node:net';
import { messageBytes } from './mail-load.ts';

const greeting = '* OK [CAPABILITY IMAP4rev1 LITERAL+ IDLE ID] ready\r\n';
const body = Buffer.concat([
  Buffer.from(`* 1 FETCH (BODY[] {${messageBytes}}\r\n`),
  Buffer.alloc(messageBytes, 'all work and no play makes a dull message\r\n'),
  Buffer.from(')\r\n'),
]);

const imap = createServer({ noDelay: true }, (socket) => {
  let pending = '';
  let literalLeft = 0;
  let afterLiteral = '';
  /** Of a LOGIN whose name or password is yet to come as a literal, as nginx sends them. */
  let loginTag: string | undefined;
  socket.on('error', () => {});
  socket.write(greeting);
  socket.on('data', (chunk: Buffer) => {
    let from = 0;
    if (literalLeft > 0) {
      from = Math.min(literalLeft, chunk.length);
      literalLeft -= from;
      if (literalLeft > 0) return;
      socket.write(`${afterLiteral} OK appended\r\n`);
    }
    pending += chunk.toString('latin1', from);
    for (let end = pending.indexOf('\r\n'); end >= 0; end = pending.indexOf('\r\n')) {
      const line = pending.slice(0, end);
      pending = pending.slice(end + 2);
      // What is left of an APPEND is its end of line.
      if (line === '') continue;
      if (loginTag !== undefined || /^\S+ LOGIN \{\d+\}$/.test(line)) {
        loginTag ??= line.slice(0, line.indexOf(' '));
        if (/\{\d+\}$/.test(line)) {
          socket.write('+ go on\r\n');
        } else {
          answer(socket, `${loginTag} LOGIN`);
          loginTag = undefined;
        }
        continue;
      }
      const literal = /^(\S+) APPEND .*\{(\d+)\+\}$/.exec(line);
      if (literal === null) {
        answer(socket, line);
        continue;
      }
      const here = Buffer.byteLength(pending, 'latin1');
      literalLeft = Math.max(0, Number(literal[2]) - here);
      afterLiteral = literal[1] as string;
      pending = pending.slice(Number(literal[2]));
      if (literalLeft === 0) socket.write(`${afterLiteral} OK appended\r\n`);
    }
  });
});

function answer(socket: Socket, line: string): void {
  const [tag, command = ''] = line.split(' ', 2) as [string, string?];
  switch (command.toUpperCase()) {
    case 'LOGIN':
    case 'AUTHENTICATE':
      socket.write(`${tag} OK [CAPABILITY IMAP4rev1 LITERAL+ IDLE ID] logged in\r\n`);
      return;
    case 'CAPABILITY':
      socket.write(`* CAPABILITY IMAP4rev1 LITERAL+ IDLE ID\r\n${tag} OK done\r\n`);
      return;
    case 'ID':
      socket.write(`* ID NIL\r\n${tag} OK done\r\n`);
      return;
    case 'FETCH':
      socket.write(body);
      socket.write(`${tag} OK done\r\n`);
      return;
    case 'LOGOUT':
      socket.end(`* BYE\r\n${tag} OK bye\r\n`);
      return;
    default:
      socket.write(`${tag} OK done\r\n`);
  }
}

const auth = createServer({ noDelay: true }, (socket) => {
  let pending = '';
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    pending += chunk.toString('latin1');
    if (!pending.includes('\r\n\r\n')) return;
    pending = '';
    const { port } = imap.address() as { port: number };
    socket.end(
      `HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: ${port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
    );
  });
});

imap.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () =>
  auth.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    const portOf = (server: typeof imap): number => (server.address() as { port: number }).port;
    process.stdout.write(`${JSON.stringify({ imap: portOf(imap), auth: portOf(auth) })}\n`);
  }),
);
process.stdin.resume().once('end', () => process.exit(0));
