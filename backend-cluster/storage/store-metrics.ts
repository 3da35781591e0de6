/**
 * What the store counts, in one place.
 */
import type { Metrics } from '#common/metrics/metrics.ts';

/** The store's metrics. */
export interface StoreMetrics {
  committed(outcome: string, seconds: number, changes: number, bytes: number): void;
  opened(outcome: string, seconds: number): void;
  compacted(outcome: string): void;
  corruptionFound(): void;
}

/** Registers them; `measure` is asked before each exposition. */
export function storeMetrics(metrics: Metrics, measure: () => { readonly accounts: number; readonly bytes: number }): StoreMetrics {
  const commits = metrics.counter('archipelago_store_commits_total', 'Commits of account log slots, by outcome.', ['outcome']);
  const commitSeconds = metrics.histogram('archipelago_store_commit_seconds', 'Time from the first byte of a commit to its durability.');
  const groupSize = metrics.histogram(
    'archipelago_store_commit_changes',
    'Changes that went into one commit.',
    [],
    [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
  );
  const bytesWritten = metrics.counter('archipelago_store_committed_bytes_total', 'Bytes of committed slots.');
  const opens = metrics.counter('archipelago_store_opens_total', 'Openings of accounts, by outcome.', ['outcome']);
  const openSeconds = metrics.histogram('archipelago_store_open_seconds', 'Time to open an account.');
  const compactions = metrics.counter('archipelago_store_compactions_total', 'Snapshots written and logs shortened, by outcome.', [
    'outcome',
  ]);
  const corruptions = metrics.counter('archipelago_store_corruptions_total', 'Stored records or bodies that failed their checksum.');
  const openAccounts = metrics.gauge('archipelago_store_open_accounts', 'Accounts open on this member.');
  const openBytes = metrics.gauge('archipelago_store_open_account_bytes', 'Memory that the index data of open accounts takes.');
  metrics.onCollect(() => {
    const { accounts, bytes } = measure();
    openAccounts.set({}, accounts);
    openBytes.set({}, bytes);
  });
  return {
    committed(outcome, seconds, changes, bytes) {
      commits.add({ outcome });
      if (outcome !== 'committed') return;
      commitSeconds.observe({}, seconds);
      groupSize.observe({}, changes);
      bytesWritten.add({}, bytes);
    },
    opened(outcome, seconds) {
      opens.add({ outcome });
      if (outcome === 'opened') openSeconds.observe({}, seconds);
    },
    compacted: (outcome) => compactions.add({ outcome }),
    corruptionFound: () => corruptions.add(),
  };
}
