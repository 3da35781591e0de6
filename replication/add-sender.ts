/**
 * The new entries of a first load on their way to a replica that is not ours: ordinary Adds, many of them under way on two connections, each
 * written straight from the master's octets.
 *
 *                               ┌──► connection ─┐
 *   blocks ──► [ . . . . . ] ───┤                ├──► answered: the places of what was refused
 *                               └──► connection ─┘
 *   as many unanswered as it answers in half a second, sent by the half; answers are read some at a time
 *
 * A server works on the requests of one connection side by side. So an entry is not sent while the one that it lies below is unanswered;
 * whatever else the replica refuses is done by itself afterwards (pipeline.ts), by the master's state of then.
 *
 * Why two: slapd gives half of its threads to one connection. The others sleep, and are woken for each request to find it taken; with two
 * connections nobody sleeps, and an Add takes it a third less. The second one is opened once there is much to send, and closed after the load.
 * Without it everything goes on the first.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { PlatformError } from '#common/errors/platform-error.ts';
import type { AnswerTaker, LdapAnswer, LdapConnection } from '#directory/client/ldap-connection.ts';
import { errorFromResult, isServerFailure } from '#directory/client/ldap-errors.ts';
import { nameOctets, writeAttributesWithout } from '#protocol/ldap/attribute-list.ts';
import { BerWriter } from '#protocol/ldap/ber.ts';
import { relax, uuidFromBytes } from '#protocol/ldap/controls.ts';
import { splitDn } from '#protocol/ldap/dn.ts';
import { writeAttributes } from '#protocol/ldap/encode.ts';
import { decodeImages, type EncodedImages, type Image, ImageWalker } from '#protocol/ldap/image-batch.ts';
import { attribute } from '#protocol/ldap/messages.ts';
import { resultCodes } from '#protocol/ldap/result-codes.ts';
import { notReplicated, replicatedAttributes } from '#replication/decide.ts';
import type { LagMeter } from '#replication/lag.ts';
import { knownAs } from '#replication/master-entry.ts';
import type { Batches, Queued } from '#replication/pipeline.ts';
import type { Quarantine } from '#replication/quarantine.ts';
import type { Replica } from '#replication/replica.ts';
import type { Shadow } from '#replication/store/shadow.ts';

/**
 * Adds without an answer, on all connections: as many as the replica answers in `windowMs`, each having 5 seconds. The more there are, the less
 * often the threads of slapd wait for each other and are woken; it ends a connection that has more than 1000 (`conn_max_pending_auth`).
 */
export const underWayMax = 512;
export const underWayMin = 64;
const windowMs = 500;
/**
 * Answers are small, and who waits for them is woken by each. While so many are still to come nothing is read until about the time that more
 * can be sent.
 */
const restFrom = 128;
const restMinMs = 2;
const restMaxMs = 10;
/** The further connection is closed after so long without blocks. */
const furtherIdleMs = 10_000;

/** A block of which not all has been answered. */
interface Sending {
  readonly block: EncodedImages;
  readonly walker: ImageWalker;
  /** Entries that were sent. */
  sent: number;
  unanswered: number;
  readonly refused: number[];
  readonly over: PromiseWithResolvers<void>;
}

/** What it needs of a connection. */
export type AddConnection = Pick<LdapConnection, 'exchangeFor' | 'rest' | 'isOpen' | 'destroy'>;

/** What it needs of a replica. */
export interface AddTarget extends Pick<Replica, 'keepsCsn' | 'write'> {
  readonly connection: AddConnection & Pick<LdapConnection, 'url'>;
}

/** A connection and what waits for its answer there. */
interface Lane {
  readonly connection: AddConnection;
  underWay: number;
}

const controls = [relax];
/** The attribute by which the replica knows an entry again: it ends in the UUID, and is good until the next. */
const uuidAttribute = encodedUuidAttribute();
const uuidTextAt = uuidAttribute.length - 36;

/** See the header of this file. One is for one session with the replica. */
export class AddSender implements Batches, Disposable {
  readonly of = 'blocks';
  readonly #clock: Pick<Clock, 'monotonicMs' | 'after'>;
  readonly #replica: AddTarget;
  readonly #lag: Pick<LagMeter, 'wroteMany'>;
  readonly #quarantine: Pick<Quarantine, 'size' | 'has' | 'release'>;
  readonly #shadow: Pick<Shadow, 'putAll'> | undefined;
  /** The UUID is the one by which the stream names the entry, whatever the entry shows. */
  readonly #notSent = {
    withCsn: nameOctets([...notReplicated(true), 'entryUUID']),
    withoutCsn: nameOctets([...notReplicated(false), 'entryUUID']),
  };
  /** In their order; those of which everything was sent are only in `#unanswered`. */
  readonly #unsent: Sending[] = [];
  readonly #unanswered = new Set<Sending>();
  /** Names of the entries that are under way. */
  readonly #names = new Set<string>();
  readonly #lane: Lane;
  readonly #openFurther: () => Promise<AddConnection | undefined>;
  #further: Lane | undefined;
  #opening: Promise<void> | undefined;
  /** Runs while there is nothing to send. */
  #idle: Timer | undefined;
  #isOver = false;
  #underWay = 0;
  /** How many may be, and what it is reckoned from: answers since that time. */
  #underWayMax = underWayMin;
  #answers = 0;
  #sinceMs: number;
  #perSecond = Number.POSITIVE_INFINITY;
  /** Name of the next entry, which was not sent yet, and of the one whose answer it waits for. */
  #waiting: { readonly dn: string; readonly parent: string } | undefined;
  #isTurnPlanned = false;
  #failure: PlatformError | undefined;
  /** The request that is being sent: it is written before the next, straight from the octets that its walker is at. */
  readonly #entry = {
    type: 'addRequest' as const,
    dn: '',
    attributes: [],
    walker: undefined as ImageWalker | undefined,
    writeEntry: (writer: BerWriter): void => {
      const { octets, places } = this.#entry.walker as ImageWalker;
      const without = this.#replica.keepsCsn ? this.#notSent.withCsn : this.#notSent.withoutCsn;
      writer.rawOf(octets, places.dnStart, places.attributesStart);
      uuidAttribute.write(uuidFromBytes(octets.subarray(places.uuidStart, places.dnStart)), uuidTextAt, 'latin1');
      writeAttributesWithout(writer, octets, places.attributesStart, places.end, without, uuidAttribute);
    },
  };
  /** The connection's first entry, which shows whether the replica takes `entryCSN`. */
  #first: Promise<void> | undefined;

  /** `openFurther` opens another connection to the replica, whose writes are guarded like those on the first; `undefined` when it gets none. */
  constructor(
    clock: Pick<Clock, 'monotonicMs' | 'after'>,
    replica: AddTarget,
    openFurther: () => Promise<AddConnection | undefined>,
    lag: Pick<LagMeter, 'wroteMany'>,
    quarantine: Pick<Quarantine, 'size' | 'has' | 'release'>,
    shadow: Pick<Shadow, 'putAll'> | undefined,
  ) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
    this.#replica = replica;
    this.#lane = { connection: replica.connection, underWay: 0 };
    this.#openFurther = openFurther;
    this.#lag = lag;
    this.#quarantine = quarantine;
    this.#shadow = shadow;
  }

  /** Adds the entries of a block; gives the places of those that the replica refused. */
  async send([{ block } = {}]: readonly Pick<Queued, 'block'>[]): Promise<readonly number[]> {
    if (block === undefined) return [];
    if (this.#failure !== undefined) throw this.#failure;
    const sending: Sending = {
      ...{ block, walker: new ImageWalker(block), sent: 0, unanswered: block.count },
      ...{ refused: [], over: Promise.withResolvers<void>() },
    };
    this.#idle?.cancel();
    this.#unsent.push(sending);
    this.#unanswered.add(sending);
    this.#first ??= this.#addFirst(sending);
    await this.#first;
    this.#fill();
    await sending.over.promise;
    await this.#note(block, new Set(sending.refused));
    return sending.refused.sort((a, b) => a - b);
  }

  async #addFirst(sending: Sending): Promise<void> {
    const [image] = decodeImages(sending.block);
    sending.walker.next();
    sending.sent = 1;
    try {
      const { uuid, dn = '', attributes = [] } = image as Extract<Image, { attributes: unknown }>;
      await this.#replica.write(
        { kind: 'add', dn, attributes: replicatedAttributes(knownAs({ dn, attributes }, uuid).attributes, true) },
        uuid,
      );
    } catch (error) {
      if (isServerFailure(error)) throw error;
      sending.refused.push(0);
    }
    this.#count(sending);
  }

  #count(sending: Sending): void {
    sending.unanswered -= 1;
    if (sending.unanswered > 0) return;
    this.#unanswered.delete(sending);
    sending.over.resolve();
    if (this.#unanswered.size > 0) return;
    this.#idle?.cancel();
    this.#idle = this.#clock.after(furtherIdleMs, () => this.#closeFurther());
  }

  /** An answer has come to the Add of an entry that was sent by `#fill`. */
  answered(sending: Sending, lane: Lane, dn: string): void {
    this.#count(sending);
    lane.underWay -= 1;
    this.#underWay -= 1;
    this.#answers += 1;
    this.#names.delete(dn);
    if (this.#waiting?.parent === dn) this.#waiting = { dn: this.#waiting.dn, parent: '' };
    if (this.#isTurnPlanned) return;
    // What came in the same read is answered first.
    this.#isTurnPlanned = true;
    queueMicrotask(() => this.#turn());
  }

  /** The session is given up: all of it is done again in the next. */
  failed(error: PlatformError): void {
    this.#failure ??= error;
    for (const sending of this.#unanswered) sending.over.reject(error);
    this.#unanswered.clear();
  }

  /** Gives the further connection up; the first is its owner's. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#idle?.cancel();
    this.#closeFurther();
  }

  /** How messages name the replica. */
  get url(): string {
    return this.#replica.connection.url;
  }

  #turn(): void {
    this.#isTurnPlanned = false;
    if (this.#waiting === undefined ? this.#underWay <= this.#underWayMax / 2 : this.#waiting.parent === '') this.#fill();
    if (this.#underWay < restFrom || this.#waiting !== undefined) return;
    const untilHalfMs = ((this.#underWay - this.#underWayMax / 2) / this.#perSecond) * 1000;
    const restMs = Math.max(restMinMs, Math.min(restMaxMs, untilHalfMs));
    this.#lane.connection.rest(restMs);
    this.#further?.connection.rest(restMs);
  }

  #reckon(): void {
    if (this.#answers < underWayMin / 2) return;
    const nowMs = this.#clock.monotonicMs();
    this.#perSecond = (this.#answers / Math.max(1, nowMs - this.#sinceMs)) * 1000;
    this.#underWayMax = Math.max(underWayMin, Math.min(underWayMax, Math.floor((this.#perSecond * windowMs) / 1000)));
    this.#answers = 0;
    this.#sinceMs = nowMs;
  }

  #fill(): void {
    this.#reckon();
    for (let head = this.#unsent[0]; head !== undefined; head = this.#unsent[0]) {
      const { walker } = head;
      for (;;) {
        if (this.#failure !== undefined) return;
        if (this.#underWay >= this.#underWayMax) {
          this.#opening ??= this.#open();
          return;
        }
        if (this.#waiting === undefined) {
          if (!walker.next()) break;
          this.#waiting = { dn: walker.dn, parent: '' };
        }
        const { dn } = this.#waiting;
        const parent = parentOf(dn);
        if (this.#names.has(parent)) {
          this.#waiting = { dn, parent };
          return;
        }
        this.#waiting = undefined;
        this.#add(head, dn);
      }
      this.#unsent.shift();
    }
  }

  #add(sending: Sending, dn: string): void {
    const lane = this.#emptier();
    lane.underWay += 1;
    this.#underWay += 1;
    this.#names.add(dn);
    this.#entry.dn = dn;
    this.#entry.walker = sending.walker;
    lane.connection.exchangeFor(new AddUnderWay(this, sending, lane, sending.sent, dn), this.#entry, controls);
    sending.sent += 1;
  }

  #emptier(): Lane {
    // A server may end a connection that was idle; what was under way there would have failed.
    if (this.#further?.connection.isOpen === false) this.#closeFurther();
    return this.#further !== undefined && this.#further.underWay < this.#lane.underWay ? this.#further : this.#lane;
  }

  // Tried once in a load: where the replica allows no second connection the first must do.
  async #open(): Promise<void> {
    const connection = await this.#openFurther();
    if (connection === undefined) return;
    if (this.#isOver || this.#further !== undefined) connection.destroy();
    else this.#further = { connection, underWay: 0 };
  }

  #closeFurther(): void {
    this.#further?.connection.destroy('the load is over');
    this.#further = undefined;
    this.#opening = undefined;
  }

  // What the replica holds now.
  async #note(block: EncodedImages, refused: ReadonlySet<number>): Promise<void> {
    this.#lag.wroteMany('add', block.count - refused.size);
    this.#shadow?.putAll(block, refused);
    if (this.#quarantine.size === 0) return;
    for (const [index, { uuid }] of decodeImages(block).entries()) {
      if (!refused.has(index) && this.#quarantine.has(uuid)) await this.#quarantine.release(uuid);
    }
  }
}

/** One entry that waits for its answer. */
class AddUnderWay implements AnswerTaker {
  readonly #sender: AddSender;
  readonly #sending: Sending;
  readonly #lane: Lane;
  readonly #index: number;
  readonly #dn: string;

  constructor(sender: AddSender, sending: Sending, lane: Lane, index: number, dn: string) {
    this.#sender = sender;
    this.#sending = sending;
    this.#lane = lane;
    this.#index = index;
    this.#dn = dn;
  }

  get what(): string {
    return `add of "${this.#dn}"`;
  }

  settle({ result }: LdapAnswer): void {
    if (result.resultCode !== resultCodes.success) {
      const error = errorFromResult(result, this.what, this.#sender.url);
      if (isServerFailure(error)) {
        this.#sender.failed(error);
        return;
      }
      this.#sending.refused.push(this.#index);
    }
    this.#sender.answered(this.#sending, this.#lane, this.#dn);
  }

  fail(error: PlatformError): void {
    this.#sender.failed(error);
  }
}

function parentOf(dn: string): string {
  const comma = dn.indexOf(',');
  return comma > 0 && dn[comma - 1] !== '\\' ? dn.slice(comma + 1) : (splitDn(dn)?.parent ?? '');
}

function encodedUuidAttribute(): Buffer {
  const writer = new BerWriter();
  writeAttributes(writer, [attribute('entryUUID', '0'.repeat(36))]);
  // Without the tag and the length of the list.
  return Buffer.from(writer.take().subarray(2));
}
