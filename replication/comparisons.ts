/**
 * Comparisons of whole replicas, each with files of its own in the state directory: `NAME.suspects-N.sqlite` and `NAME.differences-N.sqlite`.
 * What a killed one left in them is removed before they are used again.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Files } from '#common/files/files.ts';
import { removeFile } from '#replication/checkpoint.ts';
import type { ComparisonProgress, FoundDifferences } from '#replication/client/status.ts';
import { checkRepair } from '#replication/repair.ts';
import { Differences } from '#replication/store/differences.ts';
import { stateFile } from '#replication/store/shadow.ts';
import { type Comparison, compareServers } from '#replication/verify.ts';

/** Comparisons at a time, of which somebody may still be reading what they found. */
const comparisonsMax = 4;

/** See the header of this file. */
export class Comparisons {
  readonly #files: Pick<Files, 'unlink'>;
  readonly #directory: string;
  readonly #maxPercent: number;
  readonly #inUse = new Set<number>();

  /** `maxPercent`: share of a replica that a repair may delete. */
  constructor(files: Pick<Files, 'unlink'>, directory: string, maxPercent: number) {
    this.#files = files;
    this.#directory = directory;
    this.#maxPercent = maxPercent;
  }

  /** Compares the whole. What was found is kept until it is disposed of. */
  async run(
    comparison: Comparison,
    work: { readonly signal: AbortSignal; readonly onProgress?: ((progress: ComparisonProgress) => void) | undefined },
  ): Promise<FoundDifferences> {
    const number = this.#take();
    const file = (kind: string): string => stateFile(this.#directory, comparison.name, `${kind}-${number}`);
    const suspectsFile = file('suspects');
    let differences: Differences | undefined;
    const dispose = (): void => {
      if (!this.#inUse.delete(number)) return;
      differences?.[Symbol.dispose]();
    };
    try {
      for (const path of [suspectsFile, file('differences')]) await removeFile(this.#files, path);
      const found = new Differences(file('differences'));
      differences = found;
      const { onProgress = () => {}, signal } = work;
      const report = await compareServers(comparison, { suspectsFile, differences: found, onProgress, signal });
      return { report, size: found.size, all: () => found.all(), refusal: this.#refusalOf(report), [Symbol.dispose]: dispose };
    } catch (error) {
      dispose();
      throw error;
    }
  }

  #take(): number {
    for (let number = 1; number <= comparisonsMax; number += 1) {
      if (this.#inUse.has(number)) continue;
      this.#inUse.add(number);
      return number;
    }
    throw new PlatformError(
      'ADMIN_CONFLICT',
      `${comparisonsMax} comparisons run already, which is as many as run at a time; wait for one of them, or end it where it was asked for`,
    );
  }

  #refusalOf(report: Parameters<typeof checkRepair>[0]): string | undefined {
    try {
      checkRepair(report, this.#maxPercent);
      return undefined;
    } catch (error) {
      if (error instanceof PlatformError) return error.message;
      throw error;
    }
  }
}
