/**
 * ManageSieve with sieve-connect, a client that is not ours, through a frontend: to a stock Dovecot as a foreign cluster, and to a cluster of ours.
 */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { type Federation, logFileOf, startFederation } from '#deploy/dev/federation.ts';
import { accountLdif, curlImap, curlSend, ldapAdmin, ok, type Ran, run, until } from '../e2e/clients.ts';
import { type DovecotHosts, startDovecots } from './dovecot-server.ts';

const legacy = 'legacy.isp.example';
const script = 'require ["fileinto"];\r\nif header :contains "subject" "list" { fileinto "Lists"; }\r\n';

let root: string;
let federation: Federation;
let dovecots: DovecotHosts;

beforeAll(async () => {
  dovecots = await startDovecots(['127.0.0.23']);
  root = await mkdtemp(join(tmpdir(), 'archipelago-sieve-'));
  federation = await startFederation({
    root,
    withSamples: true,
    ports: systemPorts(createLogger('debug', {}, logFileOf(root))),
  });
  await ok('ldapadd', ldapAdmin(federation.ready), {
    input: [
      `dn: cn=${legacy},ou=topology,o=mail`,
      'objectClass: mailCluster',
      'objectClass: foreignCluster',
      `cn: ${legacy}`,
      `clusterMember: dove1.${legacy} 127.0.0.23`,
      `foreignService: managesieve ${dovecots.ports.managesieve} none`,
      '',
      accountLdif('dora', dovecots.password, legacy),
      '',
    ].join('\n'),
  });
});

afterAll(async () => {
  await federation?.[Symbol.asyncDispose]();
  await dovecots?.[Symbol.asyncDispose]();
  await rm(root, { recursive: true, force: true });
});

/** One command of sieve-connect, after STARTTLS with the certificate checked. */
async function sieve(user: string, password: string, ...command: string[]): Promise<Ran> {
  const port = federation.ready.subsets.eu?.frontends[0]?.sieve.split(':')[1] as string;
  const where = ['--server', 'localhost', '--4', '--port', port, '--tlscafile', federation.ready.caFile];
  return run('sieve-connect', [...where, '--user', user, '--passwordfd', '0', '--authmech', 'PLAIN', ...command], {
    input: `${password}\n`,
  });
}

describe('scripts on a Dovecot behind a frontend', () => {
  const dora = (...command: string[]): Promise<Ran> => sieve('dora@isp.example', dovecots.password, ...command);

  it('are uploaded, listed, activated, fetched and deleted', async () => {
    const file = join(root, 'lists.sieve');
    await writeFile(file, script);
    const uploaded = await until(
      () => dora('--upload', '--localsieve', file, '--remotesieve', 'lists'),
      ({ code }) => code === 0,
      30_000,
    );
    expect(uploaded.answer.code, uploaded.answer.err).toBe(0);
    expect(await dora('--activate', '--remotesieve', 'lists')).toMatchObject({ code: 0 });
    expect((await dora('--list')).out).toMatch(/"lists" ACTIVE/);
    const copy = join(root, 'copy.sieve');
    expect(await dora('--download', '--localsieve', copy, '--remotesieve', 'lists')).toMatchObject({ code: 0 });
    expect((await readFile(copy, 'utf8')).replaceAll('\r\n', '\n')).toBe(script.replaceAll('\r\n', '\n'));
    expect(await dora('--deactivate')).toMatchObject({ code: 0 });
    expect(await dora('--delete', '--remotesieve', 'lists')).toMatchObject({ code: 0 });
    expect((await dora('--list')).out).not.toContain('lists');
  });

  it('are refused to a wrong password', async () => {
    const ran = await sieve('dora@isp.example', 'looking-glass', '--list');
    expect(ran.code).not.toBe(0);
    expect(ran.out + ran.err).toMatch(/Authentication failed/);
  });
});

describe('scripts on a cluster of ours', () => {
  const alice = (...command: string[]): Promise<Ran> => sieve('alice@isp.example', 'alice-secret', ...command);

  it('are taken from sieve-connect when they run, and then file the mail', async () => {
    const front = federation.ready.subsets.eu?.frontends[0];
    const [file, bad] = [join(root, 'own.sieve'), join(root, 'bad.sieve')];
    await writeFile(file, script);
    await writeFile(bad, 'require "vacation";\r\nvacation "gone";\r\n');
    expect((await alice('--upload', '--localsieve', bad, '--remotesieve', 'bad')).code).not.toBe(0);
    const uploaded = await alice('--upload', '--localsieve', file, '--remotesieve', 'lists');
    expect(uploaded, uploaded.err).toMatchObject({ code: 0 });
    expect(await alice('--activate', '--remotesieve', 'lists')).toMatchObject({ code: 0 });
    expect((await alice('--list')).out).toMatch(/^"lists" ACTIVE/m);
    await curlImap(federation.ready, front?.imaps as string, 'alice@isp.example', 'alice-secret', 'CREATE Lists');
    await curlSend(federation.ready, front?.smtp as string, 'bob@isp.example', 'alice@isp.example', 'a list', 'hello');
    const { answer } = await until(
      () => curlImap(federation.ready, front?.imaps as string, 'alice@isp.example', 'alice-secret', 'STATUS Lists (MESSAGES)'),
      ({ out }) => out.includes('MESSAGES 1'),
      60_000,
    );
    expect(answer.out).toContain('MESSAGES 1');
  });
});
