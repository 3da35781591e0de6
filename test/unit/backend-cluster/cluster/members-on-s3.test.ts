/** The same members, with a bucket instead of a directory, opened as a node file has it. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BackendConfig } from '#backend-cluster/config.ts';
import type { RunningBackend } from '#backend-cluster/member.ts';
import { openConfiguredStore } from '#backend-cluster/storage/open-configured.ts';
import { silentLogger } from '#common/log/logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { S3Server, s3Keys, s3Region } from '#test/fakes/s3-server.ts';
import { Dialogue, TestCluster, until } from './test-cluster.ts';

let undo: AsyncDisposableStack;
let server: S3Server;
let cluster: TestCluster;
beforeEach(async () => {
  undo = new AsyncDisposableStack();
  server = undo.use(await S3Server.start());
  cluster = undo.use(await TestCluster.create());
});
afterEach(() => undo.disposeAsync());

const ports = systemPorts(silentLogger);

function openBucket(config: Partial<BackendConfig['storage']> = {}) {
  const storage: BackendConfig['storage'] = {
    engine: 's3',
    endpoint: server.endpoint,
    bucket: server.bucket,
    region: s3Region,
    prefix: '/west/',
    accessKeyId: s3Keys.accessKeyId,
    secretAccessKey: { env: 'S3_SECRET' },
    ...config,
  };
  return openConfiguredStore(storage, ports, { S3_SECRET: s3Keys.secretAccessKey });
}

async function startMember(label: string): Promise<RunningBackend> {
  const { store, ...storage } = await openBucket();
  return cluster.start(label, { store, storage });
}

describe('members that share a bucket', () => {
  it('serve an account with all its mail from the other member once its host was killed', async () => {
    const a = await startMember('back1');
    await until(() => a.status().isController);
    const b = await startMember('back2');
    await until(() => b.status().cluster.controller === a.name && a.status().cluster.members.length === 2);
    expect(b.status().storage).toMatchObject({ engine: 's3', path: 's3://mail/west/', ok: true });
    const alice = cluster.directory.add('alice@isp.example');
    await cluster.open(b, alice);
    for (let i = 0; i < 5; i += 1) expect(await cluster.deliver(i % 2 === 0 ? a : b, 'alice@isp.example', `m${i}`)).toMatch(/^250 /);
    await b.kill();
    let opened = await cluster.open(a, alice);
    await until(async () => {
      if (opened.answer.outcome !== 'opened') opened = await cluster.open(a, alice);
      return opened.answer.outcome === 'opened';
    });
    if (opened.channel === undefined) throw new Error('expected a channel');
    const dialogue = new Dialogue(opened.channel);
    opened.channel.write('STAT\r\n');
    expect(await dialogue.until(/\r\n$/)).toMatch(/^\+OK 5 /);
    opened.channel.destroy();
    expect(await cluster.deliver(a, 'alice@isp.example', 'after')).toMatch(/^250 /);
    expect(server.keys(`west/accounts/${alice.uuid}/head`)).toHaveLength(1);
    expect(server.keys('west/cluster/terms/').length).toBeGreaterThan(0);
  });

  it('do not start on a server that ignores conditions', async () => {
    server.behaviour = { ignoresConditions: true };
    await expect(startMember('back1')).rejects.toMatchObject({ code: 'STORE_UNSAFE' });
  });

  it('do not start without what the engine needs', async () => {
    await expect(openConfiguredStore({ engine: 's3' }, ports)).rejects.toThrow('storage.endpoint is missing: engine s3 needs it');
    await expect(openConfiguredStore({ engine: 'posix' }, ports)).rejects.toThrow('storage.path is missing: engine posix needs it');
    await expect(openBucket({ secretAccessKey: { env: 'NOT_SET' } })).rejects.toMatchObject({ code: 'CONFIG_UNREADABLE' });
    await expect(openBucket({ endpoint: 'ftp://s3.isp.example' })).rejects.toThrow('is not a URL of the form https://host:port');
  });
});
