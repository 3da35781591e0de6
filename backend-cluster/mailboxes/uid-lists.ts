/** Lists of UIDs, as the store takes them. */

/** In ascending order, none twice. */
export function ascendingUids(uids: readonly number[]): readonly number[] {
  for (let i = 1; i < uids.length; i += 1) {
    if ((uids[i] as number) <= (uids[i - 1] as number)) return [...new Set(uids)].sort((a, b) => a - b);
  }
  return uids;
}
