/**
 * All commands by name. `UID X` is X with UIDs for numbers, where RFC 9051 §6.4.9 has it.
 */
import { append } from './append.ts';
import { beforeLogin, capability, check, enable, id, logout, namespace, noop } from './basic.ts';
import type { Command } from './command.ts';
import { copy, move } from './copy.ts';
import { expunge } from './expunge.ts';
import { fetch } from './fetch.ts';
import { idle } from './idle.ts';
import { list, lsub } from './list.ts';
import { create, remove, rename, subscribe, unsubscribe } from './mailbox-names.ts';
import { getQuota, getQuotaRoot, setQuota } from './quota.ts';
import { search } from './search.ts';
import { close, examine, select, unselect } from './select.ts';
import { status } from './status.ts';
import { store } from './store.ts';

/** Commands by name, in capitals. */
export const commands: ReadonlyMap<string, Command> = new Map(
  Object.entries({
    CAPABILITY: capability,
    NOOP: noop,
    CHECK: check,
    LOGOUT: logout,
    ID: id,
    NAMESPACE: namespace,
    ENABLE: enable,
    LOGIN: beforeLogin,
    AUTHENTICATE: beforeLogin,
    STARTTLS: beforeLogin,
    SELECT: select,
    EXAMINE: examine,
    CLOSE: close,
    UNSELECT: unselect,
    CREATE: create,
    DELETE: remove,
    RENAME: rename,
    SUBSCRIBE: subscribe,
    UNSUBSCRIBE: unsubscribe,
    LIST: list,
    LSUB: lsub,
    STATUS: status,
    APPEND: append,
    IDLE: idle,
    EXPUNGE: expunge,
    SEARCH: search,
    FETCH: fetch,
    STORE: store,
    COPY: copy,
    MOVE: move,
    GETQUOTA: getQuota,
    GETQUOTAROOT: getQuotaRoot,
    SETQUOTA: setQuota,
  }),
);

/** Commands that may follow `UID `. */
export const uidCommands: ReadonlySet<string> = new Set(['FETCH', 'SEARCH', 'STORE', 'COPY', 'MOVE', 'EXPUNGE']);
