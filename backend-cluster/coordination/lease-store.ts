/**
 * The coordinator: leases with values, by which the members of one Dynamic Cluster see each other and agree on who should try to be
 * Controller. It is a hint and never a lock: whoever holds a lease still has to claim its term in shared storage, and every write is
 * checked there. Losing the coordinator, its memory or its clock costs time, never mail.
 *
 * Engines: embedded.ts (members of one process), socket.ts (processes of one machine), redis/ (machines). test/contracts/coordinator.test.ts
 * runs one suite over all of them.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** A lease that is held. */
export interface Lease {
  readonly key: string;
  /** Who holds it: never used by two at once, e.g. a member's incarnation. */
  readonly holder: string;
  /** What the holder wants others to know; plain JSON of at most `valueBytesMax`. */
  readonly value: unknown;
}

/** Answer to `take`: the lease is the caller's, or somebody else's. */
export type TakeAnswer = { readonly isTaken: true } | { readonly isTaken: false; readonly by: Lease };

/** Longest key or holder, characters; largest value, bytes; most leases of one cluster. */
export const keyLengthMax = 300;
export const valueBytesMax = 4_096;
export const leasesMax = 10_000;

/** The lease of the member that should try to be Controller. */
export const controllerLeaseKey = 'controller';

/** Refuses, with `STORE_UNAVAILABLE`, what is larger than a coordinator takes. */
export function requireFits(key: string, holder: string, value: unknown): void {
  if (key.length > keyLengthMax || holder.length > keyLengthMax || JSON.stringify(value ?? null).length > valueBytesMax) {
    throw new PlatformError('STORE_UNAVAILABLE', `the lease ${key.slice(0, 100)} is larger than the coordinator takes`);
  }
}

/** See the header of this file. Every call may reject with `STORE_UNAVAILABLE` when the coordinator does not answer. */
export interface LeaseStore extends AsyncDisposable {
  readonly engine: string;
  /** Takes a free lease, or prolongs the caller's own; the value is replaced either way. */
  take(key: string, holder: string, value: unknown, leaseMs: number): Promise<TakeAnswer>;
  /** Ends a lease if `holder` still holds it; otherwise nothing happens. */
  release(key: string, holder: string): Promise<void>;
  /** Leases whose key starts with `prefix`, by key. */
  list(prefix: string): Promise<readonly Lease[]>;
  /** In a sentence, for status and readiness. */
  status(): { readonly ok: boolean; readonly detail: string };
}
