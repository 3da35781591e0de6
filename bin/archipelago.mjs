#!/usr/bin/env node
// The `archipelago` command. Plain JavaScript, because an old Node must be able to read it: it sees to Node 24 and picks the program.
// `demo` and `up` put services together, `directory` works on a directory server's files, `store` with --path or --config on a cluster's
// storage, and all live in deploy/; everything else speaks to a running installation and lives in operate/.
import { readFileSync } from 'node:fs';
import { useCompileCache } from './compile-cache.mjs';
import { replicationOptions, serviceOptions, underNode24 } from './node24.mjs';

useCompileCache();
// As it was called: a link in the path may lead to a newer release when the process starts its successor.
process.env.ARCHIPELAGO_COMMAND = process.argv[1];
const args = process.argv.slice(2);
const composes = {
  demo: '../deploy/dev/demo.ts',
  up: '../deploy/run/up.ts',
  directory: '../deploy/run/directory.ts',
  store: '../deploy/run/store.ts',
};
const isOffline = args.some((arg) => /^--(path|config)(=|$)/.test(arg));
// Some of their verbs ask a running installation.
const isAsking =
  (args[0] === 'demo' && args[1] === 'kill') || (args[0] === 'directory' && args[1] === 'promote') || (args[0] === 'store' && !isOffline);
const isComposing = args[0] in composes && !isAsking;
if (isComposing) {
  const options = replicatesOnly() ? replicationOptions : serviceOptions;
  // Blocks of octets that come and go by the hundred thousand: given back by glibc at once, instead of leaving gaps that stay. By its start only.
  if (options === replicationOptions) process.env.MALLOC_MMAP_THRESHOLD_ ??= '65536';
  await underNode24(new URL(composes[args[0]], import.meta.url), args.slice(1), options);
} else await underNode24(new URL('../operate/cli/main.ts', import.meta.url), args);

// Told before the file is read as such, because Node takes its limits at the start only; what is not plainly such a node file is none.
function replicatesOnly() {
  const at = args.findIndex((arg) => /^(--config|-c)(=|$)/.test(arg));
  const path = args[at]?.includes('=') ? args[at].slice(args[at].indexOf('=') + 1) : args[at + 1];
  if (args[0] !== 'up' || at < 0 || path === undefined) return false;
  try {
    const roles = [...readFileSync(path, 'utf8').matchAll(/\brole['"]?\s*:\s*['"]?([^\s'",}]*)/g)].map((match) => match[1]);
    return roles.length > 0 && roles.every((role) => role === 'replication');
  } catch {
    // `up` says what is wrong with the file.
    return false;
  }
}
