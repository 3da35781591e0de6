/**
 * The load, a process of its own: `load.ts JSON`, see `LoadOptions`. Keeps a number of requests outstanding on each of some connections until
 * the time is over, and prints what came of it as a line of JSON. It speaks through our codec's framing and checks every answer. Adds are encoded before
 * the time begins, so that on few cores it is the servers that are measured.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { Secret } from '#common/secret.ts';
import { BerReader, lengthContentStart, lengthIncomplete, readLength } from '#protocol/ldap/ber.ts';
import { encodeMessage } from '#protocol/ldap/encode.ts';
import { attribute, type LdapOperation } from '#protocol/ldap/messages.ts';
import { accountDn, accountFields, adminDn, adminPassword, mailOf, suffix } from './accounts.ts';

/** What to do. */
export interface LoadOptions {
  readonly port: number;
  readonly tls: boolean;
  readonly what: 'search' | 'add';
  readonly connections: number;
  readonly depth: number;
  readonly seconds: number;
  /** Accounts that are there. */
  readonly entries: number;
  /** Makes the names of added accounts new. */
  readonly tag: string;
}

/** What came of it. */
export interface LoadResult {
  readonly done: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Adds that are ready before the time begins, of all connections, for each second; what a server takes beyond that is encoded when it is due. */
const readyPerSecond = 30_000;
const tags = { bindResponse: 0x61, entry: 0x64, searchDone: 0x65, addResponse: 0x69 };
const options = JSON.parse(process.argv[2] ?? '{}') as LoadOptions;
const latencies: number[] = [];
let done = 0;
let added = 0;
let endAt = Number.POSITIVE_INFINITY;
// A fixed sequence of numbers, so that both servers are asked the same.
let state = 12_345;
const nextNumber = (below: number): number => {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((state / 0x1_0000_0000) * below);
};

function request(): LdapOperation {
  if (options.what === 'add') {
    const uid = `${options.tag}${added}`;
    added += 1;
    const attributes = accountFields(uid, added).map(([type, ...values]) => attribute(type, ...values));
    return { type: 'addRequest', dn: accountDn(uid), attributes };
  }
  return {
    type: 'searchRequest',
    baseDn: suffix,
    scope: 'sub',
    derefAliases: 'never',
    sizeLimit: 0,
    timeLimitSeconds: 0,
    typesOnly: false,
    filter: { kind: 'equal', attribute: 'mail', value: Buffer.from(mailOf(nextNumber(options.entries))) },
    attributes: ['hostServer'],
  };
}

class Client {
  readonly #socket: Socket;
  readonly #sentAt = new Map<number, number>();
  #rest: Buffer = Buffer.alloc(0);
  #id = 1;
  #entries = 0;
  #out: Buffer[] = [];
  /** Requests that are ready, from the next one on. */
  #ready: Buffer[] = [];
  #bound: () => void = () => {};
  #drained: () => void = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('close', () => {
      if (this.#sentAt.size > 0) throw new Error('the server closed the connection');
    });
  }

  bind(): Promise<void> {
    const authentication = { method: 'simple', password: new Secret(Buffer.from(adminPassword)) } as const;
    this.#socket.write(
      encodeMessage({ id: 1, operation: { type: 'bindRequest', version: 3, name: adminDn, authentication }, controls: [] }),
    );
    return new Promise((resolve) => {
      this.#bound = resolve;
    });
  }

  /** Encodes the first `count` requests. */
  prepare(count: number): void {
    for (let id = this.#id + 1; id <= this.#id + count; id += 1)
      this.#ready.push(encodeMessage({ id, operation: request(), controls: [] }));
    this.#ready.reverse();
  }

  run(): Promise<void> {
    for (let i = 0; i < options.depth; i += 1) this.#ask();
    this.#flush();
    return new Promise((resolve) => {
      this.#drained = resolve;
    });
  }

  #ask(): void {
    this.#id += 1;
    this.#out.push(this.#ready.pop() ?? encodeMessage({ id: this.#id, operation: request(), controls: [] }));
    this.#sentAt.set(this.#id, performance.now());
  }

  #flush(): void {
    if (this.#out.length > 0) this.#socket.write(Buffer.concat(this.#out));
    this.#out = [];
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const now = performance.now();
    let at = 0;
    while (at < bytes.length) {
      const length = readLength(bytes, at + 1, bytes.length);
      if (length === lengthIncomplete) break;
      const end = lengthContentStart() + length;
      if (end > bytes.length) break;
      this.#answer(bytes.subarray(at, end), now);
      at = end;
    }
    this.#rest = bytes.subarray(at);
    this.#flush();
  }

  #answer(message: Buffer, now: number): void {
    const reader = new BerReader(message);
    reader.enter(0x30);
    const id = reader.integer();
    const tag = reader.peekTag();
    if (tag === tags.entry) {
      this.#entries += 1;
      return;
    }
    reader.enter(tag);
    const code = reader.integer(0x0a);
    if (code !== 0) throw new Error(`request ${id} was answered with result ${code}`);
    if (tag === tags.bindResponse) {
      this.#bound();
      return;
    }
    if (tag !== (options.what === 'add' ? tags.addResponse : tags.searchDone)) throw new Error(`an answer with tag ${tag}`);
    latencies.push(now - (this.#sentAt.get(id) ?? Number.NaN));
    this.#sentAt.delete(id);
    done += 1;
    if (now < endAt) this.#ask();
    else if (this.#sentAt.size === 0) this.#finish();
  }

  #finish(): void {
    this.#socket.end();
    if (options.what === 'search' && this.#entries !== this.#id - 1) {
      throw new Error(`${this.#id - 1} searches gave ${this.#entries} entries`);
    }
    this.#drained();
  }
}

const clients: Client[] = [];
for (let i = 0; i < options.connections; i += 1) {
  const where = { host: '127.0.0.1', port: options.port };
  const socket = options.tls ? connectTls({ ...where, rejectUnauthorized: false }) : connectTcp(where);
  await new Promise((resolve, reject) => socket.once(options.tls ? 'secureConnect' : 'connect', resolve).once('error', reject));
  const client = new Client(socket);
  await client.bind();
  clients.push(client);
}
if (options.what === 'add') {
  for (const client of clients) client.prepare(Math.ceil((readyPerSecond * options.seconds) / options.connections));
}
const beganAt = performance.now();
endAt = beganAt + options.seconds * 1000;
await Promise.all(clients.map((client) => client.run()));
const seconds = (performance.now() - beganAt) / 1000;
latencies.sort((a, b) => a - b);
const percentile = (share: number): number => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
const result: LoadResult = { done, seconds, p50Ms: percentile(0.5), p99Ms: percentile(0.99) };
process.stdout.write(`${JSON.stringify(result)}\n`);
