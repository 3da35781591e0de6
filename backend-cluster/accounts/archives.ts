/**
 * Accounts that travel whole: the channels `export` and `import` of the link, for the admin API.
 *
 *   export: bytes of the archive, end of channel; an archive without its end was cut off
 *   import: bytes of the archive come in, half-close ─► {"ok":true,"report":...} or {"ok":false,"code":...}
 */
import type { LinkPeer, SessionDecision } from '#backend-cluster/link/server.ts';
import { exportAccount } from '#backend-cluster/mailboxes/export-account.ts';
import { AccountImport } from '#backend-cluster/mailboxes/import-account.ts';
import type { StoredAccount } from '#backend-cluster/storage/account-store.ts';
import { parseAccountUuid } from '#common/account-name.ts';
import type { Clock } from '#common/clock.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Connection } from '#common/network/network.ts';
import { receive, writeAll } from '#common/network/streams.ts';
import type { Random } from '#common/random.ts';
import type { OpenSession } from '#protocol/link/messages.ts';
import type { HostedAccounts } from './hosted-accounts.ts';
import type { Locator } from './locate.ts';

/** Archives under way on one member at a time: each holds some megabytes. */
const archivesMax = 8;

/** What it is made of. */
export interface ArchivesOptions {
  readonly locator: Locator;
  readonly hosted: HostedAccounts;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** See the header of this file. */
export class Archives {
  readonly #options: ArchivesOptions;
  #underWay = 0;

  constructor(options: ArchivesOptions) {
    this.#options = options;
  }

  async accept(peer: LinkPeer, request: OpenSession): Promise<SessionDecision> {
    const { locator, hosted, log } = this.#options;
    if (peer.role !== 'operate') throw new PlatformError('LINK_REFUSED', `${peer.role} ${peer.name} may not ask for archives of accounts`);
    if (this.#underWay >= archivesMax)
      throw new PlatformError('AUTH_BUSY', `${archivesMax} archives are under way on this member; try again`);
    const located = await locator.byUuid(parseAccountUuid(request.account?.uuid ?? ''));
    if (located.where === 'absent') throw new PlatformError('ACCT_NOT_FOUND', 'the directory has no such account');
    if (located.where === 'elsewhere') {
      return { answer: { outcome: 'moved', ...(located.hostServer === undefined ? {} : { hostServer: located.hostServer }) } };
    }
    const { uuid, name } = located.record;
    const acquired = await hosted.acquire(uuid);
    if (acquired.outcome === 'at') {
      const { host } = acquired;
      return { answer: { outcome: 'at', member: host.name, host: host.host, port: host.port } };
    }
    const startedMs = this.#options.clock.monotonicMs();
    this.#underWay += 1;
    const over = (outcome: string): void => {
      this.#underWay -= 1;
      acquired.release();
      const durationMs = Math.round(this.#options.clock.monotonicMs() - startedMs);
      log.info({ account: uuid, service: request.service, peer: peer.name, outcome, durationMs }, `archive: ${request.service}`);
    };
    return {
      answer: { outcome: 'opened', capabilities: [], accountName: name },
      abandon: () => over('abandoned'),
      serve: (channel) => {
        const work = request.service === 'export' ? this.#export(channel, acquired.account, name) : this.#import(channel, acquired.account);
        void work.then(over);
      },
    };
  }

  async #export(channel: Connection, account: StoredAccount, name: string): Promise<string> {
    const { clock, random } = this.#options;
    try {
      await writeAll(channel, exportAccount(account, { id: random.uuid(), name, nowMs: clock.nowMs() }));
      return 'done';
    } catch (error) {
      channel.destroy(asPlatformError(error));
      return messageOf(error);
    }
  }

  async #import(channel: Connection, account: StoredAccount): Promise<string> {
    let answer: object;
    try {
      const work = new AccountImport(account);
      await receive(channel, (chunk) => work.push(chunk));
      answer = { ok: true, report: await work.end() };
    } catch (error) {
      const { code, message } = asPlatformError(error);
      answer = { ok: false, code, message: message.slice(0, 1000) };
    }
    channel.write(JSON.stringify(answer));
    channel.end();
    return 'ok' in answer && answer.ok === true ? 'done' : JSON.stringify(answer);
  }
}
