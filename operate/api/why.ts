/**
 * "Where is this user, and why?", asked of everyone who has a say:
 *
 *     address ──► directory server and its lag ──► entry ──► cluster ──► current host ──► live sessions
 *             └─► every frontend of every subset explains its own route ──► do they agree?
 *
 * Whoever cannot answer is shown with the reason; the verdict is made of what is known and ends with a line on what to do.
 */
import type { AccountWhereabouts } from '#backend-cluster/client/cluster-client.ts';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { withTimeout } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { RouteExplanation } from '#frontend/client/status.ts';
import { accountView } from './accounts.ts';
import { localExplanations, localSessions } from './local.ts';
import type { AdminOptions } from './options.ts';
import { gather } from './peers.ts';
import type { AccountView, SessionView, WhyReport } from './reports.ts';

/** Time that the directory and the cluster have to answer, each. */
const stepTimeoutMs = 5_000;
/** Most sessions shown for one user. */
const sessionsMax = 100;

/** Asks everyone. Rejects only when the address is malformed. */
export async function explainUser(options: AdminOptions, ownUrl: string, text: string): Promise<WhyReport> {
  const address = parseAccountName(text);
  const path = encodeURIComponent(address);
  const [routes, directory] = await Promise.all([
    localExplanations(options, address).then((own) => gather(options, ownUrl, `/api/v1/node/explain/${path}`, { explanations: own })),
    askDirectory(options, address),
  ]);
  const explanations = routes.answers.flatMap((answer) => answer.explanations);
  const [whereabouts, sessions] = await Promise.all([
    askCluster(options, directory.account, explanations),
    askSessions(options, ownUrl, directory.account?.name ?? address),
  ]);
  const facts = {
    address,
    replies: routes.replies,
    directory: directory.seen,
    account: directory.account,
    whereabouts: whereabouts.found,
    whereaboutsError: whereabouts.error,
    explanations,
    disagreement: disagreementOf(explanations),
    sessions,
  };
  return { ...facts, atMs: options.ports.clock.nowMs(), verdict: verdictOf(facts, directory.outcome) };
}

async function askDirectory(
  options: AdminOptions,
  address: AccountName,
): Promise<{ seen: WhyReport['directory']; account: AccountView | undefined; outcome: Outcome }> {
  const reader = options.directory?.reader;
  const none = { server: undefined, lagMs: undefined, servers: [] };
  if (reader === undefined) {
    const error = `node ${options.node} has no directory access`;
    return { seen: { ...none, error }, account: undefined, outcome: 'unanswered' };
  }
  const servers = await limited(options, 'the directory servers', reader.servers()).catch(() => []);
  try {
    let answer = await limited(options, 'the directory', reader.findAccount(address));
    if (answer.record === undefined && !answer.authoritative) {
      answer = await limited(options, 'the master directory', reader.findAccount(address, { authoritative: true }));
    }
    const lagMs = servers.find((server) => server.url === answer.server)?.lagMs;
    return {
      seen: { server: answer.server, lagMs, error: undefined, servers },
      account: answer.record === undefined ? undefined : accountView(answer.record, answer.server),
      outcome: answer.record !== undefined ? 'found' : answer.authoritative ? 'missing' : 'unanswered',
    };
  } catch (error) {
    const outcome = asPlatformError(error).code === 'DIR_ADDRESS_AMBIGUOUS' ? 'ambiguous' : 'unanswered';
    return { seen: { ...none, servers, error: messageOf(error) }, account: undefined, outcome };
  }
}

async function askCluster(
  options: AdminOptions,
  account: AccountView | undefined,
  explanations: readonly RouteExplanation[],
): Promise<{ found: AccountWhereabouts | undefined; error: string | undefined }> {
  // Without an answer of the directory, what the frontends remember is still worth asking with.
  const remembered = explanations.find((each) => each.uuid !== undefined && each.hostServer !== undefined);
  const uuid = account?.uuid ?? remembered?.uuid;
  const cluster = account?.hostServer ?? remembered?.hostServer;
  if (uuid === undefined || cluster === undefined) return { found: undefined, error: undefined };
  if (options.accounts === undefined) return { found: undefined, error: `node ${options.node} speaks to no cluster` };
  try {
    const asked = options.accounts.whereIs(
      cluster as Parameters<typeof options.accounts.whereIs>[0],
      uuid as Parameters<typeof options.accounts.whereIs>[1],
    );
    return { found: await limited(options, cluster, asked), error: undefined };
  } catch (error) {
    return { found: undefined, error: messageOf(error) };
  }
}

async function askSessions(options: AdminOptions, ownUrl: string, account: string): Promise<SessionView[]> {
  await Promise.all(options.services.map((service) => service.refresh?.()));
  const own = localSessions(options, { account }, sessionsMax);
  const asked = await gather(options, ownUrl, `/api/v1/node/sessions?limit=${sessionsMax}&account=${encodeURIComponent(account)}`, own);
  return asked.answers
    .flatMap((answer) => answer.sessions)
    .sort((a, b) => b.startedAtMs - a.startedAtMs)
    .slice(0, sessionsMax);
}

/** In what the frontends differ, if they do: a stale replica shows here before anybody complains. */
export function disagreementOf(explanations: readonly RouteExplanation[]): string | undefined {
  const groups = new Map<string, string[]>();
  for (const each of explanations) {
    const outcome = each.verdict === 'routed' ? `routes to ${each.hostServer ?? 'a cluster'}` : `says ${each.verdict}`;
    groups.set(outcome, [...(groups.get(outcome) ?? []), each.frontend]);
  }
  if (groups.size < 2) return undefined;
  return [...groups].map(([outcome, frontends]) => `${frontends.join(', ')} ${outcome}`).join('; ');
}

/** What asking the directory came to. */
type Outcome = 'found' | 'missing' | 'ambiguous' | 'unanswered';
type Facts = Omit<WhyReport, 'verdict' | 'atMs'>;

/** The last line of the answer. Pure. */
export function verdictOf(facts: Facts, outcome: Outcome): WhyReport['verdict'] {
  const { account, whereabouts, explanations, address } = facts;
  const routed = explanations.filter((each) => each.verdict === 'routed');
  if (outcome === 'missing') {
    const stale = routed.length > 0 ? `; ${routed.length} frontends still route it, from a replica that has not heard yet` : '';
    return {
      state: 'unknown',
      text: `The master directory has no account ${address}${stale}.`,
      fix: `archipelago account create ${address}`,
    };
  }
  if (outcome === 'ambiguous') {
    return {
      state: 'unavailable',
      text: `Nobody can say whose the address is: ${facts.directory.error}. Mail for it waits, and whoever logs in by it may be refused.`,
      fix: 'leave mail and mailAlternateAddress with that address to one entry',
    };
  }
  if (account === undefined && routed.length === 0) {
    const text = `The directory cannot be asked (${facts.directory.error ?? 'no answer'}), and no frontend knows a route.`;
    return { state: 'unavailable', text, fix: 'archipelago replica status' };
  }
  if (account?.status === 'locked' || account?.status === 'closed') {
    const what = account.status === 'locked' ? 'logins are refused, mail is still accepted' : 'logins and mail are refused';
    return { state: 'refused', text: `The account is ${account.status}: ${what}.`, fix: `set accountStatus of ${account.dn} to active` };
  }
  if (account?.status === 'maintenance') {
    return {
      state: 'unavailable',
      text: 'The account is in maintenance: logins and mail get a temporary refusal.',
      fix: `set accountStatus of ${account.dn} to active`,
    };
  }
  if (account !== undefined && account.hostServer === undefined) {
    const why = account.hostServerProblem ?? 'the attribute is missing';
    return {
      state: 'unavailable',
      text: `The account has no usable hostServer: ${why}.`,
      fix: `set hostServer of ${account.dn} to a cluster of archipelago topology`,
    };
  }
  const cluster = account?.hostServer ?? routed[0]?.hostServer ?? 'its cluster';
  if (whereabouts?.state === 'not-here' || whereabouts?.state === 'tombstone') {
    const text =
      whereabouts.state === 'tombstone'
        ? `${cluster} has removed the account and keeps its storage as a tombstone.`
        : `${cluster} says that it does not host the account.`;
    return { state: 'unavailable', text, fix: `see that ${cluster} follows the directory: archipelago status` };
  }
  if (explanations.length > 0 && routed.length < explanations.length) {
    const failing = explanations.find((each) => each.verdict !== 'routed');
    const text = `${explanations.length - routed.length} of ${explanations.length} frontends cannot route it; ${failing?.frontend}: ${failing?.steps.at(-1)?.found ?? failing?.verdict}.`;
    return {
      state: 'unavailable',
      text,
      fix: routed.length === 0 ? `archipelago status, for ${cluster}` : 'archipelago replica status: one replica may be behind',
    };
  }
  if (facts.whereaboutsError !== undefined && routed.length === 0) {
    return { state: 'unavailable', text: `${cluster} cannot be asked: ${facts.whereaboutsError}.`, fix: 'archipelago status' };
  }
  const member = whereabouts?.currentHost ?? routed[0]?.member;
  const how = whereabouts?.currentHost === undefined ? 'the next session opens it there' : 'it is open there';
  const text = `Served by ${cluster}${member === undefined ? '' : ` on ${member} (${how})`}; ${facts.sessions.length} live session${facts.sessions.length === 1 ? '' : 's'}.`;
  return { state: 'served', text, fix: facts.disagreement === undefined ? undefined : 'frontends disagree: archipelago replica status' };
}

function limited<T>(options: AdminOptions, who: string, work: Promise<T>): Promise<T> {
  return withTimeout(
    options.ports.clock,
    stepTimeoutMs,
    work,
    () => new PlatformError('NET_TIMEOUT', `${who} did not answer within ${stepTimeoutMs} ms`),
  );
}
