/**
 * Substring indexes as the configuration names them: one that is new is filled while the server runs, some entries at a time so that others
 * are served between; until it is whole, searches do without. Where filling stopped is in the database, so a restart goes on there.
 */
import { type Clock, sleep } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Logger } from '#common/log/logger.ts';
import type { EntryStore } from '../store/entry-store.ts';

/** Entries of one write: some ten milliseconds. More at a time cost less in all, as each row is then written once for more of them. */
const entriesAtOnce = 500;
/** Until the next attempt when one failed, e.g. because the disk is full. */
const againAfterMs = 10_000;

/** Takes the wanted attributes over and fills what is missing behind the caller; `dispose` stops that. */
export async function fillPieces(store: EntryStore, wanted: ReadonlySet<string>, clock: Clock, log: Logger): Promise<AsyncDisposable> {
  const { names } = store.pieces;
  if (names.length !== wanted.size || names.some((name) => !wanted.has(name))) await store.write(() => store.keepPieces(wanted));
  const stopping = new AbortController();
  const filling = fillAll(store, clock, log, stopping.signal);
  return {
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await filling;
    },
  };
}

async function fillAll(store: EntryStore, clock: Clock, log: Logger, stopping: AbortSignal): Promise<void> {
  for (let told: string | undefined; !stopping.aborted; ) {
    const attribute = store.pieces.unfilled;
    if (attribute === undefined) return;
    if (attribute !== told) log.info({ attribute, entries: store.tally('entries') }, 'a substring index is being filled');
    told = attribute;
    try {
      // Nothing is lost with these if the power fails: they are repeated.
      await store.write(() => store.fillPieces(attribute, entriesAtOnce), 'relaxed');
      if (store.pieces.answers(attribute)) log.info({ attribute }, 'the substring index is whole and answers searches');
    } catch (error) {
      log.warn({ attribute, detail: messageOf(error) }, 'a substring index is not whole yet: writing failed, it goes on in a moment');
      await sleep(clock, againAfterMs, stopping);
    }
  }
}
