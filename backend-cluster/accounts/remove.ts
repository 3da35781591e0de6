/**
 * Removes an account: closed everywhere, then its entry, then a tombstone over its storage, which is kept until the grace ends. An
 * account whose entry was removed by somebody else (a provisioning system at the master) takes the same road from its second step on.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { OperationContext, OperationIntent } from './operation.ts';

/** Words that its sessions read. */
const goodbye = 'Account was removed';

/** Resolves once entry and storage are gone. Rejects with `ACCT_NOT_FOUND`, `DIR_*`, or
 * `ACCT_OPERATION_PENDING` when directory or storage cannot be reached: it is finished then later. */
export async function removeAccount(context: OperationContext, uuid: AccountUuid): Promise<void> {
  const { record } = await context.reader.findAccountByUuid(uuid, { authoritative: true });
  if (record === undefined || record.hostServer !== context.cluster) {
    throw new PlatformError('ACCT_NOT_FOUND', `${context.cluster} hosts no account ${uuid}`);
  }
  const intent = { operation: 'remove', uuid, name: record.name, isGone: false } as const satisfies OperationIntent;
  await context.store.intents.put(`remove.${uuid}`, intent);
  try {
    await finishRemove(context, intent);
  } catch (error) {
    throw new PlatformError('ACCT_OPERATION_PENDING', `the removal of ${record.name} will be finished: ${messageOf(error)}`, {
      cause: error,
    });
  }
  await context.store.intents.remove(`remove.${uuid}`);
}

/** Does all steps that are not done. Rejects when the directory or storage cannot be reached; the intent stays then. */
export async function finishRemove(context: OperationContext, intent: Extract<OperationIntent, { operation: 'remove' }>): Promise<string> {
  const { uuid } = intent;
  if (intent.isGone) {
    // The news came over a replica; only the master may say that an account is no more.
    const { record } = await context.reader.findAccountByUuid(uuid, { authoritative: true });
    if (record !== undefined) return 'dropped: the master still has the entry';
  } else {
    await context.writer.removeAccount(uuid).catch((error: unknown) => {
      if (asPlatformError(error).code !== 'DIR_NOT_FOUND') throw error;
    });
  }
  // A host that cannot be told is deposed by the tombstone at its next commit.
  await context.closeEverywhere(uuid, goodbye).catch((error: unknown) => {
    context.log.debug({ account: uuid, err: error }, 'the host of a removed account was not told');
  });
  if ((await context.store.state(uuid)) === 'present') {
    await context.store.entomb(uuid, { name: intent.name, removedAtMs: context.clock.nowMs() });
    return 'finished: its storage has a tombstone';
  }
  return 'finished: it had no storage';
}
