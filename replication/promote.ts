/**
 * Makes a replica the master, so that there is never a moment with two.
 *
 *   planned   master: freeze ──► replica: has all up to the freeze ──► master: superseded (refers writers on) ──► replica: master of term + 1
 *   forced    the master does not answer: what was received from it is applied; the other servers are told the new term, so that nothing
 *             of the old one counts any more; if it may live on unseen, time for it to stop by itself passes; replica: master of term + 1
 *
 * A planned promotion loses nothing that was answered: the freeze comes before the last look, and nothing is answered while frozen. A forced
 * one may lack what the dead master answered and never sent; the report says how long it had been silent. What was not told at once is told
 * by master-watch.ts, for as long as it takes.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openBound } from '#directory/client/access.ts';
import { askAuthority, hasAuthority } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { answersLastMs } from '#directory/client/peers.ts';
import type { PromotionReport } from '#replication/client/status.ts';
import type { ServerAccess } from '#replication/server-access.ts';

const freezeSeconds = 60;
const lookEveryMs = 50;

/** One server that takes part. */
export interface PromotionServer {
  readonly name: string;
  readonly access: ServerAccess;
}

/** What a promotion needs. */
export interface PromotionOptions {
  readonly target: PromotionServer;
  readonly master: PromotionServer;
  /** Every other server. */
  readonly others: readonly PromotionServer[];
  readonly term: number;
  readonly isForced: boolean;
  /** Time for the replica to catch up. */
  readonly withinMs: number;
  /** Changes received from the master that the replica has not acknowledged. */
  readonly backlog: () => number;
  readonly ports: Ports;
}

/** Promotes. Rejects with `REPL_NOT_PROMOTED`; then the master is the master still, or again. */
export async function promote(options: PromotionOptions): Promise<PromotionReport> {
  const { target, master, isForced, ports } = options;
  await using replica = await openBound(target.access.url, target.access, ports).catch((error: unknown) => {
    throw notPromoted(
      `${target.name} (${target.access.url}) cannot be asked: ${messageOf(error)}. ${master.name} goes on as it is; start ${target.name} or ` +
        'promote another replica',
    );
  });
  if (!(await hasAuthority(replica))) {
    throw notPromoted(
      `${target.name} is not a Directory Server of ours; make it the master by its own means, and name it in the configuration`,
    );
  }
  // Asked before anybody is stopped or told of another master: it would refuse at the end.
  if ((await askAuthority(replica, { op: 'look' })).isFilled === false) {
    throw notPromoted(
      `${target.name} is still being filled by replication and has only a part of the directory. ${master.name} was not asked to stop; wait until ` +
        `\`archipelago replica status\` says that ${target.name} follows, or promote another replica`,
    );
  }
  let old: LdapConnection | undefined;
  let whyNot = '';
  try {
    old = await openBound(master.access.url, master.access, ports);
    if (!(await hasAuthority(old))) {
      old.destroy();
      old = undefined;
      whyNot = 'it is not a Directory Server of ours and cannot be told to stop';
    }
  } catch (error) {
    whyNot = messageOf(error);
  }
  if (old !== undefined) {
    try {
      return await planned(options, replica, old);
    } finally {
      await old[Symbol.asyncDispose]();
    }
  }
  if (!isForced) {
    const { contextCsn } = await askAuthority(replica, { op: 'look' });
    throw notPromoted(
      `the master ${master.access.url} cannot hand over: ${whyNot}. ${target.name} has everything up to ${contextCsn}; ` +
        `${options.backlog()} changes were received and are not applied. If the master is lost for good, say --force: what it answered and did not ` +
        'send is lost then',
    );
  }
  return await forced(options, replica, whyNot);
}

async function planned(options: PromotionOptions, replica: LdapConnection, old: LdapConnection): Promise<PromotionReport> {
  const { target, master, term, ports, withinMs } = options;
  const frozen = await askAuthority(old, { op: 'freeze', seconds: freezeSeconds });
  const startedMs = ports.clock.monotonicMs();
  try {
    await reaches(replica, frozen.contextCsn, Math.min(withinMs, (freezeSeconds * 1000) / 2), ports.clock);
  } catch (error) {
    await askAuthority(old, { op: 'thaw' });
    throw notPromoted(`${target.name} does not catch up: ${messageOf(error)}. ${master.access.url} goes on as the master`);
  }
  await askAuthority(old, { op: 'follow', term, master: target.access.url });
  try {
    await askAuthority(replica, { op: 'promote', term, csn: frozen.contextCsn });
  } catch (error) {
    // It has everything, nobody else took a write: it may be the master again.
    await askAuthority(old, { op: 'promote', term: term + 1 });
    throw notPromoted(`${target.name} refuses: ${messageOf(error)}. ${master.access.url} is the master again, in term ${term + 1}`);
  }
  const frozenMs = Math.round(ports.clock.monotonicMs() - startedMs);
  const told = await tellAll(options);
  const { contextCsn } = await askAuthority(replica, { op: 'look' });
  return { replica: target.name, url: target.access.url, term, contextCsn, isForced: false, missing: '', frozenMs, ...told };
}

async function forced(options: PromotionOptions, replica: LdapConnection, whyNot: string): Promise<PromotionReport> {
  const { target, term, ports, withinMs, backlog } = options;
  const { clock } = ports;
  const startedMs = clock.monotonicMs();
  while (backlog() > 0) {
    if (clock.monotonicMs() - startedMs > withinMs) {
      throw notPromoted(
        `${target.name} has not applied ${backlog()} changes that were received from the master; see archipelago replica status`,
      );
    }
    await sleep(clock, lookEveryMs);
  }
  const told = await tellAll(options);
  // A master that lives on unseen and needs a majority has none any more once the answers it got before are too old.
  await sleep(clock, answersLastMs);
  try {
    await askAuthority(replica, { op: 'promote', term: term + 1 });
  } catch (error) {
    throw notPromoted(`${target.name} refuses: ${messageOf(error)}`);
  }
  const again = await tellAll({ ...options, term: term + 1 });
  const { contextCsn } = await askAuthority(replica, { op: 'look' });
  const missing =
    `everything that was received from the old master is there, up to ${contextCsn}; what it answered after that and did not send is missing ` +
    `(${whyNot})`;
  return {
    replica: target.name,
    url: target.access.url,
    term: term + 1,
    contextCsn,
    isForced: true,
    missing,
    frozenMs: 0,
    told: [...new Set([...told.told, ...again.told])],
    notTold: again.notTold,
  };
}

async function reaches(replica: LdapConnection, csn: string, withinMs: number, clock: Clock): Promise<void> {
  const startedMs = clock.monotonicMs();
  for (;;) {
    const { contextCsn } = await askAuthority(replica, { op: 'look' });
    if (contextCsn >= csn) return;
    if (clock.monotonicMs() - startedMs > withinMs) throw new Error(`it is at ${contextCsn}, the master at ${csn}, after ${withinMs} ms`);
    await sleep(clock, lookEveryMs);
  }
}

async function tellAll({ others, target, term, ports }: PromotionOptions): Promise<{ told: string[]; notTold: string[] }> {
  const told: string[] = [];
  const notTold: string[] = [];
  await Promise.all(
    others.map(async ({ name, access }) => {
      try {
        await using connection = await openBound(access.url, { ...access, timeoutMs: 2000 }, ports);
        // Servers that are not ours have no term, and nothing to be told.
        if (!(await hasAuthority(connection))) return;
        await askAuthority(connection, { op: 'follow', term, master: target.access.url });
        told.push(name);
      } catch (error) {
        ports.log.warn({ component: 'promote', replica: name }, `does not know of term ${term} yet: ${messageOf(error)}`);
        notTold.push(name);
      }
    }),
  );
  return { told, notTold };
}

function notPromoted(why: string): PlatformError {
  return new PlatformError('REPL_NOT_PROMOTED', why);
}
