/**
 * Proves that the room boundaries of biome.json bite: for every rule an import that must be refused, and one beside it that must not.
 * The files that break the rules are written to a tree of their own, to which biome.json is copied: here they would trip everybody else.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
const biome = join(root, 'node_modules', '.bin', 'biome');
let tree: string;

beforeAll(() => {
  tree = mkdtempSync(join(tmpdir(), 'archipelago-boundaries-'));
  const { vcs: _vcs, ...config } = JSON.parse(readFileSync(join(root, 'biome.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(tree, 'biome.json'), JSON.stringify({ ...config, root: true }));
});

afterAll(() => rmSync(tree, { recursive: true, force: true }));

/** Of the modules that each path imports, those that are refused. */
function refusedIn(files: Readonly<Record<string, readonly string[]>>): Record<string, string[]> {
  for (const [path, modules] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), modules.map((module, index) => `export { name as name${index} } from '${module}';\n`).join(''));
  }
  const options = ['lint', '--only=style/noRestrictedImports', '--reporter=github', '--max-diagnostics=none'];
  const { stdout, status } = spawnSync(biome, [...options, ...Object.keys(files)], { cwd: tree, encoding: 'utf8', timeout: 60_000 });
  if (status !== 0 && status !== 1) throw new Error(`biome ended with ${status}: ${stdout}`);
  const refused: Record<string, string[]> = {};
  for (const [path, modules] of Object.entries(files)) {
    const lines = [...stdout.matchAll(/file=([^,]+),line=(\d+)/g)]
      .filter((match) => match[1] === join(tree, path))
      .map((match) => Number(match[2]));
    refused[path] = modules.filter((_module, index) => lines.includes(index + 1));
  }
  return refused;
}

function refusedAt(path: string, modules: readonly string[]): string[] {
  return refusedIn({ [path]: modules })[path] ?? [];
}

const services = ['frontend', 'backend-cluster', 'directory', 'replication'] as const;
const libraries = {
  ldapjs: ['deploy/examples/x.ts', 'test/interop/x.test.ts'],
  bcryptjs: ['common/passwords/x.ts'],
  koffi: ['common/network/direct/x.ts'],
  ioredis: ['backend-cluster/coordination/redis/x.ts'],
  fastify: ['common/http/x.ts'],
  '@fastify/static': ['common/http/x.ts'],
  pino: ['common/log/x.ts'],
  'node-cron': ['common/schedule.ts'],
  testcontainers: ['test/chaos/containers/x.ts'],
  'smtp-server': [
    'frontend/listeners/smtp-guests.ts',
    'frontend/listeners/smtp-listener.ts',
    'frontend/listeners/smtp-sasl.ts',
    'frontend/listeners/smtp-tls.ts',
  ],
  'nodemailer/lib/smtp-connection': ['frontend/queue/relay.ts', 'deploy/dev/x.ts'],
  yaml: ['common/config/x.ts'],
  ajv: ['common/config/x.ts'],
  '@prometheus-io/client': ['common/metrics/x.ts'],
  commander: ['operate/cli/x.ts'],
  '@peculiar/x509': ['deploy/dev/x.ts'],
} as const;
const world = [
  'node:fs',
  'node:fs/promises',
  'fs',
  'node:net',
  'node:tls',
  'node:timers',
  'node:timers/promises',
  'node:http',
  'node:sqlite',
];

describe('a room', () => {
  it.each(services)('%s enters another service by its client door only, and never operate, deploy, test or bench', (room) => {
    const others = services.filter((service) => service !== room);
    const inner = others.flatMap((other) => [`#${other}/main.ts`, `#${other}/config.ts`, `#${other}/storage/x.ts`]);
    const above = ['#operate/api/reports.ts', '#deploy/dev/plan.ts', '#test/fakes/clock.ts', '#bench/x.ts'];
    const allowed = [
      ...others.map((other) => `#${other}/client/x.ts`),
      `#${room}/main.ts`,
      '#common/clock.ts',
      '#protocol/link/messages.ts',
    ];
    expect(refusedAt(`${room}/x.ts`, [...inner, ...above, ...allowed])).toEqual([...inner, ...above]);
  });

  it('operate enters services by their client door, and reads what their config.ts declares', () => {
    const refused = [
      ...services.flatMap((service) => [`#${service}/main.ts`, `#${service}/server/x.ts`]),
      '#deploy/dev/plan.ts',
      '#test/x.ts',
    ];
    const allowed = [...services.flatMap((service) => [`#${service}/client/x.ts`, `#${service}/config.ts`]), '#common/clock.ts'];
    expect(refusedAt('operate/x.ts', [...refused, ...allowed])).toEqual(refused);
  });

  it('common imports no other room', () => {
    const refused = ['#protocol/link/messages.ts', ...services.map((service) => `#${service}/client/x.ts`), '#operate/x.ts', '#test/x.ts'];
    for (const path of [
      'common/x.ts',
      'common/config/x.ts',
      'common/files/x.ts',
      'common/http/x.ts',
      'common/log/x.ts',
      'common/network/x.ts',
    ]) {
      expect(refusedAt(path, [...refused, '#common/clock.ts'])).toEqual(refused);
    }
  });

  it('protocol takes errors, names and types of common, and nothing that acts', () => {
    const refused = ['#common/clock.ts', '#common/network/network.ts', '#common/http/server.ts', '#frontend/client/x.ts', '#operate/x.ts'];
    const allowed = ['#common/errors/platform-error.ts', '#common/account-name.ts', '#common/host-server.ts', '#protocol/imap/x.ts'];
    expect(refusedAt('protocol/x.ts', [...refused, ...allowed])).toEqual(refused);
  });
});

describe('the world', () => {
  it.each([...services, 'protocol', 'common', 'operate'])('is out of reach for the core of %s', (room) => {
    expect(refusedAt(`${room}/x.ts`, [...world, 'node:crypto', 'node:path'])).toEqual(world);
  });

  it('is reached by adapters, each in its own way', () => {
    expect(refusedAt('common/files/x.ts', ['node:fs/promises', 'node:net'])).toEqual(['node:net']);
    expect(refusedAt('common/network/x.ts', ['node:net', 'node:tls', 'node:fs'])).toEqual(['node:fs']);
    expect(refusedAt('common/passwords/x.ts', ['node:worker_threads', 'node:fs'])).toEqual(['node:fs']);
    expect(refusedAt('directory/store/x.ts', ['node:sqlite', 'node:fs'])).toEqual(['node:fs']);
    expect(refusedAt('replication/store/x.ts', ['node:sqlite', 'node:fs'])).toEqual(['node:fs']);
  });
});

describe('a library', () => {
  it.each(Object.entries(libraries))('%s is imported by its owner only', (library, owners) => {
    const places = ['common/x.ts', 'protocol/x.ts', ...services.map((room) => `${room}/x.ts`), 'operate/x.ts', 'deploy/run/x.ts'];
    const outcome = refusedIn(Object.fromEntries([...owners, ...places].map((path) => [path, [library]])));
    const expected = [...owners.map((owner) => [owner, []]), ...places.map((place) => [place, [library]])];
    expect(outcome).toEqual(Object.fromEntries(expected));
  });
});
