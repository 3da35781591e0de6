/**
 * From a frontend's route and a client's credentials to the account's entry. A route may be older than a rename or a move, so what does
 * not fit is `LINK_NOT_HERE` or `LINK_MOVED`, upon which the frontend asks the master; only a wrong password is `AUTH_FAILED`.
 */
import { type AccountUuid, tryParseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { OpenSession } from '#protocol/link/messages.ts';
import type { Authenticator } from './authenticate.ts';
import type { Locator } from './locate.ts';

/** Credentials as the frontend sends them. */
export type Login = NonNullable<OpenSession['login']>;

/** Checks logins of accounts that this cluster hosts. */
export class LoginCheck {
  readonly #locator: Locator;
  readonly #authenticator: Authenticator;

  constructor(locator: Locator, authenticator: Authenticator) {
    this.#locator = locator;
    this.#authenticator = authenticator;
  }

  /** Finds the account of a route: `LINK_MOVED` (with `hostServer` in `fields`), `LINK_NOT_HERE`, `DIR_NO_MASTER`. */
  async find(uuidText: string, login: Login): Promise<AccountRecord> {
    const uuid = tryParseAccountUuid(uuidText);
    if (uuid === undefined) throw new PlatformError('LINK_PROTOCOL', 'a request names its account by something that is no entryUUID');
    const located = await this.#locator.byUuid(uuid);
    if (located.where === 'here') return located.record;
    if (located.where === 'elsewhere') {
      throw new PlatformError('LINK_MOVED', `account ${uuid} is hosted by ${located.hostServer ?? 'no cluster'}`, {
        fields: { hostServer: located.hostServer },
      });
    }
    await this.#authenticator.verifyNothing(login);
    throw new PlatformError('LINK_NOT_HERE', `the master has no account ${uuid}`);
  }

  /** The name that the client gave must be the account's, and the password right. Rejects as `Authenticator.verify` does, or with `LINK_NOT_HERE`. */
  async verify(record: AccountRecord, name: string, login: Login): Promise<void> {
    if ((await this.#uuidOf(name)) !== record.uuid) {
      await this.#authenticator.verifyNothing(login);
      throw new PlatformError('LINK_NOT_HERE', `${name} is not a name of account ${record.uuid}, which is ${record.name} now`);
    }
    await this.#authenticator.verify(record, login);
  }

  async #uuidOf(text: string): Promise<AccountUuid | undefined> {
    const name = tryParseAccountName(text);
    const located = name === undefined ? undefined : await this.#locator.byAddress(name);
    return located?.where === 'here' ? located.record.uuid : undefined;
  }
}
