/**
 * Search (RFC 4511 §4.5) with paged results (RFC 2696). Entries are looked at in pages between which other connections get their turn, and a
 * client that does not read holds up its own search only.
 */
import type { Clock } from '#common/clock.ts';
import { controlOids, findControl, makePagedResults, readPagedResults } from '#protocol/ldap/controls.ts';
import type { Filter } from '#protocol/ldap/filter.ts';
import type { Attribute, Control, SearchRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { makeSortResponse, readSortRequest } from '#protocol/ldap/sort.ts';
import { sizeLimitOf } from '../access/access.ts';
import { allows, type Decision, type Target } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import { type Candidates, pageSize, planCandidates } from './candidates.ts';
import { compileFilter } from './filter-match.ts';
import { requireEntry, targetOf } from './guard.ts';
import type { Operation } from './operation.ts';
import { checkReferral, obeysReferrals, referralsIn, sendReferences } from './referrals.ts';
import { compileSelection } from './selection.ts';
import { planSort, type SortFailure, type SortPlan, sortCandidates } from './sort.ts';
import type { Tree } from './tree.ts';
import { checkAssertion } from './write-rules.ts';

/** Longest search, seconds, when the client sets no lower limit. */
const timeLimitMaxSeconds = 3600;

/** Looking at entries holds others up for so long, and for one entry more, at most. */
const turnMaxMs = 10;

/** Characters of one entry that a filter's substrings may go through, each piece of it anew: other clients wait meanwhile. */
const examinedMax = 16_777_216;

/** Runs a search below the suffix to its end, SearchResultDone included. */
export async function search(tree: Tree, clock: Clock, request: SearchRequest, operation: Operation): Promise<void> {
  const { who, view } = operation;
  const pagedControl = findControl(operation.controls, controlOids.pagedResults);
  const paged = pagedControl === undefined ? undefined : readPagedResults(pagedControl.value);
  if (pagedControl !== undefined && paged === undefined) throw new Refusal('protocolError', 'the paged results control is malformed');
  const settled = tree.store.settled();
  if (settled !== undefined) await settled;

  const baseName = tree.parseName(request.baseDn);
  checkReferral(tree, operation, baseName, request.scope);
  const base = requireEntry(tree, view, baseName);
  if (!allows(view.decide('search', 'entry'), targetOf(tree, base))) {
    throw new Refusal(
      'insufficientAccessRights',
      who.dn === '' ? 'no search access for anonymous; bind first' : 'no search access to the base',
    );
  }
  checkAssertion(tree, operation, base);
  const mayReadEntry = view.decide('read', 'entry');
  if (mayReadEntry === false) return done(operation, [], paged === undefined ? undefined : '');
  const readable = (key: string): Decision => view.decide('read', key);
  let examined = 0;
  const matches = compileFilter(
    tree.schema,
    request.filter,
    (key) => view.decide('search', key),
    (characters) => {
      examined += characters;
      if (examined > examinedMax)
        throw new Refusal(
          'adminLimitExceeded',
          `the pieces of the filter have to be looked for in more than ${examinedMax} characters of one entry`,
        );
    },
  );
  const selection = compileSelection(tree.schema, request.attributes, request.typesOnly, readable);
  const needsOperational = selection.wantsOperational || mentionsOperational(tree, request.filter);
  const plan = (): Candidates => planCandidates(tree.store, tree.schema, base, request.scope, request.filter);

  const limits = [request.sizeLimit === 0 ? undefined : request.sizeLimit, sizeLimitOf(who)].filter((limit) => limit !== undefined);
  const sizeLimit = Math.min(...limits, Number.MAX_SAFE_INTEGER);
  const seconds = Math.min(request.timeLimitSeconds === 0 ? timeLimitMaxSeconds : request.timeLimitSeconds, timeLimitMaxSeconds);
  const endMs = clock.monotonicMs() + seconds * 1000;

  const referrals = obeysReferrals(tree, operation.controls) ? referralsIn(tree, request, base) : undefined;
  const visible = (id: number): { entry: StoredEntry; attributes: readonly Attribute[]; target: Target } | undefined => {
    const entry = tree.store.byId(id);
    if (entry === undefined || !isInScope(tree, request, base, entry) || referrals?.has(id) === true) return undefined;
    const target = targetOf(tree, entry);
    if (mayReadEntry !== true && !mayReadEntry(target)) return undefined;
    const attributes = tree.attributesOf(entry, needsOperational || sort !== undefined);
    examined = 0;
    return matches(attributes, target) === true ? { entry, attributes, target } : undefined;
  };
  // Lets others have their turn; a commit may be open then, and its changes are not to be seen before they are durable.
  let resumedAtMs = clock.monotonicMs();
  const pause = async (): Promise<boolean> => {
    if (clock.monotonicMs() > endMs) throw new Refusal('timeLimitExceeded', `the search took longer than ${seconds} s`);
    await nextTurn();
    const open = tree.store.settled();
    if (open !== undefined) await open;
    resumedAtMs = clock.monotonicMs();
    return !operation.isAborted;
  };
  const isPauseDue = (): boolean => clock.monotonicMs() - resumedAtMs > turnMaxMs;

  const sort = readSort(tree, operation, readable);
  const sorted =
    sort === undefined || 'resultCode' in sort.plan ? sort?.plan : await sortCandidates(sort.plan, plan(), visible, { pause, isPauseDue });
  if (operation.isAborted) return;
  const failure = sorted !== undefined && 'resultCode' in sorted ? sorted : undefined;
  if (failure !== undefined && sort?.critical === true) {
    const result = {
      resultCode: resultCodes.unavailableCriticalExtension,
      matchedDn: '',
      diagnosticMessage: `not sorted: ${failure.detail}`,
    };
    operation.send({ type: 'searchResultDone', ...result }, [makeSortResponse(failure.resultCode, failure.attribute)]);
    return;
  }
  const candidates = sorted !== undefined && 'next' in sorted ? sorted : plan();
  if (candidates.prepare !== undefined && !(await candidates.prepare(pause))) return;
  const answers = sort === undefined ? [] : [makeSortResponse(failure?.resultCode ?? resultCodes.success, failure?.attribute)];

  let cursor = paged === undefined ? 0 : readCursor(paged.cookie);
  let sent = 0;
  if (paged !== undefined && paged.size === 0) return done(operation, answers, '');
  if (referrals !== undefined && cursor === 0) sendReferences(tree, request, operation, referrals);
  for (let page = candidates.next(cursor); page.length > 0; page = candidates.next(cursor)) {
    for (const id of page) {
      cursor = candidates.by === 'sorted' ? cursor + 1 : id;
      if (isPauseDue() && !(await pause())) return;
      const found = visible(id);
      if (found === undefined) continue;
      if (sent >= sizeLimit) throw new Refusal('sizeLimitExceeded', `more than ${sizeLimit} entries match`);
      sendEntry(tree, operation, found.entry, selection.select(found.attributes, found.target));
      sent += 1;
      if (paged !== undefined && sent >= paged.size) return done(operation, answers, String(cursor));
      const room = operation.writable();
      if (room !== undefined) await room;
      if (operation.isAborted) return;
    }
    if (page.length < pageSize) break;
    if (!(await pause())) return;
  }
  done(operation, answers, paged === undefined ? undefined : '');
}

interface Sorting {
  readonly critical: boolean;
  readonly plan: SortPlan | SortFailure;
}

function readSort(tree: Tree, operation: Operation, readable: (key: string) => Decision): Sorting | undefined {
  const control = findControl(operation.controls, controlOids.serverSideSort);
  if (control === undefined) return undefined;
  const keys = readSortRequest(control.value);
  if (keys === undefined) throw new Refusal('protocolError', 'the sort control is malformed (RFC 2891 §1.1)');
  return { critical: control.critical, plan: planSort(tree.schema, keys, readable) };
}

/** Sends one entry. */
export function sendEntry(tree: Tree, operation: Operation, entry: StoredEntry, attributes: readonly Attribute[]): void {
  operation.send({ type: 'searchResultEntry', dn: tree.store.dnOf(entry), attributes });
}

/** Whether the entry is within base and scope. */
export function isInScope(
  tree: Tree,
  request: Pick<SearchRequest, 'scope'>,
  base: StoredEntry,
  entry: Pick<StoredEntry, 'id' | 'parentId'>,
): boolean {
  if (request.scope === 'base') return entry.id === base.id;
  if (request.scope === 'one') return entry.parentId === base.id;
  return tree.store.isWithin(entry, base.id);
}

/** Whether a filter asks for attributes that are computed on demand. */
export function mentionsOperational(tree: Tree, filter: Filter): boolean {
  switch (filter.kind) {
    case 'and':
    case 'or':
      return filter.filters.some((part) => mentionsOperational(tree, part));
    case 'not':
      return mentionsOperational(tree, filter.filter);
    default:
      if (filter.kind === 'extensible' && filter.dnAttributes) return true;
      return filter.attribute === undefined || (tree.schema.description(filter.attribute)?.type.isOperational ?? false);
  }
}

/** Lets the event loop turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function done(operation: Operation, answers: readonly Control[], pagedCookie: string | undefined): void {
  const controls =
    pagedCookie === undefined ? answers : [...answers, makePagedResults({ size: 0, cookie: Buffer.from(pagedCookie) }, false)];
  operation.send({ type: 'searchResultDone', resultCode: resultCodes.success, matchedDn: '', diagnosticMessage: '' }, controls);
}

// The cursor is the last entry's id, as candidates come in rising order of it; of a sorted search the number of those before.
function readCursor(cookie: Buffer): number {
  if (cookie.length === 0) return 0;
  const text = cookie.toString('latin1');
  if (!/^\d{1,15}$/.test(text))
    throw new Refusal('unwillingToPerform', 'the cookie of the paged results control is not one of this server');
  return Number(text);
}
