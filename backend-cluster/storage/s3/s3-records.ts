/**
 * Terms, intents and tombstones in a bucket, one object each:
 *
 *     nonce (32 hex digits) | newline | content
 *
 * Every write is conditional on what was there, so that a write which arrives late finds another version and comes to nothing. The nonce
 * tells whether it was this write when its answer was lost. A record whose creation had an uncertain try is not deleted but replaced by an
 * empty object, which counts as no record: a late "create if absent" must find something.
 */
import { corrupt } from '#backend-cluster/storage/binary.ts';
import { type SmallRecords, smallRecordBytes } from '#backend-cluster/storage/small-records.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';
import type { Bucket, PutOutcome, StoredObject } from './bucket.ts';

const triesMax = 8;
/** Names remembered for having had an uncertain try; beyond that the oldest is forgotten. */
const uncertainMax = 10_000;

/** The records below `directory`, which ends with `/`. */
export class S3Records implements SmallRecords {
  readonly #bucket: Bucket;
  readonly #random: Random;
  readonly #directory: string;
  readonly #uncertain = new Set<string>();

  constructor(bucket: Bucket, random: Random, directory: string) {
    this.#bucket = bucket;
    this.#random = random;
    this.#directory = directory;
  }

  async create(name: string, content: string): Promise<boolean> {
    return this.#write(name, content, false);
  }

  async replace(name: string, content: string): Promise<void> {
    await this.#write(name, content, true);
  }

  async read(name: string): Promise<string | undefined> {
    const stored = await this.#bucket.get(this.#key(name));
    return stored === undefined || isEmpty(stored) ? undefined : this.#parse(name, stored).content;
  }

  async has(name: string): Promise<boolean> {
    return ((await this.#bucket.head(this.#key(name)))?.bytes ?? 0) > 0;
  }

  async names(): Promise<string[]> {
    const names: string[] = [];
    for await (const { key, bytes } of this.#bucket.list(this.#directory)) if (bytes > 0) names.push(key.slice(this.#directory.length));
    return names.sort();
  }

  /** An object that is seen is durable. */
  async settle(): Promise<void> {}

  async remove(name: string): Promise<void> {
    const key = this.#key(name);
    if (!this.#uncertain.has(name)) return this.#bucket.remove(key);
    for (let attempt = 0; ; attempt += 1) {
      const stored = await this.#bucket.get(key);
      if (stored !== undefined && isEmpty(stored)) return;
      const outcome = stored === undefined ? await this.#bucket.putIfAbsent(key, []) : await this.#bucket.putIfMatch(key, stored.etag, []);
      if (outcome.kind === 'stored') return;
      if (outcome.kind === 'full' || attempt === triesMax - 1) throw this.#failure(name, outcome.cause);
      await this.#bucket.pause(attempt);
    }
  }

  /** False when there is one and it is not to be replaced. */
  async #write(name: string, content: string, mayReplace: boolean): Promise<boolean> {
    smallRecordBytes(content);
    const key = this.#key(name);
    const nonce = this.#random.bytes(16).toString('hex');
    const body = [Buffer.from(`${nonce}\n${content}`)];
    // Most often a name is free: that is tried before looking.
    let outcome: PutOutcome = await this.#bucket.putIfAbsent(key, body);
    for (let attempt = 0; ; attempt += 1) {
      if (outcome.kind === 'stored') return true;
      if (outcome.kind === 'unknown') this.#rememberUncertain(name);
      if (outcome.kind === 'full' && !this.#uncertain.has(name)) throw outcome.cause;
      const stored = await this.#bucket.get(key);
      if (stored !== undefined && !isEmpty(stored)) {
        if (this.#parse(name, stored).nonce === nonce) return true;
        if (!mayReplace) return false;
      }
      if (attempt === triesMax - 1) throw this.#failure(name, outcome.cause);
      if (attempt > 0) await this.#bucket.pause(attempt - 1);
      outcome = stored === undefined ? await this.#bucket.putIfAbsent(key, body) : await this.#bucket.putIfMatch(key, stored.etag, body);
    }
  }

  #rememberUncertain(name: string): void {
    this.#uncertain.add(name);
    if (this.#uncertain.size > uncertainMax) this.#uncertain.delete(this.#uncertain.values().next().value as string);
  }

  #key(name: string): string {
    return `${this.#directory}${name}`;
  }

  #parse(name: string, stored: StoredObject): { readonly nonce: string; readonly content: string } {
    const text = stored.body.toString('utf8');
    if (!/^[0-9a-f]{32}\n/.test(text)) throw corrupt(`${this.#key(name)} is not a record: it does not begin with a nonce`);
    return { nonce: text.slice(0, 32), content: text.slice(33) };
  }

  #failure(name: string, cause: unknown): PlatformError {
    const message = `${this.#bucket.at(this.#key(name))} could not be written, or it is not known whether it was`;
    return new PlatformError('STORE_UNAVAILABLE', message, { cause });
  }
}

function isEmpty(stored: StoredObject): boolean {
  return stored.body.length === 0;
}
