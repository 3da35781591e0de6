/**
 * What lies where in the shared directory of a cluster (engine `posix`).
 *
 *     accounts/ab/cd/<uuid>/         ab, cd: first four digits of the uuid, so that no directory grows without bound
 *       stage/<open-id>/             one for each opening; whoever opens next removes all others, and with them the source of every
 *                                    write that is still on its way
 *       log/<slot>                   one commit; made by link() from a staging directory, so it is there whole or not at all
 *       snap/<slot>                  all of the account after that slot; made in the same way
 *       body/s<slot>                 a slot that left log/ (second name of the same file) because messages in it are still wanted
 *       body/f<number>               one large message; number = epoch · 2^20 + counter, so no two openings share one
 *     cluster/terms/<term>           who is Controller in that term; made by link()
 *     cluster/intents/<id>           a half-done account operation
 *     cluster/tmp/                   where the small files above are written before they get their name
 *     cluster/notes/<name>           how far the check of all accounts is; versions of the cluster's settings
 *     tombstones/<uuid>              a removed account
 *     damaged/<uuid>                 an account in which damage was found: it is read-only until it is repaired
 *
 * No file is ever changed in place, no file is locked, and nothing depends on a modification time.
 */
import type { AccountUuid } from '#common/account-name.ts';

/** Paths below one root. */
export interface StoreLayout {
  readonly root: string;
  readonly terms: string;
  readonly intents: string;
  readonly tmp: string;
  readonly tombstones: string;
  readonly damaged: string;
  readonly notes: string;
  account(uuid: AccountUuid): AccountLayout;
}

/** Paths of one account. */
export interface AccountLayout {
  readonly directory: string;
  readonly stage: string;
  readonly log: string;
  readonly snap: string;
  readonly body: string;
}

/** Digits of a slot or term in a name: in the order of names is in the order of numbers. */
const nameDigits = 12;
/** Digits of the number of a large message's file. */
const fileDigits = 16;
/** Large messages that one opening may store. */
export const filesPerEpoch = 2 ** 20;

/** The layout below `root`. */
export function storeLayout(root: string): StoreLayout {
  return {
    root,
    terms: `${root}/cluster/terms`,
    intents: `${root}/cluster/intents`,
    tmp: `${root}/cluster/tmp`,
    tombstones: `${root}/tombstones`,
    damaged: `${root}/damaged`,
    notes: `${root}/cluster/notes`,
    account(uuid) {
      const directory = `${root}/accounts/${uuid.slice(0, 2)}/${uuid.slice(2, 4)}/${uuid}`;
      return {
        directory,
        stage: `${directory}/stage`,
        log: `${directory}/log`,
        snap: `${directory}/snap`,
        body: `${directory}/body`,
      };
    },
  };
}

/** Name of a slot, snapshot or term. */
export function numberName(number: number): string {
  return String(number).padStart(nameDigits, '0');
}

/** The number that a name stands for; `undefined` for any other file. */
export function parseNumberName(name: string): number | undefined {
  return /^\d{12,15}$/.test(name) ? Number(name) : undefined;
}

/** Name below body/ of what `at` of a body reference stands for. */
export function bodyName(at: number): string {
  return at > 0 ? `s${numberName(at)}` : `f${String(-at).padStart(fileDigits, '0')}`;
}

/** The `at` that a name below body/ stands for; `undefined` for any other file. */
export function parseBodyName(name: string): number | undefined {
  if (!/^[sf]\d{12,16}$/.test(name)) return undefined;
  const number = Number(name.slice(1));
  if (number === 0) return undefined;
  return name.startsWith('s') ? number : -number;
}

/** Number of the `counter`th large message of an opening, as `at`. */
export function fileAt(epoch: number, counter: number): number {
  return -(epoch * filesPerEpoch + counter);
}

/** Epoch and counter of a large message's `at`. */
export function fileParts(at: number): { readonly epoch: number; readonly counter: number } {
  return { epoch: Math.floor(-at / filesPerEpoch), counter: -at % filesPerEpoch };
}
