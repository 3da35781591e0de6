/** What the processes of one frontend are to each other, as each offers it. */
import type { LoginGuard } from '../guard/login-guard.ts';
import type { Routes } from '../routing/routes.ts';
import type { SharedIndexFacts } from '../routing/shared-index.ts';
import type { ListenerCounts } from './shared-counts.ts';
import type { SharedNews } from './sharing.ts';

/** See the header of this file. */
export interface FrontendSharing {
  readonly guard: Pick<LoginGuard, 'note' | 'onChange'>;
  /** By listener for sessions, for so many other processes. */
  counts(others: number): readonly ListenerCounts[];
  setElsewhere(counts: readonly ListenerCounts[]): void;
  /** What other frontends of the subset have said, as this process is told of it by the first one. */
  takeNews(from: string, news: SharedNews): void;
  /** Has such news passed on to the other processes: from now on, and what there is. */
  onNews(pass: (from: string, news: SharedNews) => void): void;
  newsSoFar(): readonly { readonly from: string; readonly news: SharedNews }[];
  /** The first process's route index, for the others. */
  readonly index: Pick<Routes, 'find' | 'forget'>;
  /** With which they read it, where it lies in memory that they share. */
  indexFacts(): SharedIndexFacts;
}
