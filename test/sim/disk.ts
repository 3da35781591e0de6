/**
 * The shared storage as each process reaches it: every operation takes a while to arrive, happens at one moment, and takes a while to be
 * answered. It may fail, land late, or happen with its answer lost; what a dead process had asked for may still happen. What lands in an
 * account's log is watched as it lands (I1, I2).
 */
import { decodeSlotHeader, slotHeaderBytes } from '#backend-cluster/storage/slot.ts';
import type { Files } from '#common/files/files.ts';
import { type MemoryClient, MemoryDisk } from '#test/fakes/memory-files.ts';
import type { SimProcess } from './machine.ts';
import type { Chance, World } from './world.ts';

const needsData: ReadonlySet<keyof Files> = new Set(['writeNew', 'replace', 'mkdir']);
const needsName: ReadonlySet<keyof Files> = new Set(['link', 'rename', 'mkdirAll']);
const reads: ReadonlySet<keyof Files> = new Set(['read', 'readRange', 'list', 'size']);
const changes = [...needsData, ...needsName, 'unlink', 'rmdir', 'removeTree', 'syncDirectory'] as const;
/** What answers are called in the trace. */
const answeredKinds = Object.fromEntries([...reads, ...changes].map((name) => [name, `${name} answered`])) as Record<keyof Files, string>;
const slotPath = /\/accounts\/..\/..\/([^/]+)\/log\/(\d+)$/;

/** Of all processes together; a fault mix sets them. */
export interface DiskFaults {
  lateShare: number;
  lateMsMax: number;
  failShare: number;
  lostReplyShare: number;
  /** Share of changes that happen twice, as when a request is sent again; the answer is the second one's. */
  twiceShare: number;
  /** No data can be written until it is over; with `everything` no name either, as on a disk without a free block. */
  isFull: 'no' | 'data' | 'everything';
  /** Every operation takes up to so much longer. */
  slowMs: number;
}

interface Landed {
  slot: number;
  epoch: number;
}

/** See the header of this file. */
export class SimDisk {
  readonly world: World;
  readonly chance: Chance;
  readonly disk = new MemoryDisk();
  readonly faults: DiskFaults = {
    lateShare: 0,
    lateMsMax: 0,
    failShare: 0,
    lostReplyShare: 0,
    twiceShare: 0,
    isFull: 'no',
    slowMs: 0,
  };
  /** Machines that cannot reach it: what they ask for waits, as on a hard NFS mount. */
  readonly cut = new Set<string>();
  readonly violations: string[] = [];
  commits = 0;
  readonly #direct: MemoryClient;
  readonly #last = new Map<string, Landed>();
  #generation = 0;

  constructor(world: World) {
    this.world = world;
    this.chance = world.chance.fork();
    this.#direct = this.disk.client();
  }

  /** What lies there, without time passing; for the checks at the end. */
  get files(): Files {
    return this.#direct;
  }

  /** The files port of a process. `through` is what stands at the disk, where things happen: a broken variant of the store is made with it. */
  portOf(process: SimProcess, through: (files: Files) => Files): Files {
    const act = <T>(name: keyof Files, path: string, target: string | undefined, happen: () => Promise<T>, half?: () => Promise<void>) =>
      this.#do(process, name, path, target, happen, half);
    const real = through(this.#direct);
    return {
      read: (path) => act('read', path, undefined, () => real.read(path)),
      readRange: (path, offset, length) => act('readRange', path, undefined, () => real.readRange(path, offset, length)),
      writeNew: (path, parts) => {
        // Taken now: a process may reuse its buffers.
        const content = Buffer.concat(parts as Uint8Array[]);
        return act(
          'writeNew',
          path,
          undefined,
          () => real.writeNew(path, [content]),
          () => real.writeNew(path, [content.subarray(0, this.chance.below(content.length))]),
        );
      },
      link: (existing, name) => act('link', existing, name, () => real.link(existing, name)),
      rename: (from, to) => act('rename', from, to, () => real.rename(from, to)),
      unlink: (path) => act('unlink', path, undefined, () => real.unlink(path)),
      mkdir: (path) => act('mkdir', path, undefined, () => real.mkdir(path)),
      mkdirAll: (path) => act('mkdirAll', path, undefined, () => real.mkdirAll(path)),
      rmdir: (path) => act('rmdir', path, undefined, () => real.rmdir(path)),
      removeTree: (path) => act('removeTree', path, undefined, () => real.removeTree(path)),
      list: (path) => act('list', path, undefined, () => real.list(path)),
      size: (path) => act('size', path, undefined, () => real.size(path)),
      syncDirectory: (path) => act('syncDirectory', path, undefined, () => real.syncDirectory(path)),
      replace: (path, content) => act('replace', path, undefined, () => real.replace(path, content)),
    };
  }

  /** Everything that was not made durable is lost, or some of it; nothing that was on its way arrives. Processes must be dead. */
  powerCut(): void {
    this.#generation += 1;
    this.disk.powerCut(this.chance.is(0.5) ? this.chance.port() : undefined);
    // What was not acknowledged may be gone: its slots and epochs may be given again.
    this.#last.clear();
    for (const path of this.disk.paths()) {
      const found = slotPath.exec(path);
      if (found !== null) this.#remember(found[1] as string, this.#headerAt(path));
    }
  }

  #do<T>(
    process: SimProcess,
    name: keyof Files,
    path: string,
    target: string | undefined,
    happen: () => Promise<T>,
    half: (() => Promise<void>) | undefined,
  ): Promise<T> {
    const { world, chance, faults } = this;
    const isChange = !reads.has(name);
    const generation = this.#generation;
    return new Promise<T>((resolve, reject) => {
      const answered = answeredKinds[name];
      const answer = (happened: () => void): void => {
        world.after(chance.between(0.1, 2), answered, () => process.deliver(answered, happened));
      };
      const arrive = (): void => {
        if (generation !== this.#generation) return;
        if (this.cut.has(process.machine.name)) {
          world.after(chance.between(50, 500), 'disk waits', arrive, path);
          return;
        }
        if (!process.isAlive) {
          // On the wire when its process died: it arrives, half of it does, or nothing.
          const fate = chance.below(3);
          const last = fate === 0 ? undefined : fate === 1 && half !== undefined ? half : happen;
          void last?.().then(
            () => this.#watch(name, target),
            () => {},
          );
          return;
        }
        const fails = (code: string) => answer(() => reject(Object.assign(new Error(`${code}: ${path}`), { code, path })));
        // What fails may leave a torn file behind.
        const failsTorn = (code: string) => {
          const fail = (): void => fails(code);
          if (half === undefined || chance.is(0.5)) fail();
          else void half().then(fail, fail);
        };
        if ((faults.isFull !== 'no' && needsData.has(name)) || (faults.isFull === 'everything' && needsName.has(name))) {
          failsTorn('ENOSPC');
          return;
        }
        if (chance.is(faults.failShare)) {
          failsTorn('EIO');
          return;
        }
        const isLost = isChange && chance.is(faults.lostReplyShare);
        const happensTwice = isChange && chance.is(faults.twiceShare);
        const landed = happen();
        const last = happensTwice ? landed.then(() => this.#watch(name, target)).then(happen) : landed;
        void last.then(
          (value) => {
            if (!happensTwice) this.#watch(name, target);
            if (isLost) fails('EIO');
            else answer(() => resolve(value));
          },
          (error: unknown) => answer(() => reject(error)),
        );
      };
      const isLate = isChange && chance.is(faults.lateShare);
      const takesMs = isLate ? chance.between(100, faults.lateMsMax) : chance.between(0.1, 3 + faults.slowMs);
      world.after(takesMs, name, arrive, path);
    });
  }

  #watch(name: keyof Files, target: string | undefined): void {
    if ((name !== 'link' && name !== 'rename') || target === undefined) return;
    const found = slotPath.exec(target);
    if (found === null) return;
    this.commits += 1;
    const [, account, number] = found as unknown as [string, string, string];
    const landed = this.#headerAt(target);
    const last = this.#last.get(account) ?? { slot: 0, epoch: 0 };
    this.world.note(`slot ${account} ${number} epoch ${landed.epoch}`);
    if (landed.slot !== Number(number))
      this.violations.push(`I1: the record of slot ${landed.slot} of ${account} stands in slot ${number}`);
    if (landed.slot <= last.slot) this.violations.push(`I1: slot ${landed.slot} of ${account} was committed although ${last.slot} was`);
    if (landed.slot > last.slot + 1) this.violations.push(`I1: slot ${landed.slot} of ${account} followed slot ${last.slot}`);
    if (landed.epoch < last.epoch) {
      this.violations.push(`I2: a record of epoch ${landed.epoch} of ${account} was committed after epoch ${last.epoch} had opened it`);
    }
    this.#remember(account, landed);
  }

  #remember(account: string, landed: Landed): void {
    const last = this.#last.get(account);
    this.#last.set(account, { slot: Math.max(last?.slot ?? 0, landed.slot), epoch: Math.max(last?.epoch ?? 0, landed.epoch) });
  }

  #headerAt(path: string): Landed {
    const { slot, epoch } = decodeSlotHeader(this.disk.file(path).content.subarray(0, slotHeaderBytes));
    return { slot, epoch };
  }
}
