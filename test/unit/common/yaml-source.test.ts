import { describe, expect, test } from 'vitest';
import { parseYaml } from '#common/config/yaml-source.ts';

describe('hostile YAML', () => {
  test.each([
    ['an alias that contains itself', 'a: &a [*a, *a]\n', /alias contains itself/],
    ['more levels than a node file has', `${'['.repeat(70)}${']'.repeat(70)}\n`, /nested deeper than 64/],
    [
      'aliases that multiply',
      Array.from(
        { length: 8 },
        (_, i) =>
          `k${i}: &k${i} [${
            i === 0
              ? 'x'
              : Array(9)
                  .fill(`*k${i - 1}`)
                  .join(',')
          }]\n`,
      ).join(''),
      /alias count/,
    ],
  ])('%s is one mistake', (_what, text, message) => {
    const { mistakes } = parseYaml(text);
    expect(mistakes).toHaveLength(1);
    expect(mistakes[0]?.message).toMatch(message);
  });

  test('of thousands of mistakes the first twenty are told', () => {
    expect(parseYaml(`x: ${'['.repeat(20_000)}\n`).mistakes.length).toBeLessThanOrEqual(20);
  });
});
