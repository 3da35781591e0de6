/**
 * The Controller has accounts closed on the members that have them open: before another member takes one, and for removal. A member that
 * does not answer is deposed by storage instead.
 */
import type { LinkClient, MemberAddress } from '#backend-cluster/client/cluster-client.ts';
import type { AccountUuid } from '#common/account-name.ts';
import { asPlatformError } from '#common/errors/platform-error.ts';
import type { MemberName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { LocalAccounts } from './collect.ts';
import type { MemberSelf } from './membership.ts';
import type { MemberId, OpenAccounts, OpenReport } from './open-accounts.ts';

const elsewhereText = 'Account is served elsewhere now';
const takeTimeoutMs = 2_000;

/** What closing needs. */
export interface ClosingsOptions {
  readonly self: MemberSelf;
  readonly link: LinkClient;
  readonly local: LocalAccounts;
  readonly log: Logger;
  readonly table: OpenAccounts;
  term(): number;
  addressOf(member: MemberName): MemberAddress | undefined;
}

/** See the header of this file. */
export class Closings {
  readonly #options: ClosingsOptions;

  constructor(options: ClosingsOptions) {
    this.#options = options;
  }

  /** Wherever it is open; for removal. */
  async everywhere(uuid: AccountUuid, text: string): Promise<void> {
    const { table, local, self, link } = this.#options;
    const host = table.hostOf(uuid);
    await local.close(uuid, text);
    if (host === undefined || host.member === self.address.name) return;
    const address = this.#options.addressOf(host.member);
    if (address !== undefined) await link.call(address, 'cluster.close', { uuid, term: this.#options.term() });
    table.closed(uuid, host, host.epoch);
  }

  /** The host drains, or nobody knows it any more: it finishes its commit and lets go. One that does not answer is deposed by storage. */
  async takeFrom(uuid: AccountUuid, host: MemberId): Promise<void> {
    const { local, link, log, self, table } = this.#options;
    try {
      const address = this.#options.addressOf(host.member);
      if (host.member === self.address.name) await local.close(uuid, elsewhereText);
      else if (address !== undefined) await link.call(address, 'cluster.close', { uuid, term: this.#options.term() }, takeTimeoutMs);
    } catch (error) {
      log.debug({ account: uuid, member: host.member, errCode: asPlatformError(error).code }, 'a draining host did not close an account');
    }
    table.closed(uuid, host, table.hostOf(uuid)?.epoch);
  }

  /** Two members report one account: the one with the lower epoch has been deposed and may not know it yet. */
  supersede(loser: OpenReport | undefined): void {
    if (loser === undefined) return;
    const { local, link, self, log } = this.#options;
    const address = this.#options.addressOf(loser.member);
    const closing =
      loser.member === self.address.name
        ? local.close(loser.uuid, elsewhereText)
        : address === undefined
          ? Promise.resolve()
          : link.call(address, 'cluster.close', { uuid: loser.uuid, term: this.#options.term() });
    Promise.resolve(closing).catch((error: unknown) => {
      log.debug({ account: loser.uuid, member: loser.member, errCode: asPlatformError(error).code }, 'a deposed host was not told');
    });
  }
}
