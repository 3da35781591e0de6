/** What proxies are told over HTTP, with names that would break a header or are beyond ASCII. */
import { expect, it, onTestFinished } from 'vitest';
import { parseAccountName, tryParseAccountName } from '#common/account-name.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemNetwork } from '#common/network/system-network.ts';
import type { Destinations } from '#frontend/answers/destinations.ts';
import { startProxyAnswers } from '#frontend/answers/proxies.ts';
import type { FrontendListener } from '#frontend/config.ts';

const known = parseAccountName('Jürgen用@isp.example');

/** The raw answer to a raw question. */
async function ask(...lines: readonly string[]): Promise<string> {
  const listener: FrontendListener = { protocol: 'routes', tls: 'none', address: '127.0.0.1', port: 0, allowPlaintextLogin: false };
  const destinations = {
    find: async (login: string) =>
      tryParseAccountName(login) === known
        ? { kind: 'server', isFrontend: false, host: '192.0.2.11', port: 143, tls: 'none', account: known }
        : { kind: 'unknown' },
  } as unknown as Destinations;
  const server = await startProxyAnswers(listener, undefined, silentLogger, destinations, systemNetwork);
  onTestFinished(() => server[Symbol.asyncDispose]());
  const connection = await systemNetwork.connect({ host: server.address, port: server.port });
  let answer = '';
  await new Promise<void>((resolve) => {
    connection.handle({
      data: (chunk) => {
        answer += chunk.toString();
      },
      close: () => resolve(),
    });
    connection.write(`${['GET /nginx HTTP/1.1', 'Host: x', 'Connection: close', 'Auth-Protocol: imap', ...lines].join('\r\n')}\r\n\r\n`);
  });
  return answer;
}

it.each(['jürgen用@isp.example', 'J%C3%BCrgen%E7%94%A8@isp.example', 'j%75%CC%88rgen用@isp.example'])(
  'tells nginx of %s as it is written in the directory',
  async (name) => {
    const answer = await ask(`Auth-User: ${name}`);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(answer).toMatch(/^auth-status: OK\r$/im);
    expect(answer).toMatch(/^auth-user: jürgen用@isp\.example\r$/im);
  },
);

it.each([
  ['a line end', 'alice%0D%0AAuth-Status:%20OK%0D%0AAuth-Server:%20192.0.2.66'],
  ['NUL', 'alice%00'],
  ['a lone percent sign', '%'],
  ['no UTF-8', '%FF'],
  ['seven thousand letters', 'x'.repeat(7000)],
])('puts nothing of a name with %s into a header', async (_what, name) => {
  const answer = await ask(`Auth-User: ${name}`);
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  expect(answer).toMatch(/^auth-status: Authentication failed\r$/im);
  expect(answer).not.toMatch(/auth-server/i);
});
