import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { Secret } from '#common/secret.ts';

it('writes at another level what is asked for apart, and all else at its own', () => {
  const folder = mkdtempSync(join(tmpdir(), 'archipelago-log-'));
  try {
    const file = join(folder, 'x.log');
    const log = createLogger('info', { node: 'a' }, file);
    const louder = log.atLevel?.('trace').child({ component: 'link' });
    const quieter = log.atLevel?.('silent');
    log.debug({}, 'debug at info');
    louder?.trace({}, 'trace at trace');
    quieter?.error({}, 'error at silent');
    log.child({}).info({}, 'info at info');
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: 'trace', node: 'a', component: 'link', msg: 'trace at trace' },
      { level: 'info', node: 'a', msg: 'info at info' },
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('writes each field once, keeps secrets back and tells the whole of an error', () => {
  const folder = mkdtempSync(join(tmpdir(), 'archipelago-log-'));
  try {
    const file = join(folder, 'x.log');
    const log = createLogger('info', { node: 'a' }, file).child({ service: 'frontend' }).child({ service: 'frontend', node: 'b' });
    const { info } = log;
    info({ password: 'swordfish', given: new Secret('swordfish'), err: new PlatformError('AUTH_FAILED', 'wrong password') }, 'said');
    const given = { name: 'alice', credentials: { mechanism: 'PLAIN' } };
    info({ request: given, err: Object.assign(new Error('odd'), { token: 'swordfish' }) }, 'said more');
    log.child({ client: { password: 'swordfish', port: 1 }, token: 'swordfish' }).info({}, 'bound');
    expect(given.credentials).toEqual({ mechanism: 'PLAIN' });
    const [line = '', more = '', bound = ''] = readFileSync(file, 'utf8').trim().split('\n');
    expect(more + bound).not.toContain('swordfish');
    expect(JSON.parse(more)).toMatchObject({ request: { name: 'alice', credentials: '[secret]' }, err: { message: 'odd' } });
    expect(JSON.parse(bound)).toMatchObject({ client: { password: '[secret]', port: 1 }, token: '[secret]', service: 'frontend' });
    expect(line).not.toContain('swordfish');
    expect(line.match(/"node"/g)).toHaveLength(1);
    expect(JSON.parse(line)).toMatchObject({ level: 'info', node: 'b', service: 'frontend', msg: 'said', err: { code: 'AUTH_FAILED' } });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
