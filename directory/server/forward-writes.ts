/**
 * A replica that takes writes for its master: each is sent on over a kept, bound connection in the name of whoever asked (RFC 4370), with its other
 * controls, and the master's answer comes back as it is, controls included. The master decides: its rules, its schema, its password policy.
 *
 *   client ──► replica ── proxied authorization: dn:CLIENT ──► master ──► answer ──► (wait until replication brought the change here) ──► client
 *
 * A write is sent once. When the connection breaks before the answer the client is told that the outcome is unknown; trying again by ourselves could
 * do it twice. How long is waited for replication is bounded, and running out of it changes nothing in the answer.
 *
 * It says that it was sent on: another replica refers it on instead of sending it on once more. So it goes to one other server after a referral and
 * no further, also while a promotion that broke off leaves two replicas that take each other for the master.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import { forwardedOid } from '#directory/client/authority.ts';
import type { DirectoryServers } from '#directory/client/directory-servers.ts';
import type { LdapAnswer } from '#directory/client/ldap-connection.ts';
import { errorFromResult, resultCodeOf } from '#directory/client/ldap-errors.ts';
import { controlOids, findControl } from '#protocol/ldap/controls.ts';
import { type Control, type LdapRequest, textsOf } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { Refusal } from '../schema/refusal.ts';
import type { Operation } from './operation.ts';
import type { Tree } from './tree.ts';

/** Requests that are sent on. */
export type ForwardedRequest = Extract<
  LdapRequest,
  { type: 'addRequest' | 'modifyRequest' | 'modifyDnRequest' | 'deleteRequest' | 'extendedRequest' }
>;

/** Whether a replica sent it on already. */
export function wasForwarded({ controls }: Operation): boolean {
  return findControl(controls, forwardedOid) !== undefined;
}

/** See the header of this file. */
export class WriteForwarder implements AsyncDisposable {
  readonly #tree: Tree;
  readonly #masterUrl: () => string | undefined;
  readonly #connect: (url: string) => DirectoryServers;
  readonly #options: { readonly waitMs: number; readonly clock: Clock; readonly log: Logger };
  #master: { readonly url: string; readonly servers: DirectoryServers } | undefined;

  /**
   * @param masterUrl where the master is now; another server may become it
   * @param options `waitMs` of 0 answers at once
   */
  constructor(
    tree: Tree,
    masterUrl: () => string | undefined,
    connect: (url: string) => DirectoryServers,
    options: { readonly waitMs: number; readonly clock: Clock; readonly log: Logger },
  ) {
    this.#tree = tree;
    this.#masterUrl = masterUrl;
    this.#connect = connect;
    this.#options = options;
  }

  /** The master's answer, success or not. */
  async forward(request: ForwardedRequest, operation: Operation): Promise<LdapAnswer> {
    const { waitMs, clock, log } = this.#options;
    const master = this.#servers();
    const controls = forwardedControls(operation);
    let wasSent = false;
    let answer: LdapAnswer;
    try {
      answer = await master.askMaster(async (connection) => {
        wasSent = true;
        const given = await connection.exchange(request, controls);
        if (given.result.resultCode === resultCodes.referral) throw errorFromResult(given.result, request.type, connection.url);
        return given;
      });
    } catch (error) {
      log.warn({ detail: messageOf(error), op: request.type, by: operation.who.dn }, 'a write could not be forwarded');
      if (resultCodeOf(error) === resultCodes.referral)
        throw new Refusal('busy', 'no server takes writes now: another one is being made the master. Nothing was changed; try again later');
      if (error instanceof PlatformError && error.code === 'DIR_BUSY') throw error;
      const what = wasSent
        ? 'the master did not answer; whether the change was made is not known'
        : 'the master cannot be reached; nothing was changed';
      throw new Refusal('unavailable', what);
    }
    if (answer.result.resultCode === resultCodes.success && waitMs > 0) {
      await untilHere(this.#tree, master, waitMs, clock, operation.signal).catch((error: unknown) => {
        log.debug({ detail: messageOf(error) }, 'the state of the master is not known after a forwarded write');
      });
    }
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#master?.servers[Symbol.asyncDispose]();
  }

  #servers(): DirectoryServers {
    const url = this.#masterUrl();
    if (url === undefined) throw new Refusal('unwillingToPerform', 'this server is a replica and does not know its master; write there');
    if (this.#master?.url !== url) {
      void this.#master?.servers[Symbol.asyncDispose]();
      this.#master = { url, servers: this.#connect(url) };
    }
    return this.#master.servers;
  }
}

function forwardedControls({ who, controls }: Operation): Control[] {
  const others = controls.filter((control) => control.oid !== controlOids.proxiedAuthorization);
  const identity = Buffer.from(who.dn === '' ? '' : `dn:${who.dn}`);
  // Not critical: servers of earlier versions, and those that are not ours, do not know it.
  const onlyOnce = { oid: forwardedOid, critical: false, value: undefined };
  return [{ oid: controlOids.proxiedAuthorization, critical: true, value: identity }, onlyOnce, ...others];
}

// The change is here once this replica's state is not older than the master's after the change.
async function untilHere(tree: Tree, master: DirectoryServers, waitMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const base = await master.askMaster((connection) => connection.readEntry(tree.suffix.text, ['contextCSN']));
  const wanted = textsOf(base?.attributes ?? [], 'contextCSN')
    .sort()
    .at(-1);
  if (wanted === undefined || tree.contextCsn >= wanted) return;
  const overOrAborted = new AbortController();
  const abort = (): void => overOrAborted.abort();
  signal.addEventListener('abort', abort, { once: true });
  const stop = tree.store.onCommit(() => {
    if (tree.contextCsn >= wanted) abort();
  });
  try {
    await sleep(clock, waitMs, overOrAborted.signal);
  } finally {
    stop();
    signal.removeEventListener('abort', abort);
  }
}
