// Keeps what Node makes of the source files, without types and compiled, from one start to the next: a start has hundreds of files to read,
// and so has each thread. It lies with the installation, so that only whoever may change the code may change it; without a right to
// write there nothing is kept. Plain JavaScript, because an old Node must be able to read it.
import * as module from 'node:module';
import { fileURLToPath } from 'node:url';

/** Turns it on for this process, and by the environment for its threads and for the programs that it starts. */
export function useCompileCache() {
  if (process.env.NODE_COMPILE_CACHE !== undefined || process.env.NODE_DISABLE_COMPILE_CACHE !== undefined) return;
  const directory = fileURLToPath(new URL('../node_modules/.cache/archipelago', import.meta.url));
  // Older ones have no such thing, and only pass the environment on to the Node that was brought along.
  const status = module.enableCompileCache?.(directory).status;
  if (status !== module.constants?.compileCacheStatus?.FAILED || status === undefined) process.env.NODE_COMPILE_CACHE = directory;
}
