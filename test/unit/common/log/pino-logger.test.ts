import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { Secret } from '#common/secret.ts';

/** Lines are written some milliseconds later, all that there are. */
async function linesOf(file: string): Promise<string[]> {
  await vi.waitFor(() => expect(readFileSync(file, 'utf8')).not.toBe(''), 20_000);
  return readFileSync(file, 'utf8').trim().split('\n');
}

it('writes at another level what is asked for apart, and all else at its own', async () => {
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
    const lines = await linesOf(file);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: 'trace', node: 'a', component: 'link', msg: 'trace at trace' },
      { level: 'info', node: 'a', msg: 'info at info' },
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it('writes each field once, keeps secrets back and tells the whole of an error', async () => {
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
    const [line = '', more = '', bound = ''] = await linesOf(file);
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

it('writes what the last turn said when the process ends by itself or by an exception', () => {
  const folder = mkdtempSync(join(tmpdir(), 'archipelago-log-'));
  try {
    const module = join(import.meta.dirname, '../../../../common/log/pino-logger.ts');
    for (const [end, code] of [
      ['process.exit(3)', 3],
      ["throw new Error('odd')", 1],
    ] as const) {
      const file = join(folder, `${code}.log`);
      const program = `const { createLogger } = await import(${JSON.stringify(module)}); createLogger('info', {}, ${JSON.stringify(file)}).info({}, 'last words'); ${end};`;
      const { status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore', timeout: 60_000 });
      expect(status).toBe(code);
      expect(readFileSync(file, 'utf8')).toContain('last words');
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
