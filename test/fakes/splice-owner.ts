/** Whoever a relay belongs to, with nothing to say and nobody to tell. */
import type { SpliceOwner } from '#frontend/relay/splice.ts';
import { FakeClock } from './clock.ts';

/** An owner that differs in what is given. */
export function spliceOwner(own: Partial<SpliceOwner> = {}): SpliceOwner {
  return { clock: new FakeClock(), spliceEnded: () => {}, lastWords: () => undefined, ...own };
}
