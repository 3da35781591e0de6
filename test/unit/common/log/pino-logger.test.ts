import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PlatformError } from '#common/errors/platform-error.ts';
import { createLogger } from '#common/log/pino-logger.ts';
import { Secret } from '#common/secret.ts';

it('writes each field once, keeps secrets back and tells the whole of an error', () => {
  const folder = mkdtempSync(join(tmpdir(), 'archipelago-log-'));
  try {
    const file = join(folder, 'x.log');
    const log = createLogger('info', { node: 'a' }, file).child({ service: 'frontend' }).child({ service: 'frontend', node: 'b' });
    const { info } = log;
    info({ password: 'swordfish', given: new Secret('swordfish'), err: new PlatformError('AUTH_FAILED', 'wrong password') }, 'said');
    const line = readFileSync(file, 'utf8').trim();
    expect(line).not.toContain('swordfish');
    expect(line.match(/"node"/g)).toHaveLength(1);
    expect(JSON.parse(line)).toMatchObject({ level: 'info', node: 'b', service: 'frontend', msg: 'said', err: { code: 'AUTH_FAILED' } });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
