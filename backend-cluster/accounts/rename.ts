/**
 * Renames an account: one Modify DN at the master (RFC 4511 §4.9). Storage, sessions and mail in flight hold the UUID, so nothing moves
 * and nobody is disconnected.
 */
import type { AccountName, AccountUuid } from '#common/account-name.ts';
import { asPlatformError, PlatformError } from '#common/errors/platform-error.ts';
import type { OperationContext, OperationIntent } from './operation.ts';

/** Resolves once the master has the new name. Rejects with `ACCT_EXISTS`, `ACCT_NOT_FOUND`, `DIR_*`, or with
 * `ACCT_OPERATION_PENDING` when the directory cannot be reached: it is finished then later. */
export async function renameAccount(context: OperationContext, uuid: AccountUuid, to: AccountName): Promise<void> {
  const id = `rename.${uuid}`;
  await context.store.intents.put(id, { operation: 'rename', uuid, to } satisfies OperationIntent);
  try {
    context.learn(await context.writer.renameAccount(uuid, to));
    await context.store.intents.remove(id);
  } catch (error) {
    const failure = asPlatformError(error);
    if (failure.retry === 'never') await context.store.intents.remove(id);
    if (failure.code === 'DIR_EXISTS') throw new PlatformError('ACCT_EXISTS', `${to} exists already`, { cause: error });
    if (failure.code === 'DIR_NOT_FOUND') throw new PlatformError('ACCT_NOT_FOUND', `there is no account ${uuid}`, { cause: error });
    if (failure.retry === 'never') throw failure;
    throw new PlatformError('ACCT_OPERATION_PENDING', `the rename to ${to} will be finished: ${failure.message}`, { cause: error });
  }
}

/** Finishes a rename that was cut short, unless the directory refuses it for good. */
export async function finishRename(context: OperationContext, intent: Extract<OperationIntent, { operation: 'rename' }>): Promise<string> {
  const { record } = await context.reader.findAccountByUuid(intent.uuid, { authoritative: true });
  if (record === undefined) return 'dropped: the account is gone';
  if (record.name !== intent.to) {
    try {
      context.learn(await context.writer.renameAccount(intent.uuid, intent.to));
    } catch (error) {
      const failure = asPlatformError(error);
      if (failure.retry !== 'never') throw failure;
      return `dropped: the directory refuses it (${failure.code})`;
    }
  }
  return `finished: it is ${intent.to} now`;
}
