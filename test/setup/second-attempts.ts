import type { Reporter, TestCase } from 'vitest/node';

/** Names at the end every test that passed only when it was run a second time: each is a race to be traced. */
export class SecondAttempts implements Reporter {
  readonly #names: string[] = [];

  onTestCaseResult(test: TestCase): void {
    if (test.diagnostic()?.flaky) this.#names.push(`${test.module.relativeModuleId} > ${test.fullName}`);
  }

  onTestRunEnd(): void {
    for (const name of this.#names) process.stdout.write(`passed at the second attempt only: ${name}\n`);
  }
}
// biome-ignore lint/style/noDefaultExport: Vitest loads a reporter by its default export.
export { SecondAttempts as default };
