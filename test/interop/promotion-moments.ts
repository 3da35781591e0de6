/**
 * The moments of a promotion: a network that counts what tells a directory server of another mastership, and at the chosen one of these
 * messages lets somebody die, before it arrives or once it was obeyed. Whoever waits for the answer never gets it.
 */
import type { Connection, ConnectionHandlers, Network } from '#common/network/network.ts';
import { systemNetwork } from '#common/network/system-network.ts';

/** What is counted, as it is on the wire (directory/client/authority.ts). */
const decisive = /"op":"(freeze|thaw|promote|follow)"/;

/** See the header of this file. */
export class PromotionMoments {
  /** Who was told what, in order, since `arm`. */
  readonly told: string[] = [];
  hasStruck = false;
  readonly #names: ReadonlyMap<number, string>;
  readonly #open = new Set<Connection>();
  #at = Number.POSITIVE_INFINITY;
  #isObeyed = false;
  #strike: (server: string) => Promise<void> = () => Promise.resolve();
  #striking: Promise<void> = Promise.resolve();
  #isSilent = false;

  /** `servers`: names by URL. */
  constructor(servers: Readonly<Record<string, string>>) {
    this.#names = new Map(Object.entries(servers).map(([url, name]) => [Number(new URL(url).port), name]));
  }

  /** From now on messages are counted; at the one of that number `strike` is called, with the name of the server that it is for. */
  arm(at: number, isObeyed: boolean, strike: (server: string) => Promise<void>): void {
    this.told.length = 0;
    this.#at = at;
    this.#isObeyed = isObeyed;
    this.#strike = strike;
  }

  /** Resolves once whoever was struck is dead. */
  get struck(): Promise<void> {
    return this.#striking;
  }

  /** The service dies: nothing is sent or heard any more. */
  end(): void {
    this.#isSilent = true;
    for (const connection of this.#open) connection.destroy();
  }

  readonly network: Network = {
    connect: async (options) => {
      if (this.#isSilent) throw new Error('this service is dead');
      const connection = await systemNetwork.connect(options);
      this.#open.add(connection);
      return this.#watched(connection, this.#names.get(options.port ?? 0));
    },
    listen: (options, accept) => systemNetwork.listen(options, accept),
  };

  #watched(connection: Connection, server: string | undefined): Connection {
    let isAwaited = false;
    const write = (bytes: Uint8Array): boolean => {
      if (this.#isSilent) return false;
      const op = decisive.exec(Buffer.from(bytes).toString('latin1'))?.[1];
      if (op === undefined || server === undefined || this.hasStruck) return connection.write(bytes);
      this.told.push(`${op} ${server}`);
      if (this.told.length - 1 !== this.#at) return connection.write(bytes);
      this.hasStruck = true;
      if (this.#isObeyed) {
        isAwaited = true;
        return connection.write(bytes);
      }
      this.#kill(connection, server);
      return true;
    };
    return new Proxy(connection, {
      get: (target, key) => {
        if (key === 'write') return (bytes: Uint8Array | string) => write(typeof bytes === 'string' ? Buffer.from(bytes) : bytes);
        if (key === 'writeAll') return (parts: readonly Uint8Array[]) => write(Buffer.concat(parts));
        if (key === 'handle')
          return (handlers: ConnectionHandlers) =>
            target.handle({
              ...handlers,
              data: (chunk) => {
                if (isAwaited) {
                  isAwaited = false;
                  this.#kill(connection, server as string);
                } else if (!this.#isSilent) handlers.data(chunk);
              },
              close: (error) => {
                this.#open.delete(connection);
                handlers.close(error);
              },
            });
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  // The connection goes once whoever dies is dead: what waits for the answer must not go on before.
  #kill(connection: Connection, server: string): void {
    this.#striking = this.#strike(server).finally(() => connection.destroy());
  }
}
