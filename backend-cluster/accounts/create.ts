/**
 * Creates an account: an entry at the master whose `hostServer` is this cluster. Its `entryUUID`, chosen by the directory, is the key of
 * its storage, which is made when the account is first opened.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { Secret } from '#common/secret.ts';
import type { OperationContext, OperationIntent } from './operation.ts';

/** What the caller wants. */
export interface CreateRequest {
  readonly name: AccountName;
  readonly password?: Secret<string>;
  readonly displayName?: string;
  readonly quotaBytes?: number;
}

/** Resolves once the master has the entry. Rejects with `ACCT_EXISTS`, `DIR_*` or `STORE_*`. */
export async function createAccount(context: OperationContext, request: CreateRequest): Promise<{ uuid: AccountUuid }> {
  const id = `create.${context.random.uuid()}`;
  await context.store.intents.put(id, { operation: 'create', name: request.name } satisfies OperationIntent);
  try {
    const record = await context.writer.createAccount({ ...request, hostServer: context.cluster });
    context.learn(record);
    await context.store.intents.remove(id);
    return { uuid: record.uuid };
  } catch (error) {
    const failure = asPlatformError(error);
    // A refusal is final and leaves nothing behind. Anything else may have happened at the master: the intent stays and is looked into.
    if (failure.retry === 'never') await context.store.intents.remove(id);
    if (failure.code === 'DIR_EXISTS') throw new PlatformError('ACCT_EXISTS', `${request.name} exists already`, { cause: error });
    throw failure;
  }
}

/** Looks into a creation that was cut short: the entry is there, or it never was; both are whole states. */
export async function finishCreate(context: OperationContext, intent: Extract<OperationIntent, { operation: 'create' }>): Promise<string> {
  const { record } = await context.reader.findAccount(intent.name, { authoritative: true });
  if (record === undefined) return 'undone: the directory never had it';
  context.learn(record);
  return `finished: ${record.uuid} is in the directory`;
}
