/**
 * Makes a replica the master, so that there is never a moment with two.
 *
 *   planned   master: freeze ──► replica: has all up to the freeze ──► master: superseded (refers writers on) ──► replica: master of term + 1
 *   forced    the master does not answer: what was received from it is applied; the other servers are told the new term, so that nothing
 *             of the old one counts any more; if it may live on unseen, time for it to stop by itself passes; replica: master of term + 1
 *   again     the master is a replica as well: whoever promoted before broke off in the middle. Every other server is told the new term, so
 *             that who broke off can do no more, and has no more than the replica; replica: master of term + 1
 *
 * Two that are forced at once: each tells the other's server of its own before it makes its server the master, and a server that was told of
 * another one in that term refuses. So at most one gets through, where they reach each other's servers.
 *
 * A planned promotion loses nothing that was answered: the freeze comes before the last look, and nothing is answered while frozen. One
 * service at a time can freeze, and hands over only what it has frozen. A forced one may lack what the dead master answered and never sent; the
 * report says how long it had been silent. What was not told at once is told by master-watch.ts, for as long as it takes.
 */
import { sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openBound } from '#directory/client/access.ts';
import { type AuthorityAnswer, askAuthority, hasAuthority } from '#directory/client/authority.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { answersLastMs } from '#directory/client/peers.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import type { PromotionReport, ReplicaStatus } from '#replication/client/status.ts';
import type { ServerAccess } from '#replication/server-access.ts';

const freezeSeconds = 60;
const lookEveryMs = 50;
/** Answers that say that nothing was done; after any other one it may have been. */
const refusals: ReadonlySet<number> = new Set([
  resultCodes.unwillingToPerform,
  resultCodes.insufficientAccessRights,
  resultCodes.protocolError,
]);

/** One server that takes part. */
export interface PromotionServer {
  readonly name: string;
  readonly access: ServerAccess;
}

/** What a promotion needs. */
export interface PromotionOptions {
  readonly target: PromotionServer;
  /** Who is the master as far as is known; the target itself where a promotion of it broke off. */
  readonly master: PromotionServer;
  /** Every other server. */
  readonly others: readonly PromotionServer[];
  readonly term: number;
  readonly isForced: boolean;
  /** Time for the replica to catch up. */
  readonly withinMs: number;
  /** How the replica is fed; `undefined` where this service does not feed it. */
  readonly fed: () => ReplicaStatus | undefined;
  readonly ports: Ports;
}

/** Promotes. Rejects with `REPL_NOT_PROMOTED`; then the master is the master still, or again. */
export async function promote(options: PromotionOptions): Promise<PromotionReport> {
  const { target, master, isForced, ports } = options;
  await using replica = await openBound(target.access.url, target.access, ports).catch((error: unknown) => {
    throw notPromoted(
      `${target.name} (${target.access.url}) cannot be asked: ${messageOf(error)}. ` +
        (target.access.url === master.access.url
          ? `Start ${target.name}; where it is lost, promote another replica with --force`
          : `${master.name} goes on as it is; start ${target.name} or promote another replica`),
    );
  });
  if (!(await hasAuthority(replica))) {
    throw notPromoted(
      `${target.name} is not a Directory Server of ours; make it the master by its own means, and name it in the configuration`,
    );
  }
  const { mode, isFilled, term } = await askAuthority(replica, { op: 'look' });
  const isKnownMaster = target.access.url === master.access.url;
  if (isKnownMaster && mode === 'master') {
    const { answers } = await lookAtAll(options);
    const rivals = answers.filter((one) => one.answer.mode === 'master' && one.answer.term === term).map((one) => one.name);
    if (rivals.length === 0) throw notPromoted(`${target.name} is the master already`);
    const two = `${rivals.join(', ')} is a master of term ${term} as well as ${target.name}`;
    if (!isForced) throw notPromoted(`${two}. Say --force for the one that shall stay; what only the other one has is undone there`);
    return await forced(options, replica, two);
  }
  // Asked before anybody is stopped or told of another master: it would refuse at the end.
  if (isFilled === false) {
    const has = `${target.name} has only a part of the directory`;
    throw notPromoted(
      isKnownMaster
        ? `${has}: replication has not filled it. No server is the master; promote one that has everything`
        : `${has}: it is still being filled by replication. ${master.name} was not asked to stop; wait until \`archipelago replica status\` ` +
            `says that ${target.name} follows, or promote another replica`,
    );
  }
  if (isKnownMaster) return await again(options, replica);
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
      const isMaster = (await askAuthority(old, { op: 'look' })).mode === 'master';
      return isMaster ? await planned(options, replica, old) : await again(options, replica);
    } finally {
      await old[Symbol.asyncDispose]();
    }
  }
  if (!isForced) {
    const { contextCsn } = await askAuthority(replica, { op: 'look' });
    throw notPromoted(
      `the master ${master.access.url} cannot hand over: ${whyNot}. ${target.name} has everything up to ${contextCsn}; ` +
        `${options.fed()?.backlogChanges ?? 0} changes were received and are not applied. If the master is lost for good, say --force: what it answered and did not ` +
        'send is lost then',
    );
  }
  return await forced(options, replica, whyNot);
}

async function planned(options: PromotionOptions, replica: LdapConnection, old: LdapConnection): Promise<PromotionReport> {
  const { target, master, term, ports, withinMs } = options;
  const lacks = await mayLack(options);
  const frozen = await askAuthority(old, { op: 'freeze', seconds: freezeSeconds }).catch((error: unknown) => {
    const isKnown = resultCodeOf(error) !== undefined;
    throw notPromoted(
      `${isKnown ? `${master.name} does not stop for it` : `whether ${master.name} stops for it is not known`}: ${messageOf(error)}` +
        (isKnown
          ? ''
          : `. If it has stopped, it takes writes again after ${freezeSeconds} s; promote ${target.name} again when it answers`),
    );
  });
  const startedMs = ports.clock.monotonicMs();
  try {
    await reaches(options, replica, frozen.contextCsn, Math.min(withinMs, (freezeSeconds * 1000) / 2));
  } catch (error) {
    await askAuthority(old, { op: 'thaw' }).catch((notNow: unknown) => {
      ports.log.warn({ component: 'promote' }, `${master.access.url} takes writes again in ${freezeSeconds} s: ${messageOf(notNow)}`);
    });
    throw notPromoted(`${target.name} does not catch up: ${messageOf(error)}. ${master.access.url} goes on as the master`);
  }
  try {
    await askAuthority(old, { op: 'follow', term, master: target.access.url, handsOver: frozen.contextCsn });
  } catch (error) {
    throw notPromoted(
      resultCodeOf(error) === undefined
        ? `whether ${master.name} has handed over is not known: ${messageOf(error)}. Promote ${target.name} again: it goes on from there`
        : `${master.name} does not hand over: ${messageOf(error)}`,
    );
  }
  try {
    await askAuthority(replica, { op: 'promote', term, csn: frozen.contextCsn });
  } catch (error) {
    await takeBack(options, old, frozen.contextCsn, error);
  }
  const frozenMs = Math.round(ports.clock.monotonicMs() - startedMs);
  const { told, notTold } = await tellAll(options, term);
  const { contextCsn } = await askAuthority(replica, { op: 'look' });
  return { ...reportOf(options, term, contextCsn), missing: lacks, frozenMs, told: told.map((one) => one.name), notTold };
}

/** The replica did not become the master, or did not say so. Rejects. */
async function takeBack(options: PromotionOptions, old: LdapConnection, csn: string, error: unknown): Promise<never> {
  const { target, master, term } = options;
  // It may be the master of that term and take writes already.
  if (!refusals.has(resultCodeOf(error) ?? -1)) {
    throw notPromoted(
      `whether ${target.name} is the master is not known: ${messageOf(error)}. ${master.name} has handed over and takes no writes; ` +
        `promote ${target.name} again when it answers, or another replica with --force`,
    );
  }
  // It has everything, nobody else took a write: it may be the master again.
  await askAuthority(old, { op: 'promote', term: term + 1, csn }).catch((notAgain: unknown) => {
    throw notPromoted(
      `${target.name} refuses: ${messageOf(error)}. ${master.name} has handed over, and does not become the master again: ` +
        `${messageOf(notAgain)}. Look with \`archipelago replica status\` who is the master; if nobody is, promote one of them`,
    );
  });
  throw notPromoted(`${target.name} refuses: ${messageOf(error)}. ${master.access.url} is the master again, in term ${term + 1}`);
}

async function forced(options: PromotionOptions, replica: LdapConnection, whyNot: string): Promise<PromotionReport> {
  const { target, ports, withinMs, fed } = options;
  const { clock } = ports;
  const startedMs = clock.monotonicMs();
  for (let backlog = 1; backlog > 0; ) {
    backlog = fed()?.backlogChanges ?? 0;
    if (backlog > 0 && clock.monotonicMs() - startedMs > withinMs) {
      throw notPromoted(
        `${target.name} has not applied ${backlog} changes that were received from the master; see archipelago replica status`,
      );
    }
    if (backlog > 0) await sleep(clock, lookEveryMs);
  }
  const refused = refusedText(target, fed());
  const term = await nextTerm(options, replica);
  const { told } = await tellAll(options, term);
  // A master that lives on unseen and needs a majority has none any more once the answers it got before are too old.
  await sleep(clock, answersLastMs);
  return await takeOver(options, replica, term + 1, (contextCsn) => {
    const ahead = aheadOf(contextCsn, told).map((one) => `; ${one} has changes of it up to a later one, which are undone there`);
    return (
      `everything that was received from the old master is there, up to ${contextCsn}; what it answered after that and did not send is ` +
      `missing (${whyNot})${ahead.join('')}${refused === '' ? '' : `; ${refused}`}`
    );
  });
}

/** Ends what another promotion left half done: nobody is the master. */
async function again(options: PromotionOptions, replica: LdapConnection): Promise<PromotionReport> {
  const { target, master, others, isForced } = options;
  const everybody = { ...options, others: [...others, ...(target.access.url === master.access.url ? [] : [master])] };
  const broken = 'a promotion broke off before, and no server is the master';
  const { answers, silent } = await lookAtAll(everybody);
  const isMaster = answers.find((one) => one.answer.mode === 'master' && one.answer.term >= options.term - 1);
  if (isMaster !== undefined) throw notPromoted(`${isMaster.name} is the master by now; look with \`archipelago replica status\``);
  const { contextCsn } = await askAuthority(replica, { op: 'look' });
  const check = (those: readonly Answered[], mute: readonly string[]): void => {
    const ahead = aheadOf(contextCsn, those);
    if (ahead.length > 0) {
      throw notPromoted(
        `${broken}. ${target.name} has everything up to ${contextCsn}, and ${ahead.join(', ')} more: promote that one, or say --force and lose it`,
      );
    }
    if (mute.length > 0) {
      throw notPromoted(
        `${broken}. ${mute.join(', ')} cannot be asked and may have more than ${target.name}, which has everything up to ${contextCsn}. ` +
          'Start what is away, or say --force',
      );
    }
  };
  if (isForced) return await forced(everybody, replica, broken);
  check(answers, silent);
  const term = await nextTerm(everybody, replica);
  const { told, notTold } = await tellAll(everybody, term);
  // By now none of them follows who broke off.
  check(told, notTold);
  return await takeOver(everybody, replica, term + 1, () => '');
}

/** Makes it the master of that term, and has all others know. */
async function takeOver(
  options: PromotionOptions,
  replica: LdapConnection,
  term: number,
  missing: (contextCsn: string) => string,
): Promise<PromotionReport> {
  const { name, access } = options.target;
  const { contextCsn } = await askAuthority(replica, { op: 'promote', term, claimed: access.url }).catch((error: unknown) => {
    throw notPromoted(
      refusals.has(resultCodeOf(error) ?? -1)
        ? `${name} refuses: ${messageOf(error)}. Look with \`archipelago replica status\` who is the master; if nobody is, promote one again`
        : `whether ${name} is the master is not known: ${messageOf(error)}. Promote it again when it answers; if it is the master by then, that says so`,
    );
  });
  const { told, notTold } = await tellAll(options, term);
  return { ...reportOf(options, term, contextCsn), missing: missing(contextCsn), frozenMs: 0, told: told.map((one) => one.name), notTold };
}

function reportOf({ target, isForced }: PromotionOptions, term: number, contextCsn: string) {
  return { replica: target.name, url: target.access.url, term, contextCsn, isForced };
}

/**
 * What the replica may lack although it has come as far as the master, in a sentence; empty for one that follows and takes everything. Any
 * other one is promoted only when that is forced: its CSNs may be those of another history.
 */
async function mayLack({ target, master, isForced, withinMs, fed, ports }: PromotionOptions): Promise<string> {
  const startedMs = ports.clock.monotonicMs();
  for (;;) {
    const now = fed();
    const refused = refusedText(target, now);
    if (now?.state === 'following' && refused === '') return '';
    if (isForced)
      return refused === '' ? `${target.name} was ${now?.state ?? 'not fed'}: it may lack what only ${master.name} has` : refused;
    if (now?.state === 'stopped' || refused !== '' || ports.clock.monotonicMs() - startedMs > withinMs) {
      const why =
        refused === ''
          ? `${target.name} is ${now?.state ?? 'not fed'}${now?.lastError === undefined ? '' : `: ${now.lastError}`}`
          : refused;
      throw notPromoted(`${why}. ${master.name} was not asked to stop; put that right first, promote another replica, or say --force`);
    }
    await sleep(ports.clock, lookEveryMs);
  }
}

function refusedText(target: PromotionServer, now: ReplicaStatus | undefined): string {
  const entries = now?.refused.entries ?? 0;
  return entries === 0
    ? ''
    : `${target.name} refuses ${entries} entries, which it lacks or has in an older state, ${now?.refused.first[0]?.dn} among them`;
}

async function reaches(
  { fed, isForced, ports: { clock } }: PromotionOptions,
  replica: LdapConnection,
  csn: string,
  withinMs: number,
): Promise<void> {
  const startedMs = clock.monotonicMs();
  for (;;) {
    const { contextCsn } = await askAuthority(replica, { op: 'look' });
    const { state, contextCsn: acknowledged = '' } = fed() ?? {};
    // What it says by itself may be of another history; what it has acknowledged of this master's stream is not.
    if (contextCsn >= csn && (isForced || (state === 'following' && acknowledged >= csn))) return;
    if (clock.monotonicMs() - startedMs > withinMs) throw new Error(`it is at ${contextCsn}, the master at ${csn}, after ${withinMs} ms`);
    await sleep(clock, lookEveryMs);
  }
}

interface Answered {
  readonly name: string;
  readonly answer: AuthorityAnswer;
}

function aheadOf(csn: string, those: readonly Answered[]): string[] {
  return those.filter(({ answer }) => answer.contextCsn > csn).map(({ name, answer }) => `${name} (${answer.contextCsn})`);
}

async function nextTerm(options: PromotionOptions, replica: LdapConnection): Promise<number> {
  const { answers } = await lookAtAll(options);
  const own = await askAuthority(replica, { op: 'look' });
  return Math.max(options.term, own.term + 1, ...answers.map((one) => one.answer.term + 1));
}

async function lookAtAll(options: PromotionOptions): Promise<{ answers: Answered[]; silent: string[] }> {
  const { answers, silent } = await askOthers(options, (connection) => askAuthority(connection, { op: 'look' }));
  return { answers, silent: silent.map((one) => one.name) };
}

async function tellAll(options: PromotionOptions, term: number): Promise<{ told: Answered[]; notTold: string[] }> {
  const { target, ports } = options;
  const { answers, silent } = await askOthers(options, (connection) =>
    askAuthority(connection, { op: 'follow', term, master: target.access.url }),
  );
  for (const { name, why } of silent) ports.log.warn({ component: 'promote', replica: name }, `does not know of term ${term} yet: ${why}`);
  return { told: answers, notTold: silent.map((one) => one.name) };
}

async function askOthers(
  { others, ports }: PromotionOptions,
  ask: (connection: LdapConnection) => Promise<AuthorityAnswer>,
): Promise<{ answers: Answered[]; silent: { readonly name: string; readonly why: string }[] }> {
  const answers: Answered[] = [];
  const silent: { readonly name: string; readonly why: string }[] = [];
  await Promise.all(
    others.map(async ({ name, access }) => {
      try {
        await using connection = await openBound(access.url, { ...access, timeoutMs: 2000 }, ports);
        // Servers that are not ours have no term, and nothing to be told.
        if (await hasAuthority(connection)) answers.push({ name, answer: await ask(connection) });
      } catch (error) {
        silent.push({ name, why: messageOf(error) });
      }
    }),
  );
  return { answers, silent };
}

function notPromoted(why: string): PlatformError {
  return new PlatformError('REPL_NOT_PROMOTED', why);
}
