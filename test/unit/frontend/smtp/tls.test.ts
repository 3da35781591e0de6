/** The SMTP listeners show, ask for and resume what all other listeners do, and believe of a load balancer what those believe. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseDomainName } from '#common/account-name.ts';
import { systemClock } from '#common/clock.ts';
import { systemRandom } from '#common/random.ts';
import { createThrowawayCa, type ThrowawayCa } from '#deploy/dev/throwaway-ca.ts';
import { encodeProxyHeader } from '#protocol/proxy/encode.ts';
import { keepingLogger } from '../fakes.ts';
import { SmtpHarness } from './smtp-harness.ts';

const listeners = [
  ['STARTTLS', 1],
  ['implicit TLS', 2],
] as const;
const plain = `AUTH PLAIN ${Buffer.from('\0alice\0open sesame').toString('base64')}\r\n`;

let ca: ThrowawayCa;
beforeAll(async () => {
  ca = await createThrowawayCa(systemClock, systemRandom);
});
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** Reads until it has come. Rejects when the connection is over before. */
function heard(socket: Socket, until: RegExp): Promise<string> {
  let text = '';
  return new Promise((resolve, reject) => {
    const take = (chunk: Buffer): void => {
      text += chunk.toString('latin1');
      if (!until.test(text)) return;
      socket.off('data', take);
      resolve(text);
    };
    socket.on('data', take).on('error', () => {});
    socket.once('close', () => reject(new Error(`closed after ${JSON.stringify(text)}`)));
  });
}

/** `before`: what is sent first of all, in clear. */
async function dial(port: number, before?: Buffer): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: before === undefined ? '127.0.0.1' : '127.0.0.2' });
  sockets.push(socket);
  await once(socket, 'connect');
  if (before !== undefined) socket.write(before);
  return socket;
}

async function secured(h: SmtpHarness, index: 1 | 2, options: object = {}, before?: Buffer): Promise<TLSSocket> {
  const clear = await dial(h.port(index), before);
  if (index === 1) {
    await heard(clear, /^220 .*\r\n$/m);
    clear.write('EHLO client.example\r\nSTARTTLS\r\n');
    await heard(clear, /^220 .*\r\n$/m);
  }
  const socket = connectTls({ socket: clear, ca: ca.certificate, servername: 'localhost', ...options });
  sockets.push(socket);
  return socket;
}

async function greeted(socket: TLSSocket, index: 1 | 2): Promise<string> {
  if (index === 2) await heard(socket, /^220 .*\r\n$/m);
  // What refuses a certificate comes after the handshake of TLS 1.3.
  const answered = heard(socket, /^250 .*\r\n$/m);
  socket.write('EHLO client.example\r\n');
  return answered;
}

describe.each(listeners)('submission by %s', (_how, index) => {
  it('shows each name its certificate, and another one once that is in use', async () => {
    const [other, renewed] = [await ca.issue(['*.other.example', '*.xn--bcher-kva.example']), await ca.issue(['new.other.example'])];
    await using h = await SmtpHarness.start({ ca, tls: { further: [{ cert: other.certificate, key: other.key }], version: '1' } });
    const shown = async (servername: string): Promise<string | undefined> => {
      const socket = await secured(h, index, { servername, checkServerIdentity: () => undefined });
      await once(socket, 'secureConnect');
      return socket.getPeerCertificate().subjectaltname;
    };
    expect(await shown('mail.other.example')).toContain('*.other.example');
    expect(await shown('mail.xn--bcher-kva.example')).toContain('*.other.example');
    expect(await shown('elsewhere.example')).toContain('DNS:localhost');
    h.tls.further = [{ cert: renewed.certificate, key: renewed.key }];
    h.tls.version = '2';
    expect(await shown('new.other.example')).toBe('DNS:new.other.example');
  });

  it('turns away who shows no certificate where one is required, and says in the log whose it was', async () => {
    const { log, lines } = keepingLogger();
    const tls = { ca: ca.certificate, requestCert: true, rejectUnauthorized: true };
    await using h = await SmtpHarness.start({ ca, tls, log });
    await expect(secured(h, index).then((socket) => greeted(socket, index))).rejects.toThrow(/closed/);
    const strangers = await (await createThrowawayCa(systemClock, systemRandom)).issue(['client.example']);
    await expect(
      secured(h, index, { cert: strangers.certificate, key: strangers.key }).then((socket) => greeted(socket, index)),
    ).rejects.toThrow(/closed/);
    const { certificate: cert, key } = await ca.issue(['client.example']);
    const socket = await secured(h, index, { cert, key });
    await greeted(socket, index);
    socket.end('QUIT\r\n');
    const ended = (): unknown[] => lines.filter(({ message }) => message === 'session ended').map(({ fields }) => fields);
    await expect
      .poll(ended)
      .toContainEqual(expect.objectContaining({ tls: 'TLSv1.3', tlsServerName: 'localhost', tlsClientName: 'client.example' }));
  });

  it('resumes sessions of a frontend that has the same ticket key', async () => {
    const ticketKey = systemRandom.bytes(48);
    await using one = await SmtpHarness.start({ ca, tls: { ticketKey } });
    await using two = await SmtpHarness.start({ ca, tls: { ticketKey } });
    await using alien = await SmtpHarness.start({ ca, tls: { ticketKey: systemRandom.bytes(48) } });
    const first = await secured(one, index);
    const [[session]] = (await Promise.all([once(first, 'session'), greeted(first, index)])) as [[Buffer], string];
    const isReused = async (h: SmtpHarness): Promise<boolean> => {
      const socket = await secured(h, index, { session });
      await once(socket, 'secureConnect');
      return socket.isSessionReused();
    };
    expect(await isReused(two)).toBe(true);
    expect(await isReused(alien)).toBe(false);
  });
});

describe('submission behind a load balancer', () => {
  const client = { sourceAddress: '198.51.100.7', sourcePort: 40_000, destinationAddress: '192.0.2.25', destinationPort: 587 };
  const proxied = { ca, listener: { proxyFrom: ['127.0.0.2/31'], allowPlaintextLogin: false } };

  it.each([
    [1, 1],
    [1, 2],
    [2, 1],
    [2, 2],
  ] as const)(
    'knows by version %i who the client is and where it came to, with TLS behind the header (listener %i)',
    async (version, index) => {
      const config = { addressDomains: [{ address: client.destinationAddress, domain: 'other.example' }] };
      await using h = await SmtpHarness.start({ ...proxied, ca, config });
      const socket = await secured(h, index, {}, encodeProxyHeader(version, client));
      await greeted(socket, index);
      socket.write(plain);
      await heard(socket, /^235 /m);
      expect(h.logins).toMatchObject([{ client: { address: '198.51.100.7', port: 40_000, tls: true }, defaultDomain: 'other.example' }]);
      expect(h.logins[0]?.defaultDomain).toBe(parseDomainName('other.example'));
    },
  );

  it('takes the client’s TLS facts where the load balancer ends TLS, and lets it log in without TLS of ours', async () => {
    const { log, lines } = keepingLogger();
    await using h = await SmtpHarness.start({ ...proxied, ca, log });
    const tlv = (type: number, value: Buffer): Buffer => Buffer.concat([Buffer.from([type, 0, value.length]), value]);
    const ssl = Buffer.concat([Buffer.from([1, 0, 0, 0, 0]), tlv(0x21, Buffer.from('TLSv1.3')), tlv(0x23, Buffer.from('AES'))]);
    const header = Buffer.concat([encodeProxyHeader(2, client), tlv(0x20, ssl)]);
    header.writeUInt16BE(header.length - 16, 14);
    for (const index of [1, 2] as const) {
      const socket = await dial(h.port(index), header);
      await heard(socket, /^220 .*\r\n$/m);
      socket.write('EHLO client.example\r\n');
      const offered = await heard(socket, /^250 .*\r\n$/m);
      expect(offered).toContain('AUTH PLAIN');
      expect(offered).not.toContain('STARTTLS');
      socket.write(plain);
      await heard(socket, /^235 /m);
      socket.end('QUIT\r\n');
    }
    expect(h.logins.map(({ client: { address, tls } }) => [address, tls])).toEqual([
      ['198.51.100.7', true],
      ['198.51.100.7', true],
    ]);
    const ended = (): unknown[] =>
      lines.filter(({ message }) => message === 'session ended').map(({ fields: { tls, tlsCipher } }) => [tls, tlsCipher]);
    await expect.poll(ended).toEqual([
      ['TLSv1.3', 'AES'],
      ['TLSv1.3', 'AES'],
    ]);
  });

  it('hangs up on a load balancer that sends no header, and believes none from elsewhere', async () => {
    const { log, lines } = keepingLogger();
    await using h = await SmtpHarness.start({ ...proxied, ca, log });
    const silent = await dial(h.port(1), Buffer.from('EHLO load.balancer.example\r\n'));
    await once(silent, 'close');
    await expect.poll(() => lines.map(({ message }) => message).join()).toContain('does not begin with a PROXY header');
    const liar = await dial(h.port(1));
    await heard(liar, /^220 .*\r\n$/m);
    liar.write(encodeProxyHeader(1, client));
    expect(await heard(liar, /\r\n$/)).toMatch(/^500 /);
    await expect.poll(() => h.running.connections()).toBe(1);
  });
});
