/**
 * The program that is called, under an old Node, and the one that runs, under the Node that was brought along: what happens to one happens to
 * the other.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

/** What an old Node does in underNode24: it is told where the other one is, and here both are the same. */
const launcher = `import { launch } from ${JSON.stringify(resolve('bin/node24.mjs'))}; launch(process.execPath, [], process.argv[1], process.argv.slice(2));`;

let root: string;
let called: ChildProcess;
let out: string;
/** Both have ended: nobody has the stream open any more. */
let over: Promise<unknown>;
/** The process that runs, as it says itself. */
let pid: number | undefined;
let left: number[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'archipelago-launcher-'));
  pid = undefined;
  left = [];
});

afterEach(async () => {
  for (const each of [called?.pid, pid, ...left]) if (each !== undefined && isAlive(each)) process.kill(each, 'SIGKILL');
  await rm(root, { recursive: true, force: true });
});

function isAlive(process_: number): boolean {
  try {
    return process.kill(process_, 0);
  } catch {
    return false;
  }
}

function call(program: string, args: readonly string[] = [], input?: string): void {
  called = spawn(process.execPath, ['--input-type=module', '-e', launcher, program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  called.stdin?.end(input ?? '');
  out = '';
  called.stdout?.on('data', (chunk: Buffer) => {
    out += chunk;
  });
  over = once(called.stdout as NodeJS.ReadableStream, 'close');
}

async function script(text: string): Promise<string> {
  const path = join(root, 'script.mjs');
  await writeFile(path, text);
  return path;
}

async function printed(pattern: RegExp): Promise<string> {
  for (;;) {
    const found = pattern.exec(out);
    if (found !== null) return found[1] as string;
    await Promise.race([
      once(called.stdout as NodeJS.ReadableStream, 'data'),
      over.then(() => Promise.reject(new Error(`it ended: ${out}`))),
    ]);
  }
}

describe('the program that runs', () => {
  it.each([
    ['SIGKILL', undefined],
    ['SIGTERM', 0],
  ] as const)('ends in good order when the one that was called gets %s', async (signal, code) => {
    const nodeFile = join(root, 'node.yaml');
    const logFile = join(root, 'log');
    const service = {
      role: 'directory',
      name: 'ldap-master.isp.example',
      mode: 'master',
      suffix: 'o=mail',
      dataDirectory: join(root, 'data'),
      listeners: [{ port: 0, tls: 'none' }],
      identities: [],
      placement: 'none',
    };
    await writeFile(nodeFile, JSON.stringify({ log: { level: 'info', file: logFile }, services: [service] }));
    call(resolve('deploy/run/up.ts'), ['--config', nodeFile]);
    await printed(/(started)\n/);
    pid = Number(await readFile(`/proc/${called.pid}/task/${called.pid}/children`, 'utf8'));
    const exited = once(called, 'exit');
    called.kill(signal);
    const [exitCode] = await exited;
    await over;
    expect(exitCode ?? undefined).toBe(code);
    expect(await readFile(logFile, 'utf8')).toContain('"stopping"');
  });

  it('reads what is piped to the one that was called, and ends when it has nothing to do any more', async () => {
    call(
      await script(
        `let text = ''; for await (const chunk of process.stdin) text += chunk; console.log(text.toUpperCase(), process.argv.slice(2)); process.exitCode = 7;`,
      ),
      ['a', '--b'],
      'piped',
    );
    const [code] = await once(called, 'exit');
    await over;
    expect(code).toBe(7);
    expect(out).toBe("PIPED [ 'a', '--b' ]\n");
  });

  it('leaves alone what it has started itself: a successor outlives both', async () => {
    const text = `
      import { spawn } from 'node:child_process';
      if (process.argv[2] === 'successor') {
        process.on('SIGTERM', () => console.log('told to end'));
        setInterval(() => {}, 60_000);
        console.log('successor ' + process.pid + '.');
      } else {
        process.on('SIGTERM', () => { console.log('ends.'); process.exit(); });
        spawn(process.execPath, [process.argv[1], 'successor'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
        setInterval(() => {}, 60_000);
        console.log('runs ' + process.pid + '.');
      }`;
    call(await script(text));
    pid = Number(await printed(/runs (\d+)\./));
    const successor = Number(await printed(/successor (\d+)\./));
    left.push(successor);
    called.kill('SIGKILL');
    await printed(/(ends)\./);
    expect(isAlive(successor)).toBe(true);
    process.kill(successor, 'SIGKILL');
    await over;
    expect(out).not.toContain('told to end');
  });
});
