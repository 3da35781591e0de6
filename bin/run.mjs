// Runs a script of the project, or `vitest`, under Node 24: `node bin/run.mjs vitest run`, `node bin/run.mjs bench/x.ts`.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { underNode24 } from './node24.mjs';

const [what, ...args] = process.argv.slice(2);
if (what === undefined) {
  process.stderr.write('usage: node bin/run.mjs FILE|vitest [ARGUMENTS]\n');
  process.exit(2);
}
const file = what === 'vitest' ? resolve(createRequire(import.meta.url).resolve('vitest/package.json'), '..', 'vitest.mjs') : resolve(what);
await underNode24(pathToFileURL(file), args);
