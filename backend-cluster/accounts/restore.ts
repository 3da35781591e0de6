/**
 * Brings a removed account back while its storage is kept: a new entry in the directory, in maintenance, then the storage, then the entry
 * is made active. The directory chooses the entry's `entryUUID` anew, on every master alike, so the storage moves under the new one;
 * mail keeps its UIDs. While the entry is in maintenance nobody logs in and mail waits at the frontends, so nothing can be stored under the
 * new UUID before the old storage is there.
 */
import { type AccountName, type AccountUuid, parseAccountName, tryParseAccountUuid } from '#common/account-name.ts';
import { asPlatformError, messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Secret } from '#common/secret.ts';
import type { OperationContext, OperationIntent } from './operation.ts';

/** What the caller wants. */
export interface RestoreParams {
  /** Its name when it was removed, or its UUID. */
  readonly removed: string;
  readonly name?: AccountName;
  readonly password?: Secret<string>;
}

type RestoreIntent = Extract<OperationIntent, { operation: 'restore' }>;

/** Resolves once the account is active with all its mail. Rejects with `ACCT_NOT_FOUND`, `ACCT_EXISTS`, `DIR_*`, `STORE_*` or `ACCT_OPERATION_PENDING`. */
export async function restoreAccount(context: OperationContext, request: RestoreParams): Promise<{ uuid: AccountUuid; name: AccountName }> {
  const { store, writer, cluster } = context;
  const { removed } = request;
  const wanted = tryParseAccountUuid(removed) ?? parseAccountName(removed);
  const found = (await store.listTombstones()).filter(({ uuid, name }) => uuid === wanted || name === wanted);
  // Of several removed accounts of one name the last.
  const tombstone = found.sort((a, b) => b.removedAtMs - a.removedAtMs)[0];
  if (tombstone === undefined) {
    throw new PlatformError('ACCT_NOT_FOUND', `${cluster} keeps no storage of a removed account ${wanted}`, {
      fields: { hint: 'its grace may have ended, or another cluster hosted it' },
    });
  }
  const name = request.name ?? parseAccountName(tombstone.name);
  const id = `restore.${tombstone.uuid}`;
  const intent = { operation: 'restore', from: tombstone.uuid, name } as const satisfies RestoreIntent;
  await store.intents.put(id, intent);
  let uuid: AccountUuid;
  try {
    const { password } = request;
    const record = await writer.createAccount({
      name,
      hostServer: cluster,
      status: 'maintenance',
      ...(password === undefined ? {} : { password }),
    });
    uuid = record.uuid;
    context.learn(record);
  } catch (error) {
    const failure = asPlatformError(error);
    if (failure.retry === 'never') await store.intents.remove(id);
    if (failure.code === 'DIR_EXISTS') {
      throw new PlatformError('ACCT_EXISTS', `${name} exists again; restore the removed account under another name`, { cause: error });
    }
    throw failure;
  }
  try {
    await store.intents.put(id, { ...intent, uuid });
    await finishRestore(context, { ...intent, uuid });
  } catch (error) {
    throw new PlatformError('ACCT_OPERATION_PENDING', `the restoration of ${name} will be finished: ${messageOf(error)}`, { cause: error });
  }
  await store.intents.remove(id);
  return { uuid, name };
}

/** Does all steps that are not done. */
export async function finishRestore(context: OperationContext, intent: RestoreIntent): Promise<string> {
  const { store, reader, writer } = context;
  const { record } =
    intent.uuid === undefined
      ? await reader.findAccount(intent.name, { authoritative: true })
      : await reader.findAccountByUuid(intent.uuid, { authoritative: true });
  // Also when somebody else has made an account of that name: only ours was made in maintenance.
  if (record === undefined || record.status !== 'maintenance' || record.hostServer !== context.cluster) {
    return 'dropped: the directory has no entry that was made for it';
  }
  if ((await store.state(intent.from)) === 'tombstone') await store.adopt(intent.from, record.uuid);
  await writer.setStatus(record.uuid, 'active');
  context.learn({ ...record, status: 'active' });
  return `finished: ${record.name} has its storage again`;
}
