/**
 * What the suite says to every client, and what it hears back: requests without the spelling of any one tool, and answers without what
 * must differ between two servers (the order of entries and values, UUIDs, times, salted hashes).
 */
import { findControl, readReadEntryResponse } from '#protocol/ldap/controls.ts';
import { normalizeDnText } from '#protocol/ldap/dn.ts';
import type { Control } from '#protocol/ldap/messages.ts';
import { readSortResponse } from '#protocol/ldap/sort.ts';

/** Attribute name to values. */
export type Values = Readonly<Record<string, readonly string[]>>;

/** One change of a Modify. */
export interface Change {
  readonly kind: 'add' | 'delete' | 'replace' | 'increment';
  readonly attribute: string;
  readonly values: readonly string[];
}

/** A control by what it says; `raw` for any other. */
export type WantedControl = { readonly critical?: boolean } & (
  | { readonly kind: 'assertion'; readonly filter: string }
  | { readonly kind: 'preRead' | 'postRead'; readonly attributes: readonly string[] }
  | { readonly kind: 'paged'; readonly size: number }
  | { readonly kind: 'sort'; readonly keys: readonly { readonly attribute: string; readonly reverse?: boolean }[] }
  | { readonly kind: 'manageDsaIt' }
  | { readonly kind: 'relax' }
  | { readonly kind: 'treeDelete' }
  | { readonly kind: 'proxiedAuthorization'; readonly identity: string }
  | { readonly kind: 'sync' }
  | { readonly kind: 'raw'; readonly oid: string; readonly value?: string }
);

/** One operation. */
export type Step =
  | {
      readonly op: 'search';
      readonly base: string;
      readonly scope?: 'base' | 'one' | 'sub';
      readonly filter?: string;
      readonly attributes?: readonly string[];
      readonly typesOnly?: boolean;
      readonly sizeLimit?: number;
      readonly deref?: boolean;
    }
  | { readonly op: 'add'; readonly dn: string; readonly attributes: Values }
  | { readonly op: 'modify'; readonly dn: string; readonly changes: readonly Change[] }
  | {
      readonly op: 'rename';
      readonly dn: string;
      readonly newRdn: string;
      readonly keepOld?: boolean;
      readonly newSuperior?: string;
    }
  | { readonly op: 'delete'; readonly dn: string }
  | { readonly op: 'compare'; readonly dn: string; readonly attribute: string; readonly value: string }
  /** Without `to` the server makes one. */
  | { readonly op: 'password'; readonly dn?: string; readonly from?: string; readonly to?: string }
  | { readonly op: 'whoami' }
  | { readonly op: 'extended'; readonly oid: string; readonly value?: string };

/** Who binds: a DN with its password, or nobody. */
export type Who = readonly [dn: string, password: string] | 'anonymous';

/** A step as a client is told to do it. */
export interface Task {
  readonly who: Who;
  readonly step: Step;
  readonly controls: readonly WantedControl[];
}

export interface SeenEntry {
  readonly dn: string;
  readonly attributes: Values;
}

/** What a client reports. */
export interface Answer {
  /** Result code of the operation, or of the bind before it if that failed; -1: the client did not get that far, `text` says why. */
  readonly code: number;
  readonly matched?: string;
  readonly text?: string;
  readonly entries?: readonly SeenEntry[];
  /** Response controls of the operation, as received; values in base64. */
  readonly controls?: readonly { readonly oid: string; readonly value?: string }[];
  /** The identity of whoami, a password that was made. */
  readonly value?: string;
  /** Number of answers that the client needed for a paged search. */
  readonly pages?: number;
}

/** A client program or library. */
export interface Client {
  readonly name: string;
  /** Why it cannot send this; `undefined` when it can. */
  cannot(task: Task): string | undefined;
  /** Does the tasks in their order. */
  run(server: ServerAddress, tasks: readonly Task[]): Promise<Answer[]>;
}

/** How a server is reached. */
export interface ServerAddress {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly caFile: string;
  readonly ldapiUrl: string;
}

const masked = new Set(
  'entryuuid entrycsn createtimestamp modifytimestamp contextcsn pwdchangedtime userpassword monitorcontext configcontext'.split(' '),
);

/** An answer in the form that two servers' answers are compared in. */
export function comparable(answer: Answer, options: { readonly ordered?: boolean; readonly countOnly?: boolean } = {}): object {
  const controls = (answer.controls ?? []).map(
    (one): Control => ({ oid: one.oid, critical: false, value: one.value === undefined ? undefined : Buffer.from(one.value, 'base64') }),
  );
  const entries = (answer.entries ?? []).map(plain);
  if (options.ordered !== true) entries.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return {
    code: answer.code,
    ...(answer.code === -1 ? { text: answer.text } : {}),
    matched: answer.matched === undefined || answer.matched === '' ? '' : normalizeDnText(answer.matched),
    entries: options.countOnly === true ? entries.length : entries,
    ...(answer.value === undefined ? {} : { value: answer.value }),
    ...(answer.pages === undefined ? {} : { pages: answer.pages }),
    preRead: readBack(controls, '1.3.6.1.1.13.1'),
    postRead: readBack(controls, '1.3.6.1.1.13.2'),
    sort: readSortResponse(findControl(controls, '1.2.840.113556.1.4.474')?.value),
  };
}

function plain(entry: SeenEntry): SeenEntry {
  const names = Object.keys(entry.attributes).sort();
  return {
    dn: normalizeDnText(entry.dn) ?? `not a DN: ${entry.dn}`,
    attributes: Object.fromEntries(
      names.map((name) => {
        const values = entry.attributes[name] ?? [];
        return [name, masked.has(name.toLowerCase()) ? values.map(() => '(set)') : [...values].sort()];
      }),
    ),
  };
}

function readBack(controls: readonly Control[], oid: string): unknown {
  const read = readReadEntryResponse(findControl(controls, oid)?.value);
  if (read === undefined) return undefined;
  return plain({
    dn: read.dn,
    attributes: Object.fromEntries(read.attributes.map((one) => [one.type, one.values.map((value) => value.toString('utf8'))])),
  });
}
