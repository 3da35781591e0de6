import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { errorCatalogue } from '#common/errors/catalogue.ts';
import { referencePages } from '#operate/docs/pages.ts';

const reference = join(import.meta.dirname, '..', '..', '..', 'docs', 'reference');

describe('the reference pages', () => {
  // A page that is behind: run `node bin/run.mjs operate/docs/generate.ts` and read what changed.
  it.each(Object.entries(referencePages()))('%s says what the code declares', (name, text) => {
    expect(readFileSync(join(reference, name), 'utf8')).toBe(text);
  });

  it('list every error code once, and no other', () => {
    const page = readFileSync(join(reference, 'errors.md'), 'utf8');
    const listed = [...page.matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map((match) => match[1]);
    expect(listed).toEqual(Object.keys(errorCatalogue));
  });

  it('describe every option: none is declared without a word on what it is for', () => {
    const page = readFileSync(join(reference, 'config.md'), 'utf8');
    const bare = [...page.matchAll(/^\| `([^`]+)` \| (?!list \||group \|)(?!`)[^|]* \| [^|]* \| {2}\|$/gm)].map((match) => match[1]);
    expect(bare).toEqual([]);
  });
});
