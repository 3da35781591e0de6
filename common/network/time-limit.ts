/**
 * A limit on what a peer may take. A process that was held up (stopped, or starved of its processor) finds its timers due before it has seen what came
 * meanwhile, so when the time is over there is one more look at the sockets before somebody is told.
 */

/** Time for that look, milliseconds. */
const anotherLookMs = 100;

/** Calls `over` when the time is over. Returns what cancels it, any number of times. Keeps the process alive. */
export function limitTime(limitMs: number, over: () => void): () => void {
  let timer = setTimeout(() => {
    timer = setTimeout(over, anotherLookMs);
  }, limitMs);
  return () => clearTimeout(timer);
}
