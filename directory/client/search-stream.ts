/**
 * One search under way: an asynchronous sequence of what the server sends, with back-pressure. After the last item `done` is set; a
 * result that is no success ends the iteration with the error.
 */
import type { Clock } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { errorFromResult } from '#directory/client/ldap-errors.ts';
import { type Filter, formatFilter, present } from '#protocol/ldap/filter.ts';
import type {
  Attribute,
  Control,
  LdapOperation,
  LdapResult,
  SearchRequest,
  SearchResultEntry,
  SearchScope,
} from '#protocol/ldap/messages.ts';

/** What is searched for. Defaults: subtree, any entry, all user attributes, no limits. */
export interface SearchOptions {
  readonly baseDn: string;
  readonly scope?: SearchScope;
  readonly filter?: Filter;
  readonly attributes?: readonly string[];
  readonly sizeLimit?: number;
  readonly typesOnly?: boolean;
  /** Longest silence between two items; default: the connection's; 0: for ever, as a search that persists needs. */
  readonly timeoutMs?: number;
  /**
   * Shown each entry before it is parsed, while everything before it has been read: the whole message is `bytes[start, end)`. True: it is
   * done with, and the reader does not see it; the octets are others afterwards. For one search of a connection, and one without `timeoutMs`.
   */
  readonly takeEarly?: (bytes: Buffer, start: number, end: number) => boolean;
  /** Resolves, never rejects, when `takeEarly` has room again; the connection stops reading meanwhile. `undefined` when it has. */
  readonly roomEarly?: () => Promise<void> | undefined;
}

/** One thing the server sent. Values are views into the received bytes. */
export type SearchItem =
  | {
      readonly kind: 'entry';
      readonly dn: string;
      readonly attributes: readonly Attribute[];
      readonly attributesBer?: Buffer | undefined;
      readonly controls: readonly Control[];
    }
  | { readonly kind: 'reference'; readonly urls: readonly string[]; readonly controls: readonly Control[] }
  | { readonly kind: 'intermediate'; readonly oid: string | undefined; readonly value: Buffer | undefined };

/** The connection's side of a search. */
export interface SearchCarrier {
  readonly clock: Clock;
  readonly server: string;
  readonly timeoutMs: number;
  pause(): void;
  resume(): void;
  abandon(): void;
}

/** Items, and octets of them, that wait for their reader before the connection stops reading; and items at which it goes on. */
const queuedMax = 512;
const queuedBytesMax = 4_194_304;
const queuedLow = 128;
const nothing: SearchItem = { kind: 'reference', urls: [], controls: [] };

/** See the header of this file. */
export class SearchStream implements AsyncIterable<SearchItem> {
  readonly request: SearchRequest;
  readonly what: string;
  /** Set once the server has sent its result with success. */
  done: { readonly result: LdapResult; readonly controls: readonly Control[] } | undefined;
  readonly #carrier: SearchCarrier;
  #queue: SearchItem[] = [];
  #read = 0;
  /** Octets of what has come since the queue was empty: what was read of it counts until then. */
  #bytes = 0;
  #wake: (() => void) | undefined;
  #error: PlatformError | undefined;
  #isPaused = false;
  #lastItemMs: number;

  constructor(search: SearchOptions, carrier: SearchCarrier) {
    this.request = {
      type: 'searchRequest',
      baseDn: search.baseDn,
      scope: search.scope ?? 'sub',
      derefAliases: 'never',
      sizeLimit: search.sizeLimit ?? 0,
      timeLimitSeconds: 0,
      typesOnly: search.typesOnly ?? false,
      filter: search.filter ?? present('objectClass'),
      attributes: search.attributes ?? [],
    };
    this.what = `a search for ${formatFilter(this.request.filter)} below "${search.baseDn}"`;
    this.#carrier = carrier;
    this.#lastItemMs = carrier.clock.monotonicMs();
  }

  /** Items that have come and were not read yet. */
  get queued(): number {
    return this.#queue.length - this.#read;
  }

  /** Whether the reader has read everything, and waits. */
  get isReadUp(): boolean {
    return this.#wake !== undefined && this.queued === 0;
  }

  /** The connection hands in what came, a message of so many octets; true when it was the last. */
  take(operation: LdapOperation, controls: readonly Control[], bytes: number): boolean {
    this.#lastItemMs = this.#carrier.clock.monotonicMs();
    switch (operation.type) {
      case 'searchResultEntry':
        this.#queue.push(itemOf(operation, controls));
        break;
      case 'searchResultReference':
        this.#queue.push({ kind: 'reference', urls: operation.urls, controls });
        break;
      case 'intermediateResponse':
        this.#queue.push({ kind: 'intermediate', oid: operation.oid, value: operation.value });
        break;
      case 'searchResultDone':
        if (operation.resultCode === 0) this.done = { result: operation, controls };
        else this.#error = errorFromResult(operation, this.what, this.#carrier.server);
        this.#release();
        this.#notify();
        return true;
      default:
        this.#error = new PlatformError('PROTO_SYNTAX', `${this.#carrier.server} answered ${operation.type} to ${this.what}`);
        this.#release();
        this.#notify();
        return true;
    }
    this.#bytes += bytes;
    if (this.queued > queuedMax || this.#bytes > queuedBytesMax) {
      this.#isPaused = true;
      this.#carrier.pause();
    }
    this.#notify();
    return false;
  }

  /** The connection ended, or the search took too long. */
  fail(error: PlatformError): void {
    this.#error ??= error;
    this.#release();
    this.#notify();
  }

  isOverdue(nowMs: number): boolean {
    return this.#carrier.timeoutMs > 0 && !this.#isPaused && nowMs - this.#lastItemMs > this.#carrier.timeoutMs;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<SearchItem, void, undefined> {
    try {
      for (;;) {
        while (this.#read < this.#queue.length) {
          const item = this.#queue[this.#read] as SearchItem;
          // What was read is not kept until the others are.
          this.#queue[this.#read] = nothing;
          this.#read += 1;
          if (this.#read === this.#queue.length || this.#read > queuedMax) this.#compact();
          yield item;
        }
        if (this.#error !== undefined) throw this.#error;
        if (this.done !== undefined) return;
        await this.#next();
      }
    } finally {
      this.#leave();
    }
  }

  /** The same in lists: what has come since the last one. For those who take much and wait for little. */
  async *lists(): AsyncGenerator<readonly SearchItem[], void, undefined> {
    try {
      for (;;) {
        if (this.queued > 0) {
          const list = this.#read === 0 ? this.#queue : this.#queue.slice(this.#read);
          this.#queue = [];
          this.#read = 0;
          this.#bytes = 0;
          this.#release();
          yield list;
        } else if (this.#error !== undefined) throw this.#error;
        else if (this.done !== undefined) return;
        else await this.#next();
      }
    } finally {
      this.#leave();
    }
  }

  #compact(): void {
    this.#queue = this.#queue.slice(this.#read);
    this.#read = 0;
    if (this.#queue.length === 0) this.#bytes = 0;
    if (this.#isPaused && this.#queue.length <= queuedLow && this.#bytes <= queuedBytesMax) this.#release();
  }

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  // Left early: the rest is not wanted. After the end this does nothing.
  #leave(): void {
    this.#queue = [];
    this.#read = 0;
    this.#isPaused = false;
    this.#carrier.abandon();
  }

  #release(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    // Silence while paused was ours.
    this.#lastItemMs = this.#carrier.clock.monotonicMs();
    this.#carrier.resume();
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

function itemOf(operation: SearchResultEntry, controls: readonly Control[]): SearchItem {
  const { dn, attributesBer } = operation;
  if (attributesBer === undefined) return { kind: 'entry', dn, attributes: operation.attributes, controls };
  return {
    kind: 'entry',
    dn,
    get attributes() {
      return operation.attributes;
    },
    attributesBer,
    controls,
  };
}
