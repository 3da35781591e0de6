/**
 * A disk in memory that several machines share, with the faults that real ones have.
 *
 * `disk.client()` is one machine's view of it (`Files`). A test decides per operation what becomes of it: it fails, it happens and the
 * answer is lost, the machine dies before or after it, half of a file is written, or it is held back and happens later (a machine that
 * was paused, a write that the network delayed). `powerCut` forgets every name that no `syncDirectory` made durable, or, with a `Random`,
 * an arbitrary part of them.
 */
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';

/** What becomes of an operation. `held` ones wait for `release`. */
export type Fault =
  | { readonly kind: 'fails'; readonly code: string }
  | { readonly kind: 'happens-but-fails'; readonly code: string }
  | { readonly kind: 'dies-before' }
  | { readonly kind: 'dies-after' }
  /** The machine is dead; what it had asked for happens at `release`. */
  | { readonly kind: 'dies-and-happens-later' }
  /** Only `writeNew`; other operations do not happen. */
  | { readonly kind: 'dies-half-way' }
  /** With a code, its answer is lost at `release`. */
  | { readonly kind: 'held'; readonly code?: string };

/** An operation about to happen. */
export interface Operation {
  /** Counted per machine, from 0. */
  readonly index: number;
  readonly name: keyof Files;
  readonly path: string;
  /** Second path of `link` and `rename`. */
  readonly target: string | undefined;
}

interface FileNode {
  kind: 'file';
  content: Buffer;
}

interface DirectoryNode {
  kind: 'directory';
  entries: Map<string, Node>;
  durable: Map<string, Node>;
}

type Node = FileNode | DirectoryNode;

/** See the header of this file. */
export class MemoryDisk {
  root = newDirectory();
  /** Directories by path, as they were found: nearly every operation is about a name in one of a few. Emptied when one may be gone. */
  readonly #known = new Map<string, DirectoryNode>();

  /** A machine on this disk. */
  client(decide?: (operation: Operation) => Fault | undefined): MemoryClient {
    return new MemoryClient(this, decide);
  }

  /** Loses every name, and every removal of one, that was not made durable; with `random`, each of them by chance. */
  powerCut(random?: Random): void {
    const revert = (directory: DirectoryNode): void => {
      if (random === undefined) directory.entries = new Map(directory.durable);
      else {
        for (const name of new Set([...directory.entries.keys(), ...directory.durable.keys()])) {
          if (directory.entries.get(name) === directory.durable.get(name) || random.integer(2) === 0) continue;
          const durable = directory.durable.get(name);
          if (durable === undefined) directory.entries.delete(name);
          else directory.entries.set(name, durable);
        }
        directory.durable = new Map(directory.entries);
      }
      for (const entry of directory.entries.values()) if (entry.kind === 'directory') revert(entry);
    };
    revert(this.root);
    this.#known.clear();
  }

  /** A directory is not where it was. */
  forgetDirectories(): void {
    this.#known.clear();
  }

  /** Changes bytes of a file where it lies: bit rot. */
  damage(path: string, change: (content: Buffer) => Buffer): void {
    const node = this.find(path);
    if (node.kind !== 'file') throw new Error(`${path} is no file`);
    node.content = change(Buffer.from(node.content));
  }

  find(path: string): Node {
    let node: Node = this.root;
    for (const name of partsOf(path)) {
      if (node.kind !== 'directory') throw systemError('ENOTDIR', path);
      const next: Node | undefined = node.entries.get(name);
      if (next === undefined) throw systemError('ENOENT', path);
      node = next;
    }
    return node;
  }

  has(path: string): boolean {
    try {
      this.find(path);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  directory(path: string): DirectoryNode {
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const node = this.find(path);
    if (node.kind !== 'directory') throw systemError('ENOTDIR', path);
    this.#known.set(path, node);
    return node;
  }

  file(path: string): FileNode {
    const cut = path.lastIndexOf('/');
    // The long way says what is amiss.
    const node = this.#known.get(path.slice(0, cut))?.entries.get(path.slice(cut + 1)) ?? this.find(path);
    if (node.kind !== 'file') throw systemError('EISDIR', path);
    return node;
  }

  /** Paths of all files, for a test's eyes. */
  paths(): string[] {
    const walk = (directory: DirectoryNode, above: string): string[] =>
      [...directory.entries].flatMap(([name, node]) => (node.kind === 'file' ? [`${above}/${name}`] : walk(node, `${above}/${name}`)));
    return walk(this.root, '').sort();
  }
}

/** One machine's view of the disk. */
export class MemoryClient implements Files {
  readonly #disk: MemoryDisk;
  readonly #held: (() => void)[] = [];
  /** Missing: all goes well. */
  #decide: ((operation: Operation) => Fault | undefined) | undefined;
  operations = 0;
  isDead = false;

  constructor(disk: MemoryDisk, decide: ((operation: Operation) => Fault | undefined) | undefined) {
    this.#disk = disk;
    this.#decide = decide;
  }

  /** Nothing more will happen by itself: dead, or held. */
  get isStuck(): boolean {
    return this.isDead || this.#held.length > 0;
  }

  /** From now on. */
  decideBy(decide: (operation: Operation) => Fault | undefined): void {
    this.#decide = decide;
  }

  /** Lets what was held back happen, in order. */
  release(): void {
    for (const happen of this.#held.splice(0)) happen();
  }

  /** Not copied: content is replaced, never changed, so what was read stays what it was. */
  read(path: string): Promise<Buffer> {
    return this.#do('read', path, undefined, () => this.#disk.file(path).content.subarray());
  }

  readRange(path: string, offset: number, length: number): Promise<Buffer> {
    return this.#do('readRange', path, undefined, () => this.#disk.file(path).content.subarray(offset, offset + length));
  }

  writeNew(path: string, parts: readonly Uint8Array[]): Promise<void> {
    const content = Buffer.concat(parts as Uint8Array[]);
    const write = (bytes: Buffer): void => {
      const [directory, name] = this.#parent(path);
      if (directory.entries.has(name)) throw systemError('EEXIST', path);
      directory.entries.set(name, { kind: 'file', content: bytes });
    };
    return this.#do(
      'writeNew',
      path,
      undefined,
      () => write(content),
      () => write(content.subarray(0, content.length >> 1)),
    );
  }

  link(existing: string, name: string): Promise<void> {
    return this.#do('link', existing, name, () => {
      const node = this.#disk.file(existing);
      const [directory, last] = this.#parent(name);
      if (directory.entries.has(last)) throw systemError('EEXIST', name);
      directory.entries.set(last, node);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#do('rename', from, to, () => {
      const node = this.#disk.find(from);
      const [oldDirectory, oldName] = this.#parent(from);
      const [newDirectory, newName] = this.#parent(to);
      const isOfFiles = node.kind === 'file' && newDirectory.entries.get(newName)?.kind !== 'directory';
      oldDirectory.entries.delete(oldName);
      newDirectory.entries.set(newName, node);
      if (!isOfFiles) this.#disk.forgetDirectories();
    });
  }

  unlink(path: string): Promise<void> {
    return this.#do('unlink', path, undefined, () => {
      this.#disk.file(path);
      const [directory, name] = this.#parent(path);
      directory.entries.delete(name);
    });
  }

  mkdir(path: string): Promise<void> {
    return this.#do('mkdir', path, undefined, () => {
      const [directory, name] = this.#parent(path);
      if (directory.entries.has(name)) throw systemError('EEXIST', path);
      directory.entries.set(name, newDirectory());
    });
  }

  mkdirAll(path: string): Promise<void> {
    return this.#do('mkdirAll', path, undefined, () => {
      let node: DirectoryNode = this.#disk.root;
      for (const name of partsOf(path)) {
        let next = node.entries.get(name);
        if (next === undefined) {
          next = newDirectory();
          node.entries.set(name, next);
          node.durable.set(name, next);
        }
        if (next.kind !== 'directory') throw systemError('ENOTDIR', path);
        node = next;
      }
    });
  }

  rmdir(path: string): Promise<void> {
    return this.#do('rmdir', path, undefined, () => {
      if (this.#disk.directory(path).entries.size > 0) throw systemError('ENOTEMPTY', path);
      const [directory, name] = this.#parent(path);
      directory.entries.delete(name);
      this.#disk.forgetDirectories();
    });
  }

  removeTree(path: string): Promise<void> {
    return this.#do('removeTree', path, undefined, () => {
      const cut = path.lastIndexOf('/');
      if (!this.#disk.has(path)) return;
      this.#disk.directory(path.slice(0, cut)).entries.delete(path.slice(cut + 1));
      this.#disk.forgetDirectories();
    });
  }

  list(path: string): Promise<string[]> {
    return this.#do('list', path, undefined, () => [...this.#disk.directory(path).entries.keys()]);
  }

  size(path: string): Promise<number | undefined> {
    return this.#do('size', path, undefined, () => {
      if (!this.#disk.has(path)) return undefined;
      const node = this.#disk.find(path);
      return node.kind === 'file' ? node.content.length : 0;
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.#do('syncDirectory', path, undefined, () => {
      const directory = this.#disk.directory(path);
      directory.durable = new Map(directory.entries);
    });
  }

  replace(path: string, content: Uint8Array | string): Promise<void> {
    return this.#do('replace', path, undefined, () => {
      const [directory, name] = this.#parent(path);
      const node: FileNode = { kind: 'file', content: Buffer.from(content as string) };
      directory.entries.set(name, node);
      directory.durable.set(name, node);
    });
  }

  #parent(path: string): [DirectoryNode, string] {
    const cut = path.lastIndexOf('/');
    return [this.#disk.directory(path.slice(0, cut)), path.slice(cut + 1)];
  }

  /** `half` is what `dies-half-way` leaves behind. */
  async #do<T>(name: keyof Files, path: string, target: string | undefined, happen: () => T, half?: () => void): Promise<T> {
    await Promise.resolve();
    if (this.isDead) return new Promise<T>(() => {});
    const fault = this.#decide?.({ index: this.operations, name, path, target });
    this.operations += 1;
    switch (fault?.kind) {
      case undefined:
        return happen();
      case 'fails':
        throw systemError(fault.code, path);
      case 'happens-but-fails':
        happen();
        throw systemError(fault.code, path);
      case 'held':
        return new Promise<T>((resolve, reject) => {
          this.#held.push(() => {
            try {
              const value = happen();
              if (fault.code === undefined) resolve(value);
              else reject(systemError(fault.code, path));
            } catch (error) {
              reject(error);
            }
          });
        });
      case 'dies-before':
        break;
      case 'dies-after':
        quietly(happen);
        break;
      case 'dies-half-way':
        quietly(half ?? (() => {}));
        break;
      case 'dies-and-happens-later':
        this.#held.push(() => quietly(happen));
        break;
    }
    this.isDead = true;
    return new Promise<T>(() => {});
  }
}

/** A dead machine does not see what its last operation came to. */
function quietly(happen: () => unknown): void {
  try {
    happen();
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

function newDirectory(): DirectoryNode {
  return { kind: 'directory', entries: new Map(), durable: new Map() };
}

function partsOf(path: string): string[] {
  return path.split('/').filter((part) => part !== '');
}

function systemError(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code, path });
}
