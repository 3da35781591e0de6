/**
 * The searches that nearly all are: one entry by its name, or an equality that one key of the index answers; a few named attributes, nothing that
 * depends on the entry. They are answered in one go, and the part of an entry that is shown is kept as octets, so that the next one who asks gets a copy.
 *
 * Everything that is out of this frame (controls, referrals in the tree, rules that ask about entries, refusals) goes the way of search.ts.
 */
import { BerWriter } from '#protocol/ldap/ber.ts';
import { writeAttributes } from '#protocol/ldap/encode.ts';
import type { SearchRequest } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { sizeLimitOf } from '../access/access.ts';
import type { View } from '../access/view.ts';
import { referralTally } from '../schema/mail-schema.ts';
import type { Schema } from '../schema/schema.ts';
import { exactKeyOf } from './candidates.ts';
import { noEntry } from './guard.ts';
import type { Operation } from './operation.ts';
import { isInScope } from './search.ts';
import { compileSelection, type Selection } from './selection.ts';
import type { Tree } from './tree.ts';

/** More entries than this are looked at in pages, by search.ts. */
const entriesMax = 16;
/** Lists of attributes whose selections are kept. */
const listsMax = 200;
const classKey = 'objectclass';
/** Asks for no attribute (RFC 4511 §4.5.1.8). */
const noAttributes = '1.1';
const success = { type: 'searchResultDone', resultCode: resultCodes.success, matchedDn: '', diagnosticMessage: '' } as const;

/** What is shown for one list of attributes to whoever may read them all. */
interface Shown {
  /** Stands for it where the store keeps what was shown. */
  readonly number: number;
  /** Keys of the attributes that must be readable. */
  readonly keys: readonly string[];
  readonly selection: Selection;
}

/** See the header of this file. */
export class PointSearch {
  readonly #tree: Tree;
  readonly #lists = new Map<string, Shown | undefined>();
  readonly #writer = new BerWriter();
  #listCount = 0;

  constructor(tree: Tree) {
    this.#tree = tree;
  }

  /** Answers a search, or returns false and has done nothing. Throws what search.ts throws for a name that is none. */
  answer(request: SearchRequest, operation: Operation): boolean {
    const { filter, scope } = request;
    if (request.typesOnly || operation.controls.length > 0) return false;
    if (scope === 'base') return this.#answerBase(request, operation);
    if (filter.kind !== 'equal') return false;
    const { store, schema } = this.#tree;
    if (store.settled() !== undefined || store.tally(referralTally) > 0) return false;
    const key = exactKeyOf(schema, filter);
    const shown = key === undefined ? undefined : this.#shownOf(request.attributes);
    if (key === undefined || shown === undefined) return false;
    const { view, who } = operation;
    if (!mayAll(view, key.attribute, shown.keys)) return false;
    const base = this.#tree.find(this.#tree.parseName(request.baseDn));
    if (base === undefined) return false;
    const ids = store.idsWithKey(key, 0, entriesMax + 1);
    const sizeLimit = Math.min(request.sizeLimit || entriesMax, sizeLimitOf(who) ?? entriesMax, entriesMax);
    if (ids.length > sizeLimit) return false;
    for (const id of ids) {
      const entry = store.shown(id, shown.number, ({ attributes }) => this.#encoded(shown.selection, attributes));
      if (entry === undefined || !isInScope(this.#tree, request, base, entry)) continue;
      operation.send({ type: 'searchResultEntry', dn: store.dnOf(entry), attributes: [], attributesBer: entry.octets });
    }
    operation.send(success);
    return true;
  }

  #answerBase(request: SearchRequest, operation: Operation): boolean {
    const { filter, baseDn, attributes } = request;
    if (filter.kind !== 'present' || filter.attribute.toLowerCase() !== classKey || baseDn === '') return false;
    const { store } = this.#tree;
    if (store.settled() !== undefined || store.tally(referralTally) > 0) return false;
    const shown = this.#shownOf(attributes);
    if (shown === undefined || !mayAll(operation.view, classKey, shown.keys)) return false;
    const name = this.#tree.parseName(baseDn);
    // Names outside are those of special entries, and of none.
    if (!this.#tree.isWithinSuffix(name)) return false;
    const { entry, nearest } = this.#tree.locate(name);
    const found =
      entry === undefined ? undefined : store.shown(entry.id, shown.number, (one) => this.#encoded(shown.selection, one.attributes));
    if (found === undefined) {
      const matchedDn = nearest === undefined ? '' : store.dnOf(nearest);
      operation.send({ ...success, resultCode: resultCodes.noSuchObject, matchedDn, diagnosticMessage: noEntry(name) });
      return true;
    }
    operation.send({ type: 'searchResultEntry', dn: store.dnOf(found), attributes: [], attributesBer: found.octets });
    operation.send(success);
    return true;
  }

  // Attributes by name only, without subtypes and options: whether one may be read is then the same for all entries.
  #shownOf(requested: readonly string[]): Shown | undefined {
    const name = requested.length === 1 ? (requested[0] as string) : requested.join(' ');
    const known = this.#lists.get(name);
    if (known !== undefined || this.#lists.has(name)) return known;
    // After four thousand million lists numbers begin again, long after what the first one showed was forgotten.
    this.#listCount = (this.#listCount + 1) >>> 0;
    const shown = shownOf(this.#tree.schema, requested, this.#listCount);
    // Names come from clients.
    if (this.#lists.size >= listsMax) this.#lists.clear();
    if (name.length <= 1000) this.#lists.set(name, shown);
    return shown;
  }

  #encoded(selection: Selection, attributes: Parameters<Selection['select']>[0]): Buffer {
    writeAttributes(this.#writer, selection.select(attributes));
    return Buffer.from(this.#writer.take());
  }
}

function shownOf(schema: Schema, requested: readonly string[], number: number): Shown | undefined {
  const keys: string[] = [];
  const isNone = requested.length === 1 && requested[0] === noAttributes;
  for (const name of isNone ? [] : requested) {
    const described = schema.description(name);
    if (described === undefined || described.type.isOperational || described.options.length > 0) return undefined;
    if (described.type.family.size > 1) return undefined;
    keys.push(described.type.key);
  }
  if (keys.length === 0 && !isNone) return undefined;
  return { number, keys, selection: compileSelection(schema, requested, false, () => true) };
}

function mayAll(view: View, searched: string, shown: readonly string[]): boolean {
  if (view.decide('disclose', 'entry') !== true || view.decide('search', 'entry') !== true) return false;
  if (view.decide('read', 'entry') !== true || view.decide('search', searched) !== true) return false;
  for (const key of shown) if (view.decide('read', key) !== true) return false;
  return true;
}
