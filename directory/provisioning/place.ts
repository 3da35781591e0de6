/**
 * Placement: which cluster gets an account that is added without `hostServer`.
 */
import type { Random } from '#common/random.ts';

/** A cluster, as placement sees it. */
export interface PlacementCandidate {
  readonly name: string;
  /** 0 to 100; 0 takes none. */
  readonly weight: number;
  readonly region: string | undefined;
  /** Accounts it hosts now. */
  readonly accounts: number;
}

/**
 * Chooses a cluster; `undefined` when none takes accounts.
 *
 * Clusters of the account's region come first, if there are any. `fewest-accounts` takes the one with the fewest accounts for its weight (by
 * name among equals, so the choice can be foretold); `weighted` draws by weight, whatever they host.
 */
export function placeAccount(
  rule: 'fewest-accounts' | 'weighted' | 'none',
  clusters: readonly PlacementCandidate[],
  region: string | undefined,
  random: Random,
): string | undefined {
  if (rule === 'none') return undefined;
  const open = clusters.filter((cluster) => cluster.weight > 0);
  const near = open.filter((cluster) => region !== undefined && cluster.region?.toLowerCase() === region.toLowerCase());
  const choice = near.length > 0 ? near : open;
  if (choice.length === 0) return undefined;
  if (rule === 'weighted') {
    let drawn = random.integer(choice.reduce((sum, cluster) => sum + cluster.weight, 0));
    for (const cluster of choice) {
      drawn -= cluster.weight;
      if (drawn < 0) return cluster.name;
    }
  }
  const load = (cluster: PlacementCandidate): number => (cluster.accounts + 1) / cluster.weight;
  return [...choice].sort((a, b) => load(a) - load(b) || (a.name < b.name ? -1 : 1))[0]?.name;
}
