/**
 * Intents of journalled account operations, one small file each.
 */
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { Intents } from './account-store.ts';
import { parseStoredJson, type SmallRecords } from './small-records.ts';

/** Intents over their directory. */
export function storedIntents(records: SmallRecords, logger: Logger): Intents {
  return {
    put: async (id, value) => records.replace(checked(id), JSON.stringify(value)),
    create: async (id, value) => records.create(checked(id), JSON.stringify(value)),
    async list() {
      const intents: { id: string; value: unknown }[] = [];
      for (const id of await records.names()) {
        const text = await records.read(id);
        // Removed since it was listed: its operation is done.
        if (text === undefined) continue;
        const file = `cluster/intents/${id}`;
        try {
          intents.push({ id, value: parseStoredJson(text, file) });
        } catch (error) {
          // The others' operations do not wait for it.
          const message = `${messageOf(error)}; an account operation stays half-done: look at its account, finish it by hand and remove the file`;
          logger.error({ errCode: 'STORE_CORRUPT', file }, message);
        }
      }
      return intents;
    },
    remove: async (id) => records.remove(checked(id)),
  };
}

function checked(id: string): string {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/.test(id)) throw new PlatformError('BUG_UNEXPECTED', `"${id}" is no id of an intent`);
  return id;
}
