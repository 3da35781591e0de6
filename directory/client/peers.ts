/** How long the answer of another directory server counts for a master with `writesNeed: majority`; a forced promotion waits as long. */
export const answersLastMs = 5000;
