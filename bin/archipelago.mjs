#!/usr/bin/env node
// The `archipelago` command. Plain JavaScript, because an old Node must be able to read it: it only sees to Node 24.
import { underNode24 } from './node24.mjs';

await underNode24(new URL('../operate/cli/main.ts', import.meta.url), process.argv.slice(2));
