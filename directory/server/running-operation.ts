/**
 * An operation between its request and its answer, as its session holds it. Most are over within one turn of the event loop, so what only a
 * long one needs, the abort signal, is made when somebody asks for it.
 */
import type { Control, LdapRequest, LdapResponse, SearchResultEntry } from '#protocol/ldap/messages.ts';
import type { Requester } from '../access/access.ts';
import type { View } from '../access/view.ts';
import type { Operation } from './operation.ts';

/** What an operation uses of its session. */
export interface OperationHost {
  readonly requester: Requester;
  readonly remoteAddress: string;
  readonly isTls: boolean;
  readonly tlsSsf: number;
  readonly isProtected: boolean;
  readonly peerNames: readonly string[];
  /** What a requester may do on this connection. */
  viewOf(who: Requester): View;
  answer(id: number, response: LdapResponse | SearchResultEntry, controls: readonly Control[] | undefined): void;
  answerEncoded(octets: Buffer): void;
  flush(): void;
  /** `undefined` when there is room; else resolves when there is. */
  room(operation: Operation): Promise<void> | undefined;
}

/** See the header of this file. */
export class RunningOperation implements Operation {
  readonly id: number;
  readonly request: LdapRequest;
  readonly who: Requester;
  readonly controls: readonly Control[];
  readonly #host: OperationHost;
  #isAborted = false;
  #controller: AbortController | undefined;

  constructor(host: OperationHost, id: number, request: LdapRequest, controls: readonly Control[]) {
    this.#host = host;
    this.id = id;
    this.request = request;
    this.who = host.requester;
    this.controls = controls;
  }

  get remoteAddress(): string {
    return this.#host.remoteAddress;
  }

  get isTls(): boolean {
    return this.#host.isTls;
  }

  get tlsSsf(): number {
    return this.#host.tlsSsf;
  }

  get view(): View {
    return this.#host.viewOf(this.who);
  }

  get isProtected(): boolean {
    return this.#host.isProtected;
  }

  get peerNames(): readonly string[] {
    return this.#host.peerNames;
  }

  get isAborted(): boolean {
    return this.#isAborted;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#isAborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  abort(): void {
    this.#isAborted = true;
    this.#controller?.abort();
  }

  send(response: LdapResponse | SearchResultEntry, controls?: readonly Control[]): void {
    if (!this.#isAborted) this.#host.answer(this.id, response, controls);
  }

  sendEncoded(octets: Buffer): void {
    if (!this.#isAborted) this.#host.answerEncoded(octets);
  }

  flush(): void {
    this.#host.flush();
  }

  writable(): Promise<void> | undefined {
    return this.#isAborted ? undefined : this.#host.room(this);
  }
}
