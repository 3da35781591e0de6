/**
 * A Directory Server in a process of its own under mutated traffic and under load, while an innocent client is served and the server's memory
 * is watched. Short here; by hand longer and larger: FUZZ_SECONDS=600 FUZZ_SEED=7 IDLE_CONNECTIONS=10000
 * UNREAD_CLIENTS=40 BIND_CONNECTIONS=64.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import { Secret } from '#common/secret.ts';
import { LdapConnection } from '#directory/client/ldap-connection.ts';
import { LdapDecoder } from '#protocol/ldap/decoder.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { filterFromText } from '#protocol/ldap/filter.ts';
import { attribute, type LdapRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { accountDn, accountEntry, addFrame, identityDn, servicePassword } from '../unit/directory/test-directory.ts';
import { run } from './run-tool.ts';

const fuzzSeconds = Number(process.env.FUZZ_SECONDS ?? 4);
const fuzzSeed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const unreadClients = Number(process.env.UNREAD_CLIENTS ?? 12);
const bindConnections = Number(process.env.BIND_CONNECTIONS ?? 16);
const idleConnections = Number(process.env.IDLE_CONNECTIONS ?? 2000);
/** An innocent client's answer may take so long on a busy machine, milliseconds. */
const patienceMs = 15_000;
/** What the server's memory may grow by under attack, MiB. */
const growthMax = 256;
const idleTimeoutMs = 3000;

let child: ChildProcess;
let url: string;
let errors = '';

beforeAll(async () => {
  child = spawn(process.execPath, [new URL('./attacked-server.ts', import.meta.url).pathname, String(idleTimeoutMs)]);
  child.stderr?.on('data', (chunk: Buffer) => {
    errors = `${errors}${chunk}`.slice(-4000);
  });
  url = await new Promise<string>((resolve, reject) => {
    child.stdout?.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()));
    child.once('exit', () => reject(new Error(`the server ended at once: ${errors}`)));
  });
  await using admin = await bound();
  await addFrame(admin);
  for (let i = 0; i < 50; i += 1) {
    await admin.add(
      accountDn(`user${i}`),
      accountEntry(`user${i}`, attribute('userPassword', 'secret'), attribute('description', 'x'.repeat(20_000))),
    );
  }
}, 60_000);
afterAll(async () => {
  child?.stdin?.end();
});

async function bound(): Promise<LdapConnection> {
  const connection = await LdapConnection.open(systemNetwork, systemClock, { url, timeoutMs: 30_000 });
  await connection.bind(identityDn('admin'), new Secret(servicePassword));
  return connection;
}

function open(): Socket {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.on('error', () => {});
  return socket;
}

/** Memory of the server's process, MiB. */
function residentMiB(): number {
  const pages = Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]);
  return pages / 1024;
}

const until = async (holds: () => boolean, what: string, limitMs = 30_000): Promise<void> => {
  await expect.poll(holds, { timeout: limitMs, interval: 20, message: what }).toBe(true);
};

/** Searches one account after the other until told to stop; the times they took, milliseconds. */
function innocent() {
  const times: number[] = [];
  let isStopped = false;
  const working = (async () => {
    await using connection = await bound();
    for (let i = 0; !isStopped; i += 1) {
      const before = performance.now();
      const found = await connection.searchAll(
        { baseDn: 'o=mail', filter: filterFromText(`(uid=user${i % 50})`), attributes: ['mail'] },
        2,
      );
      expect(found.map(({ dn }) => dn)).toEqual([accountDn(`user${i % 50}`)]);
      times.push(performance.now() - before);
    }
  })();
  return {
    async stop(): Promise<{ count: number; p50: number; p99: number; max: number }> {
      isStopped = true;
      await working;
      const sorted = times.sort((a, b) => a - b);
      const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
      return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
    },
  };
}

function report(what: string, served: { count: number; p50: number; p99: number; max: number }, grown: number): void {
  const ms = (value: number): string => value.toFixed(1);
  process.stdout.write(
    `${what}: innocent searches ${served.count}, p50 ${ms(served.p50)} ms, p99 ${ms(served.p99)} ms, max ${ms(served.max)} ms; memory ${grown >= 0 ? '+' : ''}${grown.toFixed(0)} MiB\n`,
  );
}

/** Runs an attack beside an innocent client, and expects the server to stand. */
async function whileServed(what: string, attack: () => Promise<void>): Promise<void> {
  const before = residentMiB();
  const client = innocent();
  try {
    await attack();
  } finally {
    const served = await client.stop();
    report(what, served, residentMiB() - before);
    expect(served.count).toBeGreaterThan(0);
    expect(served.max).toBeLessThan(patienceMs);
  }
  expect(child.exitCode, errors).toBeNull();
  expect(residentMiB() - before).toBeLessThan(growthMax);
}

// mulberry32: a seed printed once repeats the run.
function chance(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** What OpenLDAP's tools send, taken from the wire: every operation, with the controls they know. */
async function capture(): Promise<Buffer[]> {
  const streams: Buffer[][] = [];
  const tap = createServer((client) => {
    const chunks: Buffer[] = [];
    streams.push(chunks);
    const server = open();
    client.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      server.write(chunk);
    });
    server.on('data', (chunk: Buffer) => client.write(chunk));
    client.on('error', () => {});
    client.on('close', () => server.destroy());
    server.on('close', () => client.destroy());
  });
  await new Promise<void>((resolve) => tap.listen(0, '127.0.0.1', resolve));
  const { port } = tap.address() as { port: number };
  const base = 'cn=isp.example,o=mail';
  const as = ['-x', '-H', `ldap://127.0.0.1:${port}`, '-D', identityDn('admin'), '-w', servicePassword];
  const entry = `dn: uid=tap,${base}\nobjectClass: inetOrgPerson\nobjectClass: mailAccount\nuid: tap\ncn: t\nsn: t\n`;
  const commands: readonly (readonly [string, readonly string[], string?])[] = [
    ['ldapadd', ['-e', 'postread=*'], entry],
    [
      'ldapmodify',
      ['-e', '!assert=(uid=tap)', '-e', 'preread=cn'],
      `dn: uid=tap,${base}\nchangetype: modify\nreplace: cn\ncn: u\n-\nadd: description\ndescription: v\n`,
    ],
    [
      'ldapsearch',
      [
        '-b',
        base,
        '-E',
        'pr=10/noprompt',
        '-E',
        'sss=uid',
        '(&(objectClass=*)(|(uid=t*a*p)(!(cn>=a)))(cn:dn:caseIgnoreMatch:=x))',
        '*',
        '+',
      ],
    ],
    ['ldapsearch', ['-b', base, '-E', '!sync=ro', '(uid=tap)']],
    ['ldapsearch', ['-b', '', '-s', 'base', '+']],
    ['ldapcompare', [`uid=tap,${base}`, 'cn:u']],
    ['ldappasswd', ['-s', 'neu', `uid=tap,${base}`]],
    ['ldapwhoami', ['-e', `!authzid=dn:${accountDn('user1')}`]],
    ['ldapexop', ['cancel', '7']],
    ['ldapmodrdn', ['-r', `uid=tap,${base}`, 'uid=tapped']],
    ['ldapdelete', ['-e', '!1.2.840.113556.1.4.805', `uid=tapped,${base}`]],
  ];
  try {
    for (const [program, args, stdin] of commands) await run(program, [...as, ...args], stdin === undefined ? {} : { stdin });
  } finally {
    tap.close();
  }
  return streams.map((chunks) => Buffer.concat(chunks)).filter((bytes) => bytes.length > 0);
}

/** One stream changed in one to four places: bytes, lengths, pieces left out, doubled, or taken from another stream. */
function mutated(streams: readonly Buffer[], below: (n: number) => number): Buffer {
  let bytes = Buffer.from(streams[below(streams.length)] as Buffer);
  for (let left = 1 + below(4); left > 0 && bytes.length > 0; left -= 1) {
    const at = below(bytes.length);
    const length = 1 + below(Math.min(40, bytes.length - at));
    switch (below(6)) {
      case 0:
        bytes[at] = below(256);
        break;
      case 1:
        // A byte that is often a tag or a length.
        bytes[at] = [0x30, 0x80, 0x84, 0xff, 0x04, 0x02, 0x00, 0x7f, 0xa0][below(9)] as number;
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
        break;
      case 4: {
        const other = streams[below(streams.length)] as Buffer;
        const from = below(other.length);
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + length), bytes.subarray(at)]);
        break;
      }
      default:
        bytes[at] = (bytes[at] as number) ^ (1 << below(8));
    }
  }
  return bytes;
}

const searchAll: LdapRequest = {
  type: 'searchRequest',
  baseDn: 'o=mail',
  scope: 'sub',
  derefAliases: 'never',
  sizeLimit: 0,
  timeLimitSeconds: 0,
  typesOnly: false,
  filter: filterFromText('(objectClass=*)'),
  attributes: [],
};
const bindAs = (name: string, password: string): LdapRequest => ({
  type: 'bindRequest',
  version: 3,
  name,
  authentication: { method: 'simple', password: new Secret(Buffer.from(password)) },
});
const bytesOf = (id: number, operation: LdapRequest): Buffer => encodeMessage({ id, operation, controls: [] });

describe('load', () => {
  const sockets: Socket[] = [];
  const closeAll = async (): Promise<void> => {
    for (const socket of sockets.splice(0)) socket.destroy();
  };

  test(`of ${idleConnections} connections that do nothing slows nobody, and they are closed after the idle time`, async () => {
    let opened = 0;
    let closed = 0;
    await whileServed(`${idleConnections} idle connections`, async () => {
      for (let i = 0; i < idleConnections; i += 1) {
        const socket = open();
        socket.resume();
        socket.once('connect', () => {
          opened += 1;
        });
        socket.once('close', () => {
          closed += 1;
        });
        sockets.push(socket);
        if (i % 100 === 99) await until(() => opened + closed > i - 200, 'connections are accepted');
      }
      await until(() => opened === idleConnections, 'all are open');
      // Some begin a message and never end it: they are as idle as the others.
      for (const socket of sockets.slice(0, 100)) socket.write(Buffer.from([0x30, 0x84, 0x00, 0x00, 0x10, 0x00, 0x02]));
      await until(() => closed === idleConnections, 'all are closed as idle', 60_000);
    });
    await closeAll();
  }, 150_000);

  test('of clients that ask for everything and read nothing is bounded for each', async () => {
    await whileServed(`${unreadClients} clients that do not read`, async () => {
      for (let i = 0; i < unreadClients; i += 1) {
        const socket = open();
        sockets.push(socket);
        socket.pause();
        socket.write(bytesOf(1, bindAs(identityDn('admin'), servicePassword)));
        // 300 searches of 1 MB each: 3.6 GB, if they were answered.
        for (let id = 2; id < 302; id += 1) socket.write(bytesOf(id, searchAll));
      }
      await until(() => sockets.every((socket) => socket.bytesWritten > 10_000), 'all is sent');
      await using other = await bound();
      for (let i = 0; i < 200; i += 1) await other.readEntry('o=mail', ['o']);
    });
    await closeAll();
  }, 60_000);

  test('of binds with passwords to verify does not stop searches, and what is too much is refused as busy', async () => {
    const seen = new Map<number, number>();
    let answered = 0;
    await whileServed(`a storm of binds on ${bindConnections} connections`, async () => {
      const endMs = performance.now() + 3000;
      for (let i = 0; i < bindConnections; i += 1) {
        const socket = open();
        const decoder = new LdapDecoder({ messageBytesMax: 65_536 });
        let id = 1;
        sockets.push(socket);
        socket.on('data', (chunk: Buffer) => {
          decoder.push(chunk);
          for (let next = decoder.next(); next.outcome === 'message'; next = decoder.next()) {
            const { operation } = next.message;
            // Beside these comes the notice that a connection was idle, when this process was slow.
            if (operation.type !== 'bindResponse') continue;
            const code = operation.resultCode;
            seen.set(code, (seen.get(code) ?? 0) + 1);
            answered += 1;
            id += 1;
            if (performance.now() < endMs) socket.write(bytesOf(id, bindAs(accountDn(`user${answered % 50}`), 'secret')));
            else socket.end();
          }
        });
        socket.write(bytesOf(1, bindAs(accountDn(`user${i % 50}`), 'secret')));
      }
      await until(() => sockets.every((socket) => socket.destroyed), 'all binds are answered', 90_000);
    });
    process.stdout.write(`binds by result code: ${JSON.stringify(Object.fromEntries(seen))}\n`);
    expect([...seen.keys()].filter((code) => code !== resultCodes.success && code !== resultCodes.busy)).toEqual([]);
    expect(seen.get(resultCodes.success)).toBeGreaterThan(0);
    await closeAll();
  }, 120_000);

  test('of a filter 12,000 deep, of lengths without an end and of 64 kB before a bind ends that connection only', async () => {
    let filter: Buffer = Buffer.from([0x87, 0x02, 0x63, 0x6e]);
    const wrap = (tag: number, content: Buffer): Buffer =>
      Buffer.concat([Buffer.from([tag, 0x83, content.length >> 16, (content.length >> 8) & 255, content.length & 255]), content]);
    for (let i = 0; i < 12_000; i += 1) filter = wrap(0xa2, filter);
    const search = wrap(
      0x63,
      Buffer.concat([Buffer.from('04000a01020a0100020100020100010100', 'hex'), filter, Buffer.from('3000', 'hex')]),
    );
    const deep = wrap(0x30, Buffer.concat([Buffer.from('020102', 'hex'), search]));
    let closed = 0;
    await whileServed('hostile shapes', async () => {
      for (const bytes of [
        Buffer.concat([bytesOf(1, bindAs(identityDn('admin'), servicePassword)), deep]),
        deep,
        Buffer.from('3080020101420000', 'hex'),
        Buffer.concat([Buffer.from([0x30, 0x83, 0x01, 0x00, 0x01]), Buffer.alloc(65_537)]),
      ]) {
        const socket = open();
        socket.resume();
        socket.once('close', () => {
          closed += 1;
        });
        socket.write(bytes);
        sockets.push(socket);
      }
      await until(() => closed === 4, 'each is closed', 20_000);
    });
  }, 60_000);
});

// Last: mutated binds fail, and an address with many failures is held off for a while.
describe('mutated traffic', () => {
  test(
    `of OpenLDAP's tools leaves the server standing and others served (FUZZ_SEED=${fuzzSeed})`,
    async () => {
      const streams = await capture();
      expect(streams.length).toBe(11);
      const below = chance(fuzzSeed);
      const endMs = performance.now() + fuzzSeconds * 1000;
      let sent = 0;
      const one = async (): Promise<void> => {
        const bytes = mutated(streams, below);
        const socket = open();
        const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
        socket.resume();
        for (let from = 0; from < bytes.length; ) {
          const to = below(3) === 0 ? from + 1 + below(bytes.length - from) : bytes.length;
          socket.write(bytes.subarray(from, to));
          from = to;
        }
        socket.end();
        sent += 1;
        await closed;
      };
      await whileServed(`fuzz, seed ${fuzzSeed}, ${fuzzSeconds} s`, async () => {
        const lane = async (): Promise<void> => {
          while (performance.now() < endMs) await one();
        };
        await Promise.all([lane(), lane(), lane(), lane()]);
      });
      process.stdout.write(`${sent} mutated connections\n`);
      expect(sent).toBeGreaterThan(20);
    },
    (fuzzSeconds + 60) * 1000,
  );
});
