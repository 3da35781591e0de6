/**
 * Changes on their way to a replica of our own: many in one message, as they are at the master (protocol/ldap/image-batch.ts).
 *
 * During a catch-up names change hands: who has a name that another entry shall have is displaced, and has its own name later in the same
 * catch-up. Who is still displaced at its end has none at the master (`takeDisplaced`).
 */
import { decodeImages, type EncodedImages, type Image, type ImageResult } from '#protocol/ldap/image-batch.ts';
import { csnOfCookie } from '#replication/checkpoint.ts';
import type { LagMeter } from '#replication/lag.ts';
import type { Queued } from '#replication/pipeline.ts';
import type { Quarantine } from '#replication/quarantine.ts';
import type { Replica } from '#replication/replica.ts';

/** Displaced entries that are kept in mind; beyond, names are made free one by one. */
const displacedMax = 100_000;

/** See the header of this file. */
export class ImageSender {
  readonly #lag: LagMeter;
  readonly #quarantine: Quarantine;
  readonly #onContainerMoved: () => void;
  readonly #displaced = new Set<string>();

  constructor(lag: LagMeter, quarantine: Quarantine, onContainerMoved: () => void) {
    this.#lag = lag;
    this.#quarantine = quarantine;
    this.#onContainerMoved = onContainerMoved;
  }

  /** Entries that gave way since last asked, and have no name of their own yet. */
  takeDisplaced(): readonly string[] {
    const displaced = [...this.#displaced];
    this.#displaced.clear();
    return displaced;
  }

  /** Writes changes, or one block of them; gives the places of those that the replica refused. */
  async send(replica: Replica, changes: readonly Queued[], phase: 'catch-up' | 'comparison' | 'following'): Promise<readonly number[]> {
    const block = changes[0]?.block;
    if (block !== undefined) return this.#sendBlock(replica, block);
    const mayDisplace = phase === 'catch-up' && this.#displaced.size < displacedMax;
    const result = await replica.writeImages(changes.map(imageOf), mayDisplace);
    this.#count(result);
    const refused = new Set<number>();
    let at = 0;
    for (const { index, kind, text } of result.remarks) {
      // Those that gave way before and got their names since are in order again.
      for (; at <= index; at += 1) this.#displaced.delete(changes[at]?.uuid ?? '');
      if (kind === 'refused') refused.add(index);
      else if (kind === 'displaced') this.#displaced.add(text);
      else this.#onContainerMoved();
    }
    for (; at < changes.length; at += 1) this.#displaced.delete(changes[at]?.uuid ?? '');
    for (const [index, { uuid, receivedMs }] of changes.entries()) {
      if (refused.has(index)) continue;
      // A refresh measures the master's size, not how far behind we are.
      if (phase === 'following') this.#lag.acknowledged(receivedMs);
      if (this.#quarantine.has(uuid)) await this.#quarantine.release(uuid);
    }
    return [...refused];
  }

  // Only a replica that was empty gets blocks: nobody has to give way.
  async #sendBlock(replica: Replica, block: EncodedImages): Promise<readonly number[]> {
    const result = await replica.writeImages([], false, block);
    this.#count(result);
    const refused = new Set(result.remarks.flatMap(({ index, kind }) => (kind === 'refused' ? [index] : [])));
    if (this.#quarantine.size > 0) {
      for (const [index, { uuid }] of decodeImages(block).entries()) {
        if (!refused.has(index) && this.#quarantine.has(uuid)) await this.#quarantine.release(uuid);
      }
    }
    return [...refused];
  }

  #count(result: ImageResult): void {
    this.#lag.wroteMany('add', result.added);
    this.#lag.wroteMany('modify', result.modified);
    this.#lag.wroteMany('rename', result.renamed);
    this.#lag.wroteMany('delete', result.deleted);
  }
}

function imageOf({ uuid, entry, cookie }: Queued): Image {
  if (entry === undefined) return { uuid, dn: undefined, csn: csnOfCookie(cookie) };
  const { dn, attributesBer } = entry;
  return attributesBer === undefined ? { uuid, dn, attributes: entry.attributes } : { uuid, dn, attributes: [], attributesBer };
}
