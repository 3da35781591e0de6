/** Writes docs/reference: `node bin/run.mjs operate/docs/generate.ts`. */
import { mkdir, writeFile } from 'node:fs/promises';
import { referencePages } from './pages.ts';

const directory = new URL('../../docs/reference/', import.meta.url);
await mkdir(directory, { recursive: true });
for (const [name, text] of Object.entries(referencePages())) await writeFile(new URL(name, directory), text);
