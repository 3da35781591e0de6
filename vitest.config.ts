import { defineConfig } from 'vitest/config';

// Two projects: `fast` runs files side by side and needs nothing but Node; `slow` starts real servers and runs one file at a time.
const slow = ['test/e2e/**/*.test.ts', 'test/interop/**/*.test.ts'];

export default defineConfig({
  test: {
    pool: 'forks',
    projects: [
      { test: { name: 'fast', include: ['test/**/*.test.ts'], exclude: slow, testTimeout: 20_000 } },
      { test: { name: 'slow', include: slow, testTimeout: 120_000, hookTimeout: 120_000, fileParallelism: false } },
    ],
  },
});
