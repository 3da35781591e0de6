/**
 * One run: the installation comes up, clients work, the nemesis strikes, all is healed, what was acknowledged arrives, and every account is
 * read by IMAP and compared with its history (I3 to I5). Runs on the host `client` of its lab: see main.ts.
 */
import { AccountHistory } from '#test/sim/history.ts';
import { Chance } from '#test/sim/world.ts';
import { type ChaosAccount, type Counts, readAll, readOn, sendOn } from './clients.ts';
import type { Hosts } from './hosts.ts';
import { clusters, frontends, Installation } from './installation.ts';
import { Nemesis } from './nemesis.ts';

const accountsPerCluster = 3;
const senders = 3;
/** After the healing everything that was acknowledged arrives, and every account can be read, within this. */
const settledWithinMs = 180_000;

/** What came of it. */
export interface ChaosResult {
  readonly violations: readonly string[];
  readonly faults: ReadonlyMap<string, number>;
  readonly counts: Counts;
  readonly settledMs: number;
}

/** See the header of this file. */
export async function runChaos(options: {
  lab: Hosts;
  directory: string;
  seed: number;
  rageMs: number;
  say(line: string): void;
}): Promise<ChaosResult> {
  const { lab, directory, seed, rageMs, say } = options;
  const chance = new Chance(seed);
  const counts: Counts = { sent: 0, acknowledged: 0, sessions: 0, changes: 0 };
  const accounts = clusters.flatMap((cluster) =>
    Array.from({ length: accountsPerCluster }, (_, index): ChaosAccount & { cluster: string } => {
      const name = `${cluster}${index + 1}@isp.example`;
      return { name, cluster, history: new AccountHistory({ name }) };
    }),
  );
  const installation = await Installation.start(lab, directory, accounts);
  try {
    const addresses = frontends.map((name) => lab.addressOf(name));
    await settle(accounts, addresses, () => true);
    say('the installation serves');
    let isOver = false;
    const work = [
      ...Array.from({ length: senders }, (_, index) => sendOn(accounts, addresses, chance.fork(), `s${index}`, counts, () => isOver)),
      ...accounts.map((account) => readOn(account, addresses, chance.fork(), counts, () => isOver)),
    ];
    const nemesis = new Nemesis(installation, chance.fork(), say);
    try {
      await nemesis.rage(performance.now() + rageMs);
    } finally {
      isOver = true;
    }
    await lab.heal();
    await Promise.all(work);
    say(`healed; ${counts.acknowledged} of ${counts.sent} messages were acknowledged`);
    const healedAtMs = performance.now();
    const seen = await settle(accounts, addresses, ({ history }, mailboxes) => {
      const found = new Set(mailboxes.flatMap(({ messages }) => messages.map(({ id }) => id)));
      return [...history.sent.values()].every(({ id, isAcknowledged, removal }) => !isAcknowledged || removal !== 'no' || found.has(id));
    });
    for (const { name, history } of accounts) {
      const mailboxes = seen.get(name);
      if (mailboxes === undefined) history.violations.push(`I11: ${name} could not be read within ${settledWithinMs} ms of the healing`);
      else history.check(mailboxes);
    }
    const violations = accounts.flatMap(({ history }) => history.violations);
    return { violations, faults: nemesis.counts, counts, settledMs: performance.now() - healedAtMs };
  } finally {
    await installation.stop();
  }
}

type Mailboxes = NonNullable<Awaited<ReturnType<typeof readAll>>>;

/** Reads all accounts until each is as `isWell` wants it; what was read last, if anything could be, after the time is over. */
async function settle(
  accounts: readonly ChaosAccount[],
  frontendAddresses: readonly string[],
  isWell: (account: ChaosAccount, mailboxes: Mailboxes) => boolean,
): Promise<Map<string, Mailboxes>> {
  const last = new Map<string, Mailboxes>();
  const endMs = performance.now() + settledWithinMs;
  await Promise.all(
    accounts.map(async (account, index) => {
      for (let tries = 0; performance.now() < endMs; tries += 1) {
        const mailboxes = await readAll(account.name, frontendAddresses[(index + tries) % frontendAddresses.length] as string);
        if (mailboxes !== undefined) last.set(account.name, mailboxes);
        if (mailboxes !== undefined && isWell(account, mailboxes)) return;
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
    }),
  );
  return last;
}
