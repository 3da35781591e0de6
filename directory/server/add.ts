/**
 * Add (RFC 4511 §4.7). On the master an account without `hostServer` is placed, and one without `mail` gets its name as `mail`.
 */
import { printable, tryParseAccountUuid } from '#common/account-name.ts';
import { formatDn, formatRdn, type Rdn } from '#protocol/ldap/dn.ts';
import { type AddRequest, type Attribute, attribute, type Control, textOf } from '#protocol/ldap/messages.ts';
import { allows } from '../access/view.ts';
import { generalizedTime } from '../changelog/csn.ts';
import { accountNameOf, knownClusters } from '../provisioning/mail-rules.ts';
import { placeAccount } from '../provisioning/place.ts';
import { Refusal } from '../schema/refusal.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import type { StoredEntry } from '../store/entry-store.ts';
import { canonicalAttributes, classKeysOf, structuralClassOf, withAttribute, withNamingValues } from './draft.ts';
import { demand, draftTarget, requireParentEntry, targetOf } from './guard.ts';
import { checkReferral } from './referrals.ts';
import type { EntryName } from './tree.ts';
import {
  checkAssertion,
  checkMayRelax,
  checkMode,
  checkWholeEntry,
  csnFor,
  isRelaxed,
  readEntryControl,
  type WriteContext,
  type WriteRequest,
} from './write-rules.ts';

/** Adds an entry; inside `store.write`. Returns the response controls. */
export function addEntry(context: WriteContext, operation: AddRequest, request: WriteRequest): Control[] {
  const { tree } = context;
  const name = tree.parseNewName(operation.dn);
  checkMode(context, request, operation.dn);
  const relaxed = isRelaxed(request);
  if (name.keys.length === 0) throw new Refusal('entryAlreadyExists', 'the root DSE cannot be added');
  if (!tree.isWithinSuffix(name)) {
    throw new Refusal('noSuchObject', `"${printable(operation.dn)}" is not below ${tree.suffix.text}, the base of this tree`);
  }
  const sent = canonicalAttributes(tree.schema, operation.attributes, relaxed && tree.mode === 'replica');
  const given = withNamingValues(tree.schema, sent, name.dn[0] as Rdn);
  checkReferral(tree, request, name);
  const parent = checkMayAdd(context, request, name, given);
  const rdnNorm = name.keys[0] as string;
  const isThere = parent === undefined ? tree.find(name) !== undefined : tree.store.childId(parent.id, rdnNorm) !== undefined;
  if (isThere) throw new Refusal('entryAlreadyExists', `there is an entry "${printable(operation.dn)}" already`);
  const place = parent === undefined ? tree.requireParent(name) : { parentId: parent.id, rdn: formatRdn(name.dn[0] as Rdn), rdnNorm };
  const kept = takeOperational(context, given, relaxed);
  const classKeys = classKeysOf(tree.schema, kept.attributes);
  let attributes = kept.attributes;
  if (classKeys.has('mailaccount') && !(relaxed && tree.mode === 'replica'))
    attributes = completeAccount(context, attributes, place.parentId);
  checkWholeEntry(context, { parentId: place.parentId, rdn: name.dn[0] as Rdn, attributes, before: undefined }, relaxed);

  const structural = structuralClassOf(tree.schema, attributes);
  attributes = structural === undefined ? [...attributes] : withAttribute(attributes, 'structuralObjectClass', structural);
  const now = generalizedTime(context.clock.nowMs());
  const who = request.who.dn;
  for (const [type, value] of [
    ['createTimestamp', now],
    ['creatorsName', who],
    ['modifyTimestamp', now],
    ['modifiersName', who],
  ] as const) {
    const given = kept.stamps.get(type);
    attributes.push(given === undefined ? { type, values: stampValues(value) } : attribute(type, given));
  }

  const owner = kept.uuid === undefined ? undefined : tree.store.byUuid(kept.uuid);
  if (owner !== undefined) throw new Refusal('constraintViolation', `entryUUID ${kept.uuid} belongs to ${tree.store.dnOf(owner)} already`);
  const uuid = kept.uuid ?? context.random.uuid();
  const csn = csnFor(context, kept.csn, undefined);
  const entry = tree.store.add({ ...place, uuid, csn, attributes });
  checkAssertion(context.tree, request, entry);
  const post = readEntryControl(context, request, 'postRead', entry);
  return post === undefined ? [] : [post];
}

// The place, the entry and each of its attributes; what the server adds by itself is not asked about. Gives the entry above; the base has none.
function checkMayAdd(context: WriteContext, request: WriteRequest, name: EntryName, given: readonly Attribute[]): StoredEntry | undefined {
  const { tree } = context;
  const { view } = request;
  const target = draftTarget(name.keys, given);
  let parent: StoredEntry | undefined;
  if (name.keys.length > tree.suffix.keys.length) {
    const dn = name.dn.slice(1);
    parent = requireParentEntry(tree, view, name.above ?? { text: formatDn(dn), dn, keys: name.keys.slice(1) });
    const mayAddBelow = allows(view.decide('add', 'children'), targetOf(tree, parent));
    if (!mayAddBelow) throw new Refusal('insufficientAccessRights', `no add access to entries below ${printable(tree.store.dnOf(parent))}`);
  }
  if (!allows(view.decide('add', 'entry'), target))
    throw new Refusal('insufficientAccessRights', `no add access to an entry "${printable(name.text)}"`);
  checkMayRelax(request, target);
  for (const { type } of given) {
    const described = tree.schema.description(type, true)?.type;
    if (described !== undefined) demand(view, target, 'add', described.key, `attribute ${described.name}`);
  }
  return parent;
}

const stampsKept = 4;
let lastStamps: { readonly text: string; readonly values: readonly Buffer[] }[] = [];

/** What stamps say, as values: many entries in a row have the same times and writers. */
function stampValues(text: string): readonly Buffer[] {
  const known = lastStamps.find((one) => one.text === text);
  if (known !== undefined) return known.values;
  const values = [Buffer.from(text)];
  lastStamps = [{ text, values }, ...lastStamps].slice(0, stampsKept);
  return values;
}

interface KeptOperational {
  readonly attributes: Attribute[];
  readonly uuid: string | undefined;
  readonly csn: string | undefined;
  readonly stamps: ReadonlyMap<string, string>;
}

const noStamps: ReadonlyMap<string, string> = new Map();

// Operational attributes leave the list: with relax they are honoured, without they are refused.
function takeOperational(context: WriteContext, attributes: Attribute[], relaxed: boolean): KeptOperational {
  const { tree } = context;
  const serverOnly = attributes.filter((one) => tree.schema.description(one.type)?.type.isServerOnly === true);
  if (serverOnly.length === 0) return { attributes, uuid: undefined, csn: undefined, stamps: noStamps };
  if (serverOnly.length > 0 && !relaxed) {
    throw new Refusal('constraintViolation', `attribute ${serverOnly[0]?.type ?? ''} is kept by the server and cannot be written`);
  }
  const uuidText = textOf(serverOnly, 'entryUUID');
  const uuid = uuidText === undefined ? undefined : tryParseAccountUuid(uuidText);
  if (uuidText !== undefined && uuid === undefined) throw new Refusal('invalidAttributeSyntax', 'entryUUID is not a UUID');
  const csn = textOf(serverOnly, 'entryCSN');
  if (csn !== undefined && !csnPattern.test(csn)) throw new Refusal('invalidAttributeSyntax', 'entryCSN is not a change sequence number');
  const contextCsn = textOf(serverOnly, 'contextCSN');
  if (contextCsn !== undefined && csnPattern.test(contextCsn)) tree.setContextCsn(contextCsn);
  const stamps = new Map<string, string>();
  for (const type of ['createTimestamp', 'creatorsName', 'modifyTimestamp', 'modifiersName']) {
    const value = textOf(serverOnly, type);
    if (value !== undefined) stamps.set(type, value);
  }
  return { attributes: attributes.filter((one) => !serverOnly.includes(one)), uuid, csn, stamps };
}

function completeAccount(context: WriteContext, attributes: Attribute[], parentId: number): Attribute[] {
  const { tree } = context;
  let completed = attributes;
  if (textOf(completed, 'mail') === undefined) {
    const name = accountNameOf(tree, parentId, textOf(completed, 'uid'));
    if (name !== undefined) completed = [...completed, attribute('mail', name)];
  }
  if (textOf(completed, 'hostServer') === undefined) {
    const cluster = placeAccount(context.placement, knownClusters(tree), textOf(completed, 'mailRegion'), context.random);
    if (cluster !== undefined) completed = [...completed, attribute('hostServer', cluster)];
  }
  return completed;
}
