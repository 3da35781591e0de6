/**
 * From a frontend's route and a client's credentials to the account's entry. A route may be older than a rename or a move, so what does
 * not fit is `LINK_NOT_HERE` or `LINK_MOVED`, upon which the frontend asks the master; only a wrong password is `AUTH_FAILED`.
 */
import { type AccountName, type AccountUuid, printable, tryParseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { AccountRecord } from '#directory/client/records.ts';
import type { LinkLogin, ScramSalt } from '#protocol/link/messages.ts';
import type { Authenticator } from './authenticate.ts';
import type { Locator } from './locate.ts';

/** What an account is looked for by. */
type Sought = { readonly uuid: string; readonly name: string };

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
  async find(account: Sought, login: LinkLogin): Promise<AccountRecord> {
    return this.#find(account, () => this.#authenticator.verifyNothing(login));
  }

  async #find(account: Sought, ifAbsent: () => Promise<void>): Promise<AccountRecord> {
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
    await ifAbsent();
    throw new PlatformError('LINK_NOT_HERE', `the master has no account ${uuid ?? name}`);
  }

  /** What a SCRAM exchange with the account begins with. Rejects as `find` does. */
  async saltOf(account: Sought): Promise<ScramSalt> {
    const record = await this.#find(account, () => Promise.resolve());
    const isItsName = (await this.#uuidOf(account.name)) === record.uuid;
    return isItsName ? this.#authenticator.saltOf(record) : {};
  }

  /**
   * The name that the client gave must be the account's, and what it showed right. Resolves with SCRAM's server signature, if there is one. Rejects as
   * `Authenticator.verify` does, or with `LINK_NOT_HERE`.
   */
  async verify(record: AccountRecord, name: string, login: LinkLogin): Promise<string | undefined> {
    if ((await this.#uuidOf(name)) !== record.uuid) {
      await this.#authenticator.verifyNothing(login);
      throw new PlatformError('LINK_NOT_HERE', `${name} is not a name of account ${record.uuid}, which is ${record.name} now`);
    }
    if (login.mechanism === 'BEARER') {
      // RFC 7628 §3.2: the token decides whose account it is for, whatever name the client gave.
      const owner = await this.#authenticator.tokenOwner(login.token);
      if ((await this.#uuidOf(owner)) !== record.uuid) {
        throw new PlatformError('AUTH_FAILED', `the access token is for ${printable(owner)}, and ${record.name} is another account`);
      }
    }
    return this.#authenticator.verify(record, login);
  }

  async #uuidOf(text: string): Promise<AccountUuid | undefined> {
    const name = tryParseAccountName(text);
    const located = name === undefined ? undefined : await this.#locator.byAddress(name);
    return located?.where === 'here' ? located.record.uuid : undefined;
  }
}
