/**
 * From a frontend's route and a client's credentials to the account's entry. A route may be older than a rename or a move, so what does
 * not fit is `LINK_NOT_HERE` or `LINK_MOVED`, upon which the frontend asks the master; only a wrong password is `AUTH_FAILED`.
 */
import { type AccountName, type AccountUuid, tryParseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
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

  /**
   * Finds the account of a route, by its uuid if the frontend knows that, else by its name: `LINK_MOVED` (with `hostServer` in `fields`),
   * `LINK_NOT_HERE`, `DIR_NO_MASTER`.
   */
  async find(account: { readonly uuid: string; readonly name: string }, login: Login): Promise<AccountRecord> {
    const uuid = tryParseAccountUuid(account.uuid);
    const name = account.uuid === '' ? tryParseAccountName(account.name) : undefined;
    if (uuid === undefined && name === undefined) {
      throw new PlatformError('LINK_PROTOCOL', 'a request names its account neither by an entryUUID nor by an account name');
    }
    const located = uuid === undefined ? await this.#locator.byAddress(name as AccountName) : await this.#locator.byUuid(uuid);
    if (located.where === 'here') return located.record;
    if (located.where === 'elsewhere') {
      throw new PlatformError('LINK_MOVED', `account ${uuid ?? name} is hosted by ${located.hostServer ?? 'no cluster'}`, {
        fields: { hostServer: located.hostServer },
      });
    }
    await this.#authenticator.verifyNothing(login);
    throw new PlatformError('LINK_NOT_HERE', `the master has no account ${uuid ?? name}`);
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
