import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const module = resolve('deploy/run/compile-early.ts');
const script = `
  import { compileEarlyFor } from ${JSON.stringify(module)};
  compileEarlyFor(JSON.parse(process.argv[1]).map((role) => ({ role, readiness: () => [{ ok: true }] })));
  process.stdout.write('ran');
`;

it('the engine knows what it is told, whatever runs in the process', async () => {
  for (const roles of [['directory'], ['replication', 'directory'], ['frontend', 'directory']]) {
    // It would complain there of a flag that it does not know.
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, JSON.stringify(roles)]);
    expect({ stdout, stderr }).toEqual({ stdout: 'ran', stderr: '' });
  }
});
