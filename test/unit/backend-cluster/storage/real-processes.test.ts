/**
 * Members as processes on a real file system: killed in the middle of their work, or stopped, overtaken and woken again.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openAccountStore } from '#backend-cluster/storage/open-store.ts';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { mailboxOf, opening, uuid } from './ledger.ts';

/** A member's process and what it has said. */
class Member {
  readonly process: ChildProcess;
  readonly lines: string[] = [];
  readonly #reader;

  constructor(root: string, name: string) {
    const script = fileURLToPath(new URL('./delivering-process.ts', import.meta.url));
    this.process = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, root, uuid, name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (this.process.stdout === null) throw new Error('the process has no output');
    this.#reader = createInterface(this.process.stdout);
    this.#reader.on('line', (line) => this.lines.push(line));
  }

  async untilLines(count: number): Promise<void> {
    while (this.lines.length < count && this.process.exitCode === null) await once(this.#reader, 'line');
  }

  async untilEnd(): Promise<void> {
    await once(this.#reader, 'close');
  }

  /** Acknowledged deliveries with their UIDs. */
  get acknowledged(): [string, number][] {
    return this.lines.filter((line) => /^back/.test(line)).map((line) => [line.split(' ')[0] as string, Number(line.split(' ')[1])]);
  }
}

describe('members as processes', () => {
  let root: string;
  let members: Member[];
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'store-processes-'));
    members = [];
  });
  afterEach(async () => {
    for (const member of members) member.process.kill('SIGKILL');
    await rm(root, { recursive: true });
  });

  const start = (name: string): Member => {
    const member = new Member(root, name);
    members.push(member);
    return member;
  };
  const store = () =>
    openAccountStore({
      root,
      files: nodeFiles,
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
      metrics: createMetrics(),
    });
  /** What the account holds: delivery id to UID. Fails when one is there twice. */
  const stored = async (): Promise<Map<string, number>> => {
    const account = await (await store()).open(uuid, { ...opening('checker'), openId: systemRandom.uuid() });
    const inbox = mailboxOf(account, 'INBOX');
    const found = new Map<string, number>();
    for (const uid of inbox.uids()) {
      const id = /<(.*)>/.exec((await account.readRaw(inbox.id, uid)).toString())?.[1] ?? '';
      expect(found.has(id)).toBe(false);
      found.set(id, uid);
    }
    await account.close();
    return found;
  };

  it('lose nothing that they acknowledged when they are killed, and the next one goes on', async () => {
    for (const [round, name] of ['back1', 'back2', 'back1', 'back2'].entries()) {
      const member = start(name);
      await member.untilLines(30 + round * 7);
      member.process.kill('SIGKILL');
      await member.untilEnd();
    }
    const found = await stored();
    const acknowledged = members.flatMap((member) => member.acknowledged);
    expect(acknowledged.length).toBeGreaterThan(150);
    for (const [id, uid] of acknowledged) expect([id, found.get(id)]).toEqual([id, uid]);
    expect((await (await store()).checkAccount(uuid)).findings).toEqual([]);
  });

  it('are deposed when they wake up after another one took the account over', async () => {
    const sleeper = start('back1');
    await sleeper.untilLines(30);
    sleeper.process.kill('SIGSTOP');
    const successor = start('back2');
    await successor.untilLines(60);
    sleeper.process.kill('SIGCONT');
    await sleeper.untilEnd();
    expect(sleeper.lines.at(-1)).toBe('ended CLUSTER_DEPOSED');
    const saidBefore = successor.lines.length;
    await successor.untilLines(saidBefore + 10);
    successor.process.kill('SIGKILL');
    await successor.untilEnd();
    const found = await stored();
    for (const [id, uid] of [...sleeper.acknowledged, ...successor.acknowledged]) expect([id, found.get(id)]).toEqual([id, uid]);
  });
});
