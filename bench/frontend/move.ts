/**
 * Idle IMAP sessions that go with their accounts when a member is drained: `bench/frontend/move.ts [--sessions N]`. The whole federation is
 * this one process; printed is how many clients lost their connection (none should) and how long it took.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { createLogger } from '#common/log/pino-logger.ts';
import { systemPorts } from '#common/system-ports.ts';
import { logFileOf, startFederation } from '#deploy/dev/federation.ts';
import { accountLdif, ldapAdmin, ok } from '#test/e2e/clients.ts';

const { values } = parseArgs({ options: { sessions: { type: 'string' } } });
const sessions = Number(values.sessions ?? 1000);
/** Descriptors of one process are few. */
const perProcess = 5000;
const accountsMade = 100;
const password = 'secret';

const root = await mkdtemp(join(tmpdir(), 'bench-move-'));
const federation = await startFederation({
  root,
  ports: systemPorts(createLogger('info', {}, logFileOf(root))),
});
const frontends = Object.values(federation.ready.subsets).flatMap((subset) => subset.frontends.map(({ imap }) => imap));
const lostOf = new Map<ChildProcess, number>();
const lost = (): number => [...lostOf.values()].reduce((sum, one) => sum + one, 0);

/** Starts clients in a process of their own; resolves once all of them idle. */
function startClients(accounts: readonly string[], from: number, count: number): Promise<void> {
  const given = JSON.stringify({ frontends, accounts: accounts.map((name) => ({ name, password })), from, count });
  const child = spawn(process.execPath, [join(import.meta.dirname, 'idle-clients.ts'), given], { stdio: ['pipe', 'pipe', 'inherit'] });
  lostOf.set(child, 0);
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`clients ended with ${code}`)));
    createInterface(child.stdout).on('line', (line) => {
      if (line === 'idle') resolve();
      else lostOf.set(child, Number(line.slice('lost '.length)));
    });
  });
}

/** Accounts of the sessions on each member. */
function sessionsByMember(): Map<string, string[]> {
  const accounts = new Map<string, string[]>();
  for (const frontend of federation.frontends.values()) {
    for (const { member, account } of frontend.status().sessions) {
      const known = accounts.get(member);
      if (known === undefined) accounts.set(member, [account]);
      else known.push(account);
    }
  }
  return accounts;
}

const uids = Array.from({ length: accountsMade }, (_, i) => `idler${i}`);
await ok('ldapadd', ldapAdmin(federation.ready), {
  limitMs: 60_000,
  input: uids.map((uid) => accountLdif(uid, password, 'east.isp.example')).join('\n'),
});
// One session of each account says which of them the busiest member has; all others are for these.
await startClients(
  uids.map((uid) => `${uid}@isp.example`),
  0,
  accountsMade,
);
const [busiest = '', accounts = []] = [...sessionsByMember()].sort((a, b) => b[1].length - a[1].length)[0] ?? [];
for (let at = accounts.length; at < sessions; at += perProcess) {
  await startClients(accounts, accountsMade + at, Math.min(perProcess, sessions - at));
}
const before = sessionsByMember().get(busiest)?.length ?? 0;
const began = performance.now();
await federation.members.get(busiest)?.drain();
while ((sessionsByMember().get(busiest)?.length ?? 0) > 0 && lost() === 0) await new Promise((resolve) => setTimeout(resolve, 50));
const seconds = ((performance.now() - began) / 1000).toFixed(1);
process.stdout.write(
  `${before} idle sessions of ${accounts.length} accounts on ${busiest}; drained in ${seconds} s; connections lost: ${lost()}; now on ${[...sessionsByMember()].map(([name, now]) => `${name} ${now.length}`).join(', ')}\n`,
);
const lostInAll = lost();
for (const child of lostOf.keys()) child.removeAllListeners('exit').stdin?.end();
await federation[Symbol.asyncDispose]();
await rm(root, { recursive: true, force: true });
process.exit(lostInAll === 0 ? 0 : 1);
