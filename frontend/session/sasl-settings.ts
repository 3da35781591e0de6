/**
 * What the configuration says of logins beside passwords, read; and the judgement of access tokens for accounts on foreign servers that trust this
 * frontend, which no member of ours makes.
 */
import { type AccountName, tryParseAccountName } from '#common/account-name.ts';
import { type Environment, readSecret } from '#common/config/resolve.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import { openTokenVerifier, type TokenVerifier } from '#common/oauth/token-verifier.ts';
import type { Secret } from '#common/secret.ts';
import type { DirectoryReader } from '#directory/client/directory.ts';
import type { FrontendConfig } from '#frontend/config.ts';
import type { SaslSettings } from './credentials.ts';

/** Throws `CONFIG_*` when a file or a secret cannot be read. */
export async function readSaslSettings(
  config: Pick<FrontendConfig, 'oauth' | 'scram'>,
  ports: Pick<Ports, 'clock' | 'random' | 'files' | 'log'>,
  environment?: Environment,
): Promise<SaslSettings> {
  const { oauth, scram } = config;
  const tokens =
    oauth === undefined
      ? undefined
      : {
          verifier: await openTokenVerifier(oauth, ports, environment),
          hints: { scope: oauth.scope, configuration: oauth.configurationUrl },
        };
  if (scram === undefined) return { tokens };
  return { tokens, scram: { secret: await readSecret(scram.secret, ports.files, environment), iterations: scram.iterations } };
}

/**
 * Whether a token is for the account. Rejects with `AUTH_TOKEN_UNVERIFIED`, `DIR_*`, or, once the token was found good, `AUTH_ACCOUNT_LOCKED` or
 * `AUTH_ACCOUNT_MAINTENANCE`.
 */
export function tokenJudge(
  verifier: TokenVerifier,
  reader: Pick<DirectoryReader, 'findAccount'>,
): (account: AccountName, token: Secret<string>) => Promise<boolean> {
  return async (account, token) => {
    let owner: string;
    try {
      owner = await verifier.accountOf(token);
    } catch (thrown) {
      const error = asPlatformError(thrown);
      if (error.kind === 'auth') return false;
      throw error;
    }
    const name = tryParseAccountName(owner);
    if (name === undefined) return false;
    const [{ record }, mine] = await Promise.all([reader.findAccount(account), reader.findAccount(name)]);
    if (record === undefined || mine.record?.uuid !== record.uuid) return false;
    if (record.status === 'active') return true;
    const code = record.status === 'maintenance' ? 'AUTH_ACCOUNT_MAINTENANCE' : 'AUTH_ACCOUNT_LOCKED';
    throw new PlatformError(code, `${account} is ${record.status} (accountStatus)`);
  };
}
