/** House rules that no linter knows. Each reads the tracked files; a check that has read none fails. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const rooms = [
  'backend-cluster',
  'bench',
  'bin',
  'common',
  'deploy',
  'directory',
  'frontend',
  'operate',
  'protocol',
  'replication',
  'test',
];

interface Source {
  readonly path: string;
  readonly lines: readonly string[];
}
let sources: readonly Source[] = [];

beforeAll(() => {
  // Tracked, and new ones that are not ignored: what the next commit would hold.
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
  sources = listed
    .split('\n')
    .filter((path) => path !== '' && existsSync(join(root, path)) && !/(?:^package-lock\.json$|^node_modules$|\.png$|^LICENSE$)/.test(path))
    .map((path) => ({ path, lines: readFileSync(join(root, path), 'utf8').split('\n') }));
});

/** `path:line: text` of every line that matches, in files chosen by `choose`; fails when it chose none. */
function found(choose: (path: string) => boolean, pattern: RegExp): string[] {
  const chosen = sources.filter(({ path }) => choose(path));
  expect(chosen.length, 'files read').toBeGreaterThan(0);
  return chosen.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim().slice(0, 120)}`] : [])),
  );
}

const isCode = (path: string): boolean => /\.(?:ts|mjs|js)$/.test(path) && rooms.includes(path.split('/')[0] ?? '');
const isProduct = (path: string): boolean =>
  isCode(path) && !path.startsWith('test/') && !path.startsWith('bench/') && !path.startsWith('bin/');
const isThisFile = (path: string): boolean => path === 'test/tidy.test.ts';

describe('time, chance and the environment', () => {
  // The console's page runs in a browser, where nobody hands it a clock. The network adapter bounds handshakes by the system's timers.
  // deploy/ makes the real clock and runs processes; nothing there runs under a simulator.
  const adapters = ['common/clock.ts', 'common/random.ts', 'operate/console/assets/main.js'];

  it('are read by their adapters only', () => {
    const pattern = /\b(?:Date\.now\(|new Date\(\)|Math\.random\(|performance\.now\(|setTimeout\(|setInterval\(|AbortSignal\.timeout\()/;
    const choose = (path: string): boolean =>
      isProduct(path) &&
      !adapters.includes(path) &&
      !path.startsWith('common/network/') &&
      !path.startsWith('deploy/') &&
      path !== 'operate/console/assets/api.js';
    // The logger stamps lines by itself.
    expect(found(choose, pattern).filter((line) => !line.startsWith('common/log/pino-logger.ts:'))).toEqual([]);
  });

  it('reach the services as options: the environment is read where a process starts', () => {
    const starts = (path: string): boolean => path === 'operate/cli/main.ts' || path.startsWith('deploy/') || path.startsWith('bin/');
    expect(found((path) => isProduct(path) && !starts(path), /\bprocess\.env\b/)).toEqual([]);
    expect(found((path) => isProduct(path) && !starts(path), /\bprocess\.exit\(/)).toEqual([]);
  });
});

describe('files', () => {
  it('have at most 600 lines', () => {
    const chosen = sources.filter(({ path }) => isCode(path) || /\.(?:css|html)$/.test(path));
    expect(chosen.length).toBeGreaterThan(0);
    expect(chosen.filter(({ lines }) => lines.length > 601).map(({ path, lines }) => `${path}: ${lines.length - 1} lines`)).toEqual([]);
  });

  it('open with what they are for', () => {
    const chosen = sources.filter(({ path }) => isProduct(path) && path.endsWith('.ts'));
    expect(chosen.length).toBeGreaterThan(0);
    expect(chosen.filter(({ lines }) => !/^(?:#!|\/\*\*|\/\/)/.test(lines[0] ?? '')).map(({ path }) => path)).toEqual([]);
  });

  it('leave nothing for later', () => {
    expect(found((path) => isCode(path) && !isThisFile(path), /\b(?:TODO|FIXME|XXX|HACK)\b/)).toEqual([]);
  });

  it('name no path of the machine that they were written on', () => {
    const everything = (path: string): boolean => !isThisFile(path);
    expect(found(everything, /(?:^|[\s"'`=(])\/(?:work|root|home|Users)\//)).toEqual([]);
  });

  it('export by name, and hold no enums or namespaces', () => {
    expect(found((path) => isCode(path) && !isThisFile(path), /^\s*export default\b/)).toEqual([]);
    expect(found((path) => isCode(path) && !isThisFile(path), /^\s*(?:export )?(?:declare )?(?:const )?(?:enum|namespace) \w/)).toEqual([]);
  });
});

describe('imports', () => {
  it('by a relative path stay in their room', () => {
    const chosen = sources.filter(({ path }) => isCode(path));
    expect(chosen.length).toBeGreaterThan(0);
    const strays = chosen.flatMap(({ path, lines }) =>
      lines.flatMap((line) => {
        const target = /(?:from|import\() ?'(\.[^']*)'/.exec(line)?.[1];
        if (target === undefined) return [];
        const room = path.split('/')[0];
        const landed = normalize(join(dirname(path), target)).split('/')[0];
        // bin/ is plain JavaScript that an old Node must be able to start: it knows no import map.
        return landed === room || room === 'bin' ? [] : [`${path}: ${target}`];
      }),
    );
    expect(strays).toEqual([]);
  });

  it('name the file with its extension', () => {
    expect(found((path) => isCode(path) && path.endsWith('.ts'), /from '(?:\.|#)[^']*(?<!\.(?:ts|mjs|js))'/)).toEqual([]);
  });
});

describe('tests', () => {
  it('are never skipped, singled out or left for later', () => {
    const isTest = (path: string): boolean => path.startsWith('test/') && !isThisFile(path);
    expect(found(isTest, /\b(?:it|test|describe)\.(?:skip|skipIf|runIf|only|todo)\b/)).toEqual([]);
  });
});
