/** What is measured of a pair of servers: entries per second of a first load, and the lag of single changes. */
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import { attribute, textOf } from '#protocol/ldap/messages.ts';
import type { SyncreplSource } from '#test/interop/slapd-server.ts';

type Server = SyncreplSource & { connect(): Promise<LdapConnection> };

/** Kinds of changes whose lag is measured. */
export const kinds = ['add', 'modify', 'rename', 'delete'] as const;
export type Kind = (typeof kinds)[number];
/** Milliseconds until a reader of the replica sees a change: from sending it to the master, and from the master's answer. */
export interface Lag {
  readonly sent: number[];
  readonly answered: number[];
}
export type Lags = Readonly<Record<Kind, Lag>>;
/** A reader asks so often, milliseconds: without a pause it would take the processor from those it waits for. */
const lookEveryMs = 0.06;

const patienceMs = 600_000;
/** Name of an account. */
export const at = (uid: string): string => `uid=${uid},cn=isp.example,o=mail`;

/** Content of an account. */
export function accountAttributes(uid: string) {
  return [
    attribute('objectClass', 'top', 'person', 'organizationalPerson', 'inetOrgPerson', 'mailAccount'),
    attribute('uid', uid),
    attribute('cn', `User ${uid}`),
    attribute('sn', uid),
    attribute('mail', `${uid}@isp.example`),
    attribute('userPassword', '{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=='),
  ];
}

/** Fills a master with that many accounts. */
export async function fill(master: Server, count: number): Promise<void> {
  await using admin = await master.connect();
  await admin.add('cn=isp.example,o=mail', [attribute('objectClass', 'top', 'mailDomain'), attribute('cn', 'isp.example')]);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const uid = `user${next}`;
      next += 1;
      await admin.add(at(uid), accountAttributes(uid));
    }
  };
  await Promise.all(Array.from({ length: 64 }, worker));
}

/** Seconds of a first load. */
export interface Refresh {
  /** From `start` to the last entry. */
  readonly whole: number;
  /** From the first entry to the last: without what programs take to start. */
  readonly loading: number;
}

/** Waits from `start` until the replica has the last of `count` accounts and all the others. */
export async function timeRefresh(replica: Server, count: number, start: () => Promise<unknown>): Promise<Refresh> {
  const startedMs = performance.now();
  await start();
  await using reader = await replica.connect();
  const has = async (i: number): Promise<boolean> => (await reader.readEntry(at(`user${i}`), ['1.1'])) !== undefined;
  await until(() => has(0), 5);
  const firstMs = performance.now();
  // Both load in the order of the master, but side by side: the last ones are waited for.
  for (let i = Math.max(0, count - 64); i < count; i += 1) await until(() => has(i), 10);
  const endedMs = performance.now();
  for (let i = 0; i < count; i += Math.max(1, Math.floor(count / 200)))
    if (!(await has(i))) throw new Error(`${replica.url} lacks user${i} after its refresh`);
  return { whole: (endedMs - startedMs) / 1000, loading: (endedMs - firstMs) / 1000 };
}

/** Makes changes at the master, one at a time, and measures when the replica shows each, after so many rounds that are not counted. */
export async function timeChanges(master: Server, replica: Server, rounds: number, warmUp: number): Promise<Lags> {
  await using writer = await master.connect();
  await using reader = await replica.connect();
  let isCounted = false;
  const none = (): Lag => ({ sent: [], answered: [] });
  const lags: Lags = { add: none(), modify: none(), rename: none(), delete: none() };
  const there = async (uid: string): Promise<boolean> => (await reader.readEntry(at(uid), ['1.1'])) !== undefined;
  const shows = async (uid: string, text: string): Promise<boolean> =>
    textOf((await reader.readEntry(at(uid), ['description']))?.attributes ?? [], 'description') === text;
  const measure = async (kind: Kind, change: () => Promise<unknown>, isSeen: () => Promise<boolean>): Promise<void> => {
    const sentMs = performance.now();
    await change();
    const answeredMs = performance.now();
    await until(isSeen, lookEveryMs);
    const seenMs = performance.now();
    if (isCounted) {
      lags[kind].sent.push(seenMs - sentMs);
      lags[kind].answered.push(seenMs - answeredMs);
    }
    // Nothing of the last change is under way any more.
    await new Promise((wake) => setTimeout(wake, 3));
  };
  for (let i = 0; i < warmUp + rounds; i += 1) {
    isCounted = i >= warmUp;
    const uid = `lag${i}`;
    await measure(
      'add',
      () => writer.add(at(uid), accountAttributes(uid)),
      () => there(uid),
    );
    const changes = [{ kind: 'replace', attribute: attribute('description', `${i}`) }] as const;
    await measure(
      'modify',
      () => writer.modify(at(uid), changes),
      () => shows(uid, `${i}`),
    );
    const rename = { dn: at(uid), newRdn: `uid=new${uid}`, deleteOldRdn: true, newSuperior: undefined };
    await measure(
      'rename',
      () => writer.modifyDn(rename),
      () => there(`new${uid}`),
    );
    await measure(
      'delete',
      () => writer.delete(at(`new${uid}`)),
      async () => !(await there(`new${uid}`)),
    );
  }
  return lags;
}

/** Resolves once something is so; looks again after a pause in milliseconds. */
export async function until(isSo: () => Promise<boolean>, pauseMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (!(await isSo())) {
    const nowMs = performance.now();
    if (nowMs > deadlineMs) throw new Error(`not so within ${patienceMs / 1000} s`);
    if (pauseMs >= 1) await new Promise((wake) => setTimeout(wake, pauseMs));
    else while (performance.now() < nowMs + pauseMs) await new Promise((wake) => setImmediate(wake));
  }
}

/** The value below which that share of the numbers lies. */
export function quantile(numbers: readonly number[], share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
