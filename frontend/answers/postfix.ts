/**
 * Postfix asks where an address is: by tcp_table(5), a line each way, or by socketmap_table(5), a netstring each way.
 *
 *   get alice%40isp.example        → 200 lmtp:inet:[192.0.2.11]:24
 *   24:transport alice@isp.example, → 52:OK lmtp:inet:[192.0.2.11]:24,
 *
 * For `transport_maps` and `virtual_mailbox_maps`. An address of nobody is `500` or `NOTFOUND`, what cannot be known now `400` or `TEMP`: Postfix then
 * keeps the mail. Requests of one connection are answered in order; one of more than `requestBytesMax`, or malformed, ends it.
 */
import type { Clock } from '#common/clock.ts';
import { addressList } from '#common/network/address-list.ts';
import type { Connection, Listener, Network } from '#common/network/network.ts';
import type { FrontendListener } from '#frontend/config.ts';
import { limitsOf } from '#frontend/subset/settings.ts';
import type { Destination, Destinations } from './destinations.ts';

/** tcp_table(5): requests and answers of up to 4096 characters. */
const requestBytesMax = 4096;
const silentMaxMs = 600_000;

/** One request found at the start of what has come: the key, where the next begins, and how to answer it. */
interface Request {
  readonly key: string;
  readonly next: number;
  answer(destination: Destination): string;
}

/** Takes the first request; `undefined` when it is not whole yet, `malformed` when it never will be. */
type Parse = (bytes: Buffer) => Request | 'malformed' | undefined;

/** Opens the port. Rejects when it cannot be bound. */
export function startPostfixTable(
  listener: FrontendListener,
  { network, clock }: { readonly network: Network; readonly clock: Clock },
  destinations: Destinations,
): Promise<Listener> {
  const parse = listener.protocol === 'socketmap' ? parseSocketmap : parseTcpTable;
  const mayAsk = addressList(listener.allowFrom ?? ['127.0.0.0/8', '::1']);
  const { connectionsMax } = limitsOf(listener);
  let connections = 0;
  return network.listen({ host: listener.address, port: listener.port }, (connection) => {
    if (!mayAsk(connection.remoteAddress) || connections >= connectionsMax) {
      connection.handle({ data: () => {}, close: () => {} });
      connection.destroy();
      return;
    }
    connections += 1;
    serve(connection, clock, parse, destinations, () => {
      connections -= 1;
    });
  });
}

function serve(connection: Connection, clock: Clock, parse: Parse, destinations: Destinations, closed: () => void): void {
  let pending: Buffer = Buffer.alloc(0);
  let isBusy = false;
  let isOver = false;
  let isClosed = false;
  /** Called when what was answered has gone, or nobody will read it. */
  let goOn = (): void => {};
  let silence = clock.after(silentMaxMs, () => connection.destroy());
  const pump = async (): Promise<void> => {
    if (isBusy) return;
    isBusy = true;
    connection.pause();
    for (;;) {
      const request = parse(pending);
      if (request === 'malformed' || (request === undefined && pending.length > requestBytesMax)) {
        connection.destroy();
        return;
      }
      if (request === undefined) break;
      pending = pending.subarray(request.next);
      const answer = request.answer(await destinations.find(request.key, 'lmtp', connection.localAddress));
      // Whoever does not read is not answered further.
      if (!isClosed && !connection.write(answer)) await new Promise<void>((resolve) => (goOn = resolve));
      if (isClosed) return;
    }
    isBusy = false;
    if (isOver) connection.end();
    connection.resume();
  };
  connection.handle({
    data: (chunk) => {
      silence.cancel();
      silence = clock.after(silentMaxMs, () => connection.destroy());
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      void pump();
    },
    end: () => {
      isOver = true;
      if (!isBusy) connection.end();
    },
    drain: () => goOn(),
    close: () => {
      isClosed = true;
      goOn();
      silence.cancel();
      closed();
    },
  });
}

/** tcp_table(5): `get SPACE key NEWLINE`; what could be mistaken is written as %XX. */
export function parseTcpTable(bytes: Buffer): Request | 'malformed' | undefined {
  const end = bytes.indexOf(0x0a);
  if (end < 0) return undefined;
  const line = bytes.toString('utf8', 0, end).replace(/\r$/, '');
  const key = /^get (\S+)$/.exec(line)?.[1];
  if (key === undefined) return 'malformed';
  return {
    key: unescaped(key),
    next: end + 1,
    answer(destination) {
      if (destination.kind === 'server') return `200 ${escaped(transportOf(destination))}\n`;
      return destination.kind === 'unknown' ? '500 no%20such%20account\n' : `400 ${escaped(destination.reason)}\n`;
    },
  };
}

/** socketmap_table(5): a netstring of the map's name, a space and the key. */
export function parseSocketmap(bytes: Buffer): Request | 'malformed' | undefined {
  const colon = bytes.subarray(0, 8).indexOf(0x3a);
  if (colon < 0) return bytes.length < 8 ? undefined : 'malformed';
  const digits = bytes.toString('latin1', 0, colon);
  const length = Number(digits);
  if (!/^\d{1,5}$/.test(digits) || length > requestBytesMax) return 'malformed';
  const end = colon + 1 + length;
  if (bytes.length <= end) return undefined;
  if (bytes[end] !== 0x2c) return 'malformed';
  const [, , key] = /^(\S+) (.*)$/s.exec(bytes.toString('utf8', colon + 1, end)) ?? [];
  if (key === undefined) return 'malformed';
  return {
    key,
    next: end + 1,
    answer(destination) {
      if (destination.kind === 'server') return netstring(`OK ${transportOf(destination)}`);
      return netstring(destination.kind === 'unknown' ? 'NOTFOUND ' : `TEMP ${destination.reason}`);
    },
  };
}

/** transport(5): mail for a foreign host goes by LMTP, mail for our own clusters by SMTP to this frontend. */
function transportOf({ isFrontend, host, port }: Extract<Destination, { kind: 'server' }>): string {
  const address = host.includes(':') ? `[ipv6:${host}]` : `[${host}]`;
  return isFrontend ? `smtp:${address}:${port}` : `lmtp:inet:${address}:${port}`;
}

function escaped(text: string): string {
  return Buffer.from(text.slice(0, 1000))
    .toString('latin1')
    .replace(/[^!-$&-~]/g, (character) => `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

function unescaped(text: string): string {
  const bytes = text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

function netstring(text: string): string {
  const short = text.slice(0, 1000);
  return `${Buffer.byteLength(short)}:${short},`;
}
