/**
 * crypt(3) hashes, `$2a$` `$2b$` `$2y$` (bcrypt), `$5$` and `$6$` (SHA-crypt), verified on a thread of their own, because node:crypto has neither and
 * either keeps a processor busy for tens of milliseconds. The thread is started when the first such hash is met; the hasher's queue bounds its jobs.
 */
import { Worker } from 'node:worker_threads';
import { PlatformError } from '#common/errors/platform-error.ts';
import { shaCryptPattern, shaCryptRoundsMax } from './sha-crypt.ts';

/** What the thread is asked. */
export interface CryptJob {
  readonly id: number;
  readonly stored: string;
  readonly password: string;
}

/** What it answers. */
export interface CryptOutcome {
  readonly id: number;
  readonly matches: boolean;
}

/** A higher cost of bcrypt matches nothing: a login would take seconds. */
const bcryptCostMax = 14;
const bcryptPattern = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/;

/** Whether `password` has this hash; a malformed string, or one that costs too much, matches nothing. */
export function cryptVerify(stored: string, password: Buffer): Promise<boolean> {
  const bcrypt = bcryptPattern.exec(stored);
  const sha = shaCryptPattern.exec(stored);
  const isAffordable = bcrypt === null ? Number(sha?.[2] ?? 0) <= shaCryptRoundsMax : Number(bcrypt[1]) <= bcryptCostMax;
  if ((bcrypt === null && sha === null) || !isAffordable) return Promise.resolve(false);
  return ask(stored, password.toString('utf8'));
}

const waiting = new Map<number, { resolve(matches: boolean): void; reject(error: unknown): void }>();
let thread: Worker | undefined;
let lastId = 0;

function ask(stored: string, password: string): Promise<boolean> {
  thread ??= start();
  lastId += 1;
  const job: CryptJob = { id: lastId, stored, password };
  return new Promise((resolve, reject) => {
    waiting.set(job.id, { resolve, reject });
    // Whoever waits for a hash keeps the process alive, an idle thread does not.
    thread?.ref();
    thread?.postMessage(job);
  });
}

function start(): Worker {
  const started = new Worker(new URL('./crypt-worker.ts', import.meta.url));
  started.on('message', ({ id, matches }: CryptOutcome) => {
    waiting.get(id)?.resolve(matches);
    waiting.delete(id);
    if (waiting.size === 0) started.unref();
  });
  const ended = (cause: unknown): void => {
    if (thread === started) thread = undefined;
    for (const { reject } of waiting.values()) reject(new PlatformError('AUTH_BUSY', 'the thread for password hashes ended', { cause }));
    waiting.clear();
  };
  started.on('error', ended);
  started.on('exit', ended);
  return started;
}
