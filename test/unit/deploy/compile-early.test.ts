import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const module = resolve('deploy/run/compile-early.ts');
const script = `
  import { compileEarlyFor } from ${JSON.stringify(module)};
  compileEarlyFor(JSON.parse(process.argv[1]));
  process.stdout.write('ran');
`;

it('the engine knows what it is told, whatever runs in the process', async () => {
  for (const roles of [['directory'], ['replication', 'directory'], ['frontend', 'directory']]) {
    const services = JSON.stringify(roles.map((role) => ({ role })));
    // It would complain there of a flag that it does not know.
    const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, services]);
    expect({ stdout, stderr }).toEqual({ stdout: 'ran', stderr: '' });
  }
});
