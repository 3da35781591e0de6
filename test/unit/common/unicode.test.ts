import { describe, expect, test } from 'vitest';
import { normalized } from '#common/unicode.ts';

describe('normalization of hostile text', () => {
  test.each(['e\u0301', '\u1100\u1161\u11a8', '\uff76\uff9e', 'ﬁ', `a${'\u0316\u0301'.repeat(15)}`, '', 'plain'])(
    '%j is normalized as the language does it',
    (text) => {
      for (const form of ['NFC', 'NFKC'] as const) expect(normalized(text, form)).toBe(text.normalize(form));
    },
  );

  test.each([
    ['combining marks', '\u0301\u0316'],
    ['marks that only NFKC makes', '\uff9e\u0334'],
  ])('a text of hundreds of thousands of %s does not hold up the process', (_what, pair) => {
    const started = performance.now();
    const result = normalized(`a${pair.repeat(200_000)}`, 'NFKC');
    // Unguarded this takes more than a minute.
    expect(performance.now() - started).toBeLessThan(3000);
    expect(result.length).toBeGreaterThan(300_000);
  });
});
