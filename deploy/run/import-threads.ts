/**
 * The threads of an import: each reads and checks blocks of LDIF (directory/tools/prepare-block.ts) while the main one writes. Blocks go
 * round, and each thread answers in the order that it was asked.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SchemaFile } from '#directory/schema/schema-file.ts';
import type { PrepareBlock } from '#directory/tools/prepare-block.ts';
import type { PreparedBatch } from '#directory/tools/prepared-batch.ts';

const threadsMax = 4;
/** Blocks that each thread has to do at a time. */
const blocksPerThread = 2;

/** Part of a thread's heap for new objects: with the default, which grows with the machine, an import takes some 150 MB more. */
const youngMb = 24;

/** What a thread answers. */
export type ThreadAnswer = { readonly batch: PreparedBatch } | { readonly failed: string };

interface Waiting {
  resolve(batch: PreparedBatch): void;
  reject(error: Error): void;
}

/** Threads that run; ended by disposing them. */
export interface ImportThreads extends AsyncDisposable {
  readonly prepare: PrepareBlock;
  readonly blocksAtOnce: number;
}

/** Starts as many as there are processors, up to four. */
export function startImportThreads(schemaFiles: readonly SchemaFile[]): ImportThreads {
  const threads = Array.from({ length: Math.min(threadsMax, availableParallelism()) }, () => new ImportThread(schemaFiles));
  let next = 0;
  return {
    blocksAtOnce: threads.length * blocksPerThread,
    prepare(block) {
      const thread = threads[next % threads.length] as ImportThread;
      next += 1;
      return thread.prepare(block);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(threads.map((thread) => thread.stop()));
    },
  };
}

class ImportThread {
  readonly #worker: Worker;
  #waiting: Waiting[] = [];
  #failure: Error | undefined;

  constructor(schemaFiles: readonly SchemaFile[]) {
    this.#worker = new Worker(new URL('./import-thread.ts', import.meta.url), {
      workerData: schemaFiles,
      resourceLimits: { maxYoungGenerationSizeMb: youngMb },
    });
    this.#worker.on('message', (answer: ThreadAnswer) => {
      const waiting = this.#waiting.shift();
      if ('batch' in answer) waiting?.resolve(answer.batch);
      else waiting?.reject(new Error(answer.failed));
    });
    const end = (error: Error): void => {
      this.#failure ??= error;
      for (const waiting of this.#waiting) waiting.reject(this.#failure);
      this.#waiting = [];
    };
    this.#worker.on('error', (error: Error) => end(error));
    this.#worker.on('exit', (code) => end(new Error(`a thread of the import ended with ${code}`)));
  }

  prepare(block: Buffer): Promise<PreparedBatch> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    // Moved to the thread; a copy is moved of what lies in a buffer together with something else.
    const isAlone = block.buffer instanceof ArrayBuffer && block.byteLength === block.buffer.byteLength;
    const octets = isAlone ? block.buffer : new Uint8Array(block).buffer;
    this.#worker.postMessage(octets, [octets]);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}
