/**
 * What 389 Directory Server needs of those who follow it (seen with 2.3.1). Its cookies end in the number of a change
 * (`host:port#bind DN:base:filter#number`), and there are two places where they must not be relied on:
 *
 *   our cookie ──► its last number N is read ──► it begins to listen ──► what changed up to N ──► `refreshed` ──► what it has heard of
 *                                            ▲
 *                       a change made here is in neither part, for good
 *
 * So once it listens, what changed since N is asked for a second time; of that, what the stream has not told meanwhile is taken.
 * And a change that is in both parts comes with a number that is none, after which it counts from the beginning again: such a stream is
 * ended, and the next one goes on from the last number that was right.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { SyncEvent } from '#directory/client/sync-session.ts';

/** Events of the second reading, and entries told of while it lasts. More than that ends the session; the next one begins at a later number. */
const missedMax = 10_000;
/** What its counter gives for "none", in both widths of its integers. */
const noNumbers: ReadonlySet<bigint> = new Set([0xffff_ffffn, 0xffff_ffff_ffff_ffffn]);

/** Whether a cookie ends in a change number; those of OpenLDAP and of our own server name CSNs. */
export function isNumbered(cookie: Buffer): boolean {
  return numberOf(cookie) !== undefined;
}

/** What follows `refreshed`, with what was missed as soon as that is known. `from` is the cookie of `refreshed`; ends when `lists` does. */
export async function* numberedChanges(
  server: string,
  from: Buffer,
  lists: AsyncGenerator<readonly SyncEvent[], void, undefined>,
  missed: Promise<readonly SyncEvent[]> | undefined,
): AsyncGenerator<readonly SyncEvent[], void, undefined> {
  const numbers = new Numbers(from);
  const told = new Set<string>();
  let waiting = missed?.then((events) => ({ events }));
  // Its failure is met below, unless the session has ended before.
  waiting?.catch(() => {});
  let next = lists.next();
  for (;;) {
    const got = await (waiting === undefined ? next : Promise.race([next, waiting]));
    if ('events' in got) {
      waiting = undefined;
      yield numbers.onward(got.events.flatMap((event) => withoutTold(event, told)));
      told.clear();
      continue;
    }
    if (got.done === true) return;
    const lostAt = got.value.findIndex(({ cookie }) => cookie !== undefined && noNumbers.has(numberOf(cookie) ?? 0n));
    const events = lostAt < 0 ? got.value : got.value.slice(0, lostAt + 1);
    if (waiting !== undefined) for (const event of events) for (const uuid of uuidsOf(event)) told.add(uuid);
    if (told.size > missedMax) throw tooMuch(server);
    yield numbers.onward(events);
    if (lostAt >= 0) throw new PlatformError('DIR_UNAVAILABLE', `${server} lost count of its changes: asked again from ${numbers.latest}`);
    next = lists.next();
  }
}

/** The second reading as a whole, in an order that can be applied: as in a refresh, who is gone comes last. */
export async function readMissed(server: string, lists: AsyncIterable<readonly SyncEvent[]>): Promise<readonly SyncEvent[]> {
  const changed: SyncEvent[] = [];
  const gone: SyncEvent[] = [];
  for await (const list of lists) {
    // Its numbers count once it is whole.
    for (const event of list.flatMap(withoutCookie)) (event.type === 'delete' ? gone : changed).push(event);
    if (changed.length + gone.length > missedMax) throw tooMuch(server);
  }
  return [...changed, ...gone];
}

/** Lets those cookies through that lead onwards. */
class Numbers {
  latest: bigint;

  constructor(from: Buffer) {
    this.latest = numberOf(from) ?? 0n;
  }

  onward(events: readonly SyncEvent[]): readonly SyncEvent[] {
    return events.flatMap((event) => {
      if (event.cookie === undefined) return event;
      const number = numberOf(event.cookie) ?? 0n;
      if (number <= this.latest || noNumbers.has(number)) return withoutCookie(event);
      this.latest = number;
      return event;
    });
  }
}

function numberOf(cookie: Buffer): bigint | undefined {
  const match = /^[^#]*:\d+#.*#(\d{1,20})$/s.exec(cookie.toString('latin1'));
  return match === null ? undefined : BigInt(match[1] as string);
}

function uuidsOf(event: SyncEvent): Iterable<string> {
  if (event.type === 'entry') return [event.uuid];
  return event.type === 'delete' ? event.uuids : [];
}

function withoutTold(event: SyncEvent, told: ReadonlySet<string>): readonly SyncEvent[] {
  if (event.type !== 'delete') return [...uuidsOf(event)].some((uuid) => told.has(uuid)) ? [] : [event];
  const uuids = [...event.uuids].filter((uuid) => !told.has(uuid));
  return uuids.length === 0 ? [] : [{ ...event, uuids }];
}

function withoutCookie(event: SyncEvent): SyncEvent | readonly [] {
  if (event.cookie === undefined) return event;
  if (event.type === 'cookie') return [];
  if (event.type !== 'entry') return { ...event, cookie: undefined };
  const { type, isAdd, uuid, dn, attributes, attributesBer } = event;
  return { type, isAdd, uuid, dn, attributes, attributesBer, cookie: undefined };
}

function tooMuch(server: string): PlatformError {
  return new PlatformError('DIR_UNAVAILABLE', `${server} changed more than ${missedMax} entries while its stream began: asked again`);
}
