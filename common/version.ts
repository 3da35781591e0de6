/** The product's version, as package.json has it. */
import { createRequire } from 'node:module';

/** e.g. `0.1.0` */
export const productVersion: string = (createRequire(import.meta.url)('../package.json') as { version: string }).version;
