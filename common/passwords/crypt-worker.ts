/**
 * The thread that computes crypt(3) hashes that node:crypto does not know: bcrypt and SHA-crypt. One job is one message, and is answered by one.
 */
import { parentPort } from 'node:worker_threads';
import { compareSync } from 'bcryptjs';
import type { CryptJob, CryptOutcome } from './crypt-thread.ts';
import { shaCryptVerify } from './sha-crypt.ts';

parentPort?.on('message', ({ id, stored, password }: CryptJob) => {
  const outcome: CryptOutcome = { id, matches: matches(stored, password) };
  parentPort?.postMessage(outcome);
});

function matches(stored: string, password: string): boolean {
  try {
    return /^\$2/.test(stored) ? compareSync(password, stored) : shaCryptVerify(stored, Buffer.from(password));
  } catch {
    // What the library does not take for a hash matches nothing.
    return false;
  }
}
