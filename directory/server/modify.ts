/**
 * Modify (RFC 4511 §4.6) with increment (RFC 4525): all changes in order or none, then the whole entry is checked.
 */
import { printable } from '#common/account-name.ts';
import { parseRdn, type Rdn } from '#protocol/ldap/dn.ts';
import { type Attribute, type Control, type Modification, type ModifyRequest, textOf } from '#protocol/ldap/messages.ts';
import { afterOwnChange } from '../access/password-policy.ts';
import type { Target } from '../access/view.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Schema } from '../schema/schema.ts';
import { csnPattern } from '../schema/syntaxes.ts';
import { rootId, type StoredEntry } from '../store/entry-store.ts';
import { holdsValue, structuralClassOf, withAttribute } from './draft.ts';
import { demand, draftTarget, requireEntry, targetOf } from './guard.ts';
import { checkReferral } from './referrals.ts';
import {
  checkAssertion,
  checkMayRelax,
  checkMode,
  checkWholeEntry,
  csnFor,
  isRelaxed,
  readEntryControl,
  stampModified,
  type WriteContext,
  type WriteRequest,
} from './write-rules.ts';

/** Changes an entry; inside `store.write`. Returns the response controls. */
export function modifyEntry(context: WriteContext, operation: ModifyRequest, request: WriteRequest): Control[] {
  const { tree } = context;
  checkMode(context, request, operation.dn);
  const relaxed = isRelaxed(request);
  const lenient = relaxed && tree.mode === 'replica';
  const name = tree.parseName(operation.dn);
  checkReferral(tree, request, name);
  const before = requireEntry(tree, request.view, name);
  const target = targetOf(tree, before);
  checkMayRelax(request, target);
  checkMayChange(context, request, operation.changes, target);
  const changesOwnPassword = request.who.uuid === before.uuid && operation.changes.some((change) => isPassword(tree.schema, change));
  checkAssertion(tree, request, before);
  const pre = readEntryControl(context, request, 'preRead', before);

  const { user, server } = splitServerOnly(tree.schema, operation.changes, relaxed);
  const set = readServerOnly(server, before);
  if (set.contextCsn !== undefined) {
    tree.setContextCsn(set.contextCsn);
    // The state of the tree alone is no change of the entry.
    if (operation.changes.length === 1) return pre === undefined ? [] : [pre];
  }
  let attributes = applyChanges(tree.schema, before.attributes, user, lenient);
  if (changesOwnPassword) attributes = afterOwnChange(attributes);
  for (const [type, value] of set.stamps) attributes = withAttribute(attributes, type, value);
  for (const { type, value } of namingOf(before)) {
    if (!holdsValue(tree.schema, attributes, type, Buffer.from(value))) {
      throw new Refusal('notAllowedOnRDN', `${printable(`${type}=${value}`)} names the entry; rename it instead`);
    }
  }
  // An entry of other classes may be one that the requester has no right to make.
  if (operation.changes.some((change) => tree.schema.description(change.attribute.type)?.type.key === 'objectclass')) {
    checkMayChange(context, request, operation.changes, draftTarget(target.keys(), attributes, before.uuid));
  }
  const structural = structuralClassOf(tree.schema, attributes);
  const was = textOf(before.attributes, 'structuralObjectClass');
  if (structural !== undefined && was !== undefined && structural !== was && !relaxed) {
    throw new Refusal('objectClassModsProhibited', `the structural class is ${was} and cannot become ${structural}`);
  }
  checkWholeEntry(context, { parentId: before.parentId, rdn: namingOf(before), attributes, before }, relaxed);
  if (structural !== undefined) attributes = withAttribute(attributes, 'structuralObjectClass', structural);
  attributes = stampModified(context, request.who, attributes, new Set([...set.stamps.keys()].map((type) => type.toLowerCase())));
  const csn = csnFor(context, set.csn, before);
  const after = tree.store.replace('modify', before, { ...before, uuid: set.uuid ?? before.uuid, csn, attributes });
  const post = readEntryControl(context, request, 'postRead', after);
  return [pre, post].filter((control) => control !== undefined);
}

function checkMayChange(context: WriteContext, request: WriteRequest, changes: readonly Modification[], target: Target): void {
  for (const { kind, attribute } of changes) {
    const described = context.tree.schema.description(attribute.type, true)?.type;
    if (described === undefined) continue;
    const what = `attribute ${described.name}`;
    // To replace is to take away what was there (RFC 4511 §4.6).
    if (kind !== 'delete') demand(request.view, target, 'add', described.key, what);
    if (kind !== 'add') demand(request.view, target, 'delete', described.key, what);
  }
}

function isPassword(schema: Schema, change: Modification): boolean {
  return schema.description(change.attribute.type)?.type.key === 'userpassword';
}

/** Applies changes in order to attributes; refuses the first that cannot be. */
export function applyChanges(schema: Schema, before: readonly Attribute[], changes: readonly Modification[], lenient = false): Attribute[] {
  const attributes = new Map(before.map((one) => [one.type, [...one.values]]));
  for (const { kind, attribute } of changes) {
    const described = schema.description(attribute.type, lenient);
    if (described === undefined) throw new Refusal('undefinedAttributeType', `attribute ${printable(attribute.type)} is not known here`);
    const { canonical, type } = described;
    const key = (value: Buffer): string => type.equality?.key(value) ?? value.toString('latin1');
    const shown = (value: Buffer): string => (type.key === 'userpassword' ? '' : ` "${printable(value.toString('utf8'))}"`);
    const values = attributes.get(canonical) ?? [];
    switch (kind) {
      case 'add': {
        if (attribute.values.length === 0) throw new Refusal('protocolError', `nothing to add to attribute ${type.name}`);
        const known = new Set(values.map(key));
        for (const value of attribute.values) {
          if (known.has(key(value)))
            throw new Refusal('attributeOrValueExists', `attribute ${type.name} holds the value${shown(value)} already`);
          known.add(key(value));
          values.push(value);
        }
        attributes.set(canonical, values);
        break;
      }
      case 'delete': {
        if (values.length === 0) throw new Refusal('noSuchAttribute', `the entry has no attribute ${type.name}`);
        const gone = new Set(attribute.values.map(key));
        for (const value of attribute.values) {
          if (!values.some((one) => key(one) === key(value))) {
            throw new Refusal('noSuchAttribute', `attribute ${type.name} does not hold the value${shown(value)}`);
          }
        }
        const left = gone.size === 0 ? [] : values.filter((value) => !gone.has(key(value)));
        if (left.length === 0) attributes.delete(canonical);
        else attributes.set(canonical, left);
        break;
      }
      case 'replace':
        if (attribute.values.length === 0) attributes.delete(canonical);
        else attributes.set(canonical, [...attribute.values]);
        break;
      case 'increment':
        attributes.set(canonical, incremented(type.name, values, attribute.values));
        break;
    }
  }
  return [...attributes].map(([type, values]) => ({ type, values }));
}

function incremented(name: string, values: readonly Buffer[], by: readonly Buffer[]): Buffer[] {
  const integer = /^-?\d{1,100}$/;
  const step = by[0]?.toString('latin1') ?? '';
  if (by.length !== 1 || !integer.test(step)) throw new Refusal('protocolError', `an increment of ${name} needs one integer (RFC 4525 §3)`);
  if (values.length === 0) throw new Refusal('noSuchAttribute', `the entry has no attribute ${name} to increment`);
  return values.map((value) => {
    const text = value.toString('latin1');
    if (!integer.test(text)) throw new Refusal('constraintViolation', `attribute ${name} is no integer and cannot be incremented`);
    return Buffer.from(String(BigInt(text) + BigInt(step)));
  });
}

function namingOf(entry: StoredEntry): Rdn {
  // The suffix entry's "RDN" is a whole DN; its first level is what names it.
  return parseRdn(entry.parentId === rootId ? (entry.rdn.split(/(?<!\\),/)[0] as string) : entry.rdn) ?? [];
}

function splitServerOnly(schema: Schema, changes: readonly Modification[], relaxed: boolean) {
  const isServerOnly = (change: Modification): boolean => schema.description(change.attribute.type)?.type.isServerOnly === true;
  const server = changes.filter(isServerOnly);
  if (server.length > 0 && !relaxed) {
    throw new Refusal('constraintViolation', `attribute ${server[0]?.attribute.type ?? ''} is kept by the server and cannot be written`);
  }
  return { user: changes.filter((change) => !isServerOnly(change)), server };
}

function readServerOnly(changes: readonly Modification[], entry: StoredEntry) {
  const value = (type: string): string | undefined => {
    const change = changes.findLast((one) => one.attribute.type.toLowerCase() === type.toLowerCase() && one.kind !== 'delete');
    return change?.attribute.values[0]?.toString('utf8');
  };
  const csn = value('entryCSN');
  const contextCsn = value('contextCSN');
  for (const one of [csn, contextCsn]) {
    if (one !== undefined && !csnPattern.test(one))
      throw new Refusal('invalidAttributeSyntax', `"${printable(one)}" is not a change sequence number`);
  }
  if (contextCsn !== undefined && entry.parentId !== rootId)
    throw new Refusal('constraintViolation', 'contextCSN is set on the suffix entry only');
  const stamps = new Map<string, string>();
  for (const type of ['createTimestamp', 'creatorsName', 'modifyTimestamp', 'modifiersName']) {
    const given = value(type);
    if (given !== undefined) stamps.set(type, given);
  }
  return { csn, contextCsn, uuid: value('entryUUID')?.toLowerCase(), stamps };
}
