/**
 * Has a password judged by the directory: a bind as the account, on a connection of its own. For those who may not read hashes and must know all
 * the same, such as a frontend that logs in to foreign servers on the account's behalf.
 */
import type { AccountName } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Secret } from '#common/secret.ts';
import { type DirectoryPorts, openBound, type ResolvedAccess } from '#directory/client/access.ts';
import type { DirectoryReader } from '#directory/client/directory.ts';
import { resultCodeOf } from '#directory/client/ldap-errors.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';

/**
 * Makes the judge. It resolves with whether the password is right, and rejects with `AUTH_ACCOUNT_LOCKED` or `AUTH_ACCOUNT_MAINTENANCE` (the entry's
 * `accountStatus`, once the password was right) or `DIR_UNAVAILABLE` when no server can say.
 */
export function passwordVerifier(options: {
  readonly access: ResolvedAccess;
  readonly reader: DirectoryReader;
  readonly ports: DirectoryPorts;
}): (account: AccountName, password: Secret<string>) => Promise<boolean> {
  const { access, reader, ports } = options;
  return async (account, password) => {
    const { record } = await reader.findAccount(account);
    // RFC 4513 §5.1.2: a bind without a password succeeds as nobody.
    if (record === undefined || password.reveal() === '') return false;
    let lastError: PlatformError | undefined;
    for (const url of new Set([...access.urls, access.master])) {
      try {
        await using _connection = await openBound(url, { ...access, bindDn: record.dn, password }, ports);
      } catch (thrown) {
        if (resultCodeOf(thrown) === resultCodes.invalidCredentials) return false;
        lastError = asPlatformError(thrown);
        continue;
      }
      if (record.status === 'active') return true;
      const code = record.status === 'maintenance' ? 'AUTH_ACCOUNT_MAINTENANCE' : 'AUTH_ACCOUNT_LOCKED';
      throw new PlatformError(code, `${account} is ${record.status} (accountStatus)`);
    }
    throw new PlatformError('DIR_UNAVAILABLE', `no directory server judged the password of ${account}: ${lastError?.message}`, {
      cause: lastError,
    });
  };
}
