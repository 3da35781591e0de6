/**
 * Compares replicas with the master all the time, slowly: so many entries a second in all, whatever there is to compare.
 *
 *   round of one replica:  UUIDs of the master, 100 at a time ──► look at these on both sides    finds missing, other content, other name
 *                          UUIDs of the replica, 100 at a time ──► look at these on both sides   finds extra entries
 *   then the next replica; while it does not follow (a refresh, an outage), the round waits or begins again
 *
 * Over hours a digest of ranges would meet every change of those hours, so both sides are looked at within the same moment instead. What
 * differs is looked at again once the replica has had time for it (verify.ts). Only one lot of entries is in memory, and the differences.
 */
import { sleep } from '#common/clock.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { LdapConnection } from '#directory/client/ldap-connection.ts';
import type { ContinuousStatus, VerifyReport } from '#replication/client/status.ts';
import { readAllAtMaster, readAllEntries } from '#replication/replica.ts';
import { type Comparison, Findings, lookAt, lookAtMax, named } from '#replication/verify.ts';

/** A pause between rounds, and after one that failed. */
const roundPauseMs = 10_000;
/** How often a round that waits for a refresh looks whether it is over. */
const waitMs = 1000;
/** Time between two pages of the same reading: servers end connections that are silent for long. */
const pageSecondsMax = 20;

/** What a replica is to this comparison. */
export interface ContinuousTarget {
  readonly name: string;
  /** Why it cannot be compared now; `undefined` when it can. */
  readonly waitsFor: () => string | undefined;
  /** Connections for one round: to look at entries, and to read UUIDs. */
  readonly open: () => Promise<
    { readonly comparison: Comparison; readonly walks: readonly [LdapConnection, LdapConnection] } & AsyncDisposable
  >;
  readonly onRound: (report: VerifyReport) => Promise<void>;
}

type Progress = { -readonly [K in keyof ContinuousStatus]: ContinuousStatus[K] };

/** See the header of this file. */
export class ContinuousComparison implements AsyncDisposable {
  readonly #entriesPerSecond: number;
  readonly #ports: Ports;
  readonly #targets: () => readonly ContinuousTarget[];
  readonly #progress = new Map<string, Progress>();
  readonly #entries = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  /** `targets` are asked for before each tour of them. */
  constructor(entriesPerSecond: number, ports: Ports, targets: () => readonly ContinuousTarget[]) {
    this.#entriesPerSecond = entriesPerSecond;
    this.#ports = ports;
    this.#targets = targets;
    this.#running = entriesPerSecond === 0 ? Promise.resolve() : this.#run();
  }

  status(replica: string): ContinuousStatus | undefined {
    const progress = this.#progress.get(replica);
    return progress === undefined ? undefined : { ...progress };
  }

  /** How many entries a comparison of the whole has counted at the master. */
  noteEntries(replica: string, entries: number): void {
    this.#entries.set(replica, entries);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, random, log } = this.#ports;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      // Services of one installation do not look at their masters in step.
      await sleep(clock, roundPauseMs + random.integer(roundPauseMs), signal);
      for (const target of this.#targets()) {
        if (signal.aborted) return;
        try {
          if (this.#waits(target)) continue;
          const report = await this.#round(target);
          if (report !== undefined) await target.onRound(report);
        } catch (error) {
          if (signal.aborted) return;
          const progress = this.#progress.get(target.name);
          if (progress !== undefined) progress.waitsFor = messageOf(error);
          log.info({ component: 'verify', replica: target.name }, `the continuous comparison begins again later: ${messageOf(error)}`);
        }
      }
    }
  }

  // `undefined` when the service stops.
  async #round(target: ContinuousTarget): Promise<VerifyReport | undefined> {
    const before = this.#progress.get(target.name);
    const progress: Progress = {
      checked: 0,
      share: this.#shareOf(target.name, 0),
      roundStartedAtMs: this.#ports.clock.nowMs(),
      lastRoundAtMs: before?.lastRoundAtMs,
      lastRoundDiffering: before?.lastRoundDiffering,
      differing: 0,
      waitsFor: undefined,
    };
    this.#progress.set(target.name, progress);
    await using opened = await target.open();
    const { comparison, walks } = opened;
    const findings = new Findings();
    let entries = 0;
    for (const [side, walk] of walks.entries()) {
      const pageSize = Math.min(lookAtMax, Math.max(1, this.#entriesPerSecond * pageSecondsMax));
      let lot: string[] = [];
      const flush = async (): Promise<void> => {
        await this.#lookAt(target, comparison, lot, findings, progress);
        if (side === 0) entries += lot.length;
        lot = [];
      };
      const { suffix, scope } = comparison;
      const all = side === 0 ? readAllAtMaster(walk, suffix, [], scope, pageSize) : readAllEntries(walk, suffix, [], pageSize);
      for await (const entry of all) {
        if (this.#stop.signal.aborted) return undefined;
        lot.push(named(entry, walk));
        if (lot.length === pageSize) await flush();
      }
      await flush();
      if (this.#stop.signal.aborted) return undefined;
    }
    this.#entries.set(target.name, entries);
    const report = findings.report(target.name, entries);
    progress.lastRoundAtMs = this.#ports.clock.nowMs();
    progress.lastRoundDiffering = report.differing;
    progress.share = 1;
    return report;
  }

  async #lookAt(
    target: ContinuousTarget,
    comparison: Comparison,
    uuids: readonly string[],
    findings: Findings,
    progress: Progress,
  ): Promise<void> {
    const { clock } = this.#ports;
    const { signal } = this.#stop;
    while (this.#waits(target)) {
      if (signal.aborted) return;
      await sleep(clock, waitMs, signal);
    }
    const startedMs = clock.monotonicMs();
    // What differs by content is met on both walks, and counts once.
    await lookAt(comparison, uuids, findings);
    progress.checked += uuids.length;
    progress.differing = findings.differing;
    progress.share = this.#shareOf(target.name, progress.checked);
    const paceMs = (uuids.length * 1000) / this.#entriesPerSecond;
    await sleep(clock, Math.max(0, paceMs - (clock.monotonicMs() - startedMs)), signal);
  }

  #waits(target: ContinuousTarget): boolean {
    const waitsFor = target.waitsFor();
    const progress = this.#progress.get(target.name);
    if (progress !== undefined) progress.waitsFor = waitsFor;
    return waitsFor !== undefined;
  }

  // A round meets the entries on both sides.
  #shareOf(replica: string, checked: number): number | undefined {
    const entries = this.#entries.get(replica);
    return entries === undefined || entries === 0 ? undefined : Math.min(1, checked / (2 * entries));
  }
}
