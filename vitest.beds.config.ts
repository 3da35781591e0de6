import { defineConfig } from 'vitest/config';

// Real storage that takes root, packages and minutes: `npm run test:beds`, not part of `npm test`.
export default defineConfig({
  test: { pool: 'forks', include: ['test/beds/**/*.bed.ts'], fileParallelism: false, testTimeout: 120_000, hookTimeout: 300_000 },
});
