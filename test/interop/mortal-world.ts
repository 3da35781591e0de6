/**
 * A world that ends at a chosen moment: network and files that count what the service does to a replica and to its own disk, and refuse
 * everything from the n-th deed on. What was sent before arrives; no answer comes back. To the service that is a crash, to the others it
 * is a peer that fell silent in mid-sentence.
 */
import type { Files } from '#common/files/files.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Connection, ConnectionHandlers, Network } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';

/** See the header of this file. */
export class MortalWorld {
  /** Deeds done since `arm`: LDAP messages to those servers and changes of files. */
  deeds = 0;
  hasEnded = false;
  readonly ended: Promise<void>;
  readonly #ports: ReadonlySet<number>;
  readonly #end = Promise.withResolvers<void>();
  readonly #open = new Set<Connection>();
  #last = Number.POSITIVE_INFINITY;

  constructor(...urls: readonly string[]) {
    this.#ports = new Set(urls.map((url) => Number(new URL(url).port)));
    this.ended = this.#end.promise;
  }

  /** From now on deeds are counted; after `deeds` of them the world ends instead of the next. */
  arm(deeds: number): void {
    this.deeds = 0;
    this.#last = deeds;
  }

  readonly network: Network = {
    connect: async (options) => {
      if (this.hasEnded) throw new Error('the world has ended');
      const connection = await systemNetwork.connect(options);
      this.#open.add(connection);
      return this.#ports.has(options.port ?? 0) ? this.#mortal(connection) : this.#silenced(connection);
    },
    listen: (options, accept) => systemNetwork.listen(options, accept),
  };

  readonly files: Files = {
    ...nodeFiles,
    replace: async (path, content) => {
      this.#deed();
      await nodeFiles.replace(path, content);
    },
    writeNew: async (path, parts) => {
      this.#deed();
      await nodeFiles.writeNew(path, parts);
    },
    link: async (existing, name) => {
      this.#deed();
      await nodeFiles.link(existing, name);
    },
    unlink: async (path) => {
      this.#deed();
      await nodeFiles.unlink(path);
    },
  };

  #deed(): void {
    if (!this.hasEnded && this.deeds < this.#last) {
      this.deeds += 1;
      return;
    }
    this.#finish();
    throw new Error('the world has ended');
  }

  #finish(): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    for (const connection of this.#open) connection.end();
    this.#end.resolve();
  }

  #mortal(connection: Connection): Connection {
    const write = (bytes: Uint8Array): boolean => {
      let isRoomy = true;
      for (const message of messagesIn(Buffer.from(bytes))) {
        try {
          this.#deed();
        } catch {
          return false;
        }
        isRoomy = connection.write(message);
      }
      return isRoomy;
    };
    return overlay(this.#silenced(connection), {
      write: (bytes) => write(typeof bytes === 'string' ? Buffer.from(bytes) : bytes),
      writeAll: (parts) => write(Buffer.concat(parts)),
    });
  }

  // Nothing is heard after the end.
  #silenced(connection: Connection): Connection {
    return overlay(connection, {
      handle: (handlers: ConnectionHandlers) =>
        connection.handle({
          ...handlers,
          data: (chunk) => {
            if (!this.hasEnded) handlers.data(chunk);
          },
          close: (error) => {
            this.#open.delete(connection);
            handlers.close(error);
          },
        }),
    });
  }
}

function overlay(connection: Connection, over: Partial<Connection>): Connection {
  return new Proxy(connection, {
    get(target, key) {
      const own = Reflect.get(over, key);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Splits what was written in one go into LDAP messages, each a BER sequence. */
function* messagesIn(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const first = bytes.readUInt8(at + 1);
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes);
    const end = at + 2 + lengthBytes + length;
    yield bytes.subarray(at, end);
    at = end;
  }
}
