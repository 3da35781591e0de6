// Runs a module under Node 24 or later: in this process when it is one, else in the Node that `npm ci` brought along.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const wanted = 24;

/**
 * Options of Node for what runs long or handles much. Left alone, the part of the heap for new objects grows to 128 MB on a large machine, in
 * each thread; with 32 MB a directory server was not measurably slower, and nothing that it does needs more.
 */
export const serviceOptions = ['--max-semi-space-size=16'];

/**
 * The same for a process that only replicates: it passes millions of entries on and keeps none, and larger limits are filled with garbage, which
 * is also collected when there is a fifth more of it than was left the last time. What grows with the directory is in files.
 */
export const replicationOptions = ['--max-semi-space-size=1', '--max-old-space-size=128', '--heap-growing-percent=20'];

/** Imports `moduleUrl` with `args` as its arguments, under Node 24 or later, with these options of Node unless the environment has others. */
export async function underNode24(moduleUrl, args, wantedOptions = []) {
  const path = fileURLToPath(moduleUrl);
  const isChosen = /semi[-_]space/.test(process.env.NODE_OPTIONS ?? '');
  const options = isChosen ? [] : wantedOptions.filter((option) => !process.execArgv.includes(option));
  if (Number(process.versions.node.split('.')[0]) >= wanted) {
    // Node takes them at its start only, so this process starts again in its own place; where there is no such call, it goes on without.
    if (options.length > 0 && process.channel === undefined)
      process.execve?.(process.execPath, [process.execPath, ...process.execArgv, ...options, path, ...args], process.env);
    process.argv = [process.argv[0], path, ...args];
    await import(moduleUrl.href);
    return;
  }
  const node = broughtNode();
  if (node === undefined) {
    process.stderr.write(
      `archipelago: this is Node ${process.versions.node}, and Node ${wanted} or later is needed.\n` +
        `Run "npm ci" here, which brings one for Linux on x64 and arm64; elsewhere install Node ${wanted}.\n`,
    );
    process.exit(1);
  }
  launch(node, options, path, args);
}

/**
 * Runs a module under another Node, in place of this process as far as can be seen from outside: the same streams, signals passed on, its exit
 * code. Should this process end without a chance to pass that on, the other one ends in good order by itself (launched.mjs).
 */
export function launch(node, options, path, args) {
  const child = spawn(node, [...options, fileURLToPath(new URL('launched.mjs', import.meta.url)), path, ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...process.env, PATH: `${dirname(node)}:${process.env.PATH ?? ''}` },
  });
  // Nothing is ever sent; the kernel closes this end with the process.
  child.stdio[3].on('error', () => {});
  // The terminal sends Ctrl-C to both; a signal sent to this process alone must be passed on.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 128 + (signal === 'SIGKILL' ? 9 : 15)));
}

function broughtNode() {
  const require = createRequire(import.meta.url);
  try {
    const node = join(dirname(require.resolve(`node-${process.platform}-${process.arch}/package.json`)), 'bin', 'node');
    return existsSync(node) ? node : undefined;
  } catch {
    return undefined;
  }
}
