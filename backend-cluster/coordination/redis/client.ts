/**
 * One ioredis client, for one server, Sentinel or Redis Cluster, with everything switched off by which it would go on by itself: no queue
 * of commands while there is no connection, no resending, no reconnecting. redis.ts throws a client away when it fails and makes another
 * when its back-off allows, so that what can pile up and how often it dials is decided in one place.
 */
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import type { Secret } from '#common/secret.ts';
import type { RedisEndpoint } from './endpoint.ts';
import { scripts } from './scripts.ts';

/** Secrets and certificates. */
export interface RedisAccess {
  readonly password: Secret<string> | undefined;
  readonly sentinelPassword: Secret<string> | undefined;
  /** PEM texts; `undefined` members mean the system's CAs and no client certificate. */
  readonly tls: { readonly ca: string | undefined; readonly cert: string | undefined; readonly key: string | undefined } | undefined;
}

/** Several commands for the node that has the keys, answered together. */
interface Batch {
  exists(key: string): Batch;
  info(section: string): Batch;
  wait(replicas: number, timeoutMs: number): Batch;
  exec(): Promise<[Error | null, unknown][] | null>;
}

/** What the engine uses of ioredis, the scripts among it. */
export interface RedisClient {
  connect(): Promise<void>;
  disconnect(): void;
  on(event: 'error' | 'end' | 'close', listener: (error?: Error) => void): unknown;
  takeLease(...keysAndArguments: (string | number)[]): Promise<unknown>;
  releaseLease(...keysAndArguments: string[]): Promise<unknown>;
  forgetLapsed(...keysAndArguments: string[]): Promise<unknown>;
  zrangebylex(key: string, min: string | Buffer, max: string | Buffer, limit: 'LIMIT', offset: number, count: number): Promise<string[]>;
  mget(keys: string[]): Promise<(string | null)[]>;
  pipeline(): Batch;
}

/** Makes a client that is not connected yet. It connects once, and is done when that connection ends. */
export function createRedisClient(endpoint: RedisEndpoint, access: RedisAccess, timeoutMs: number): RedisClient {
  const tls = tlsOptions(endpoint, access);
  const options = {
    ...(endpoint.username === undefined ? {} : { username: endpoint.username }),
    ...(access.password === undefined ? {} : { password: access.password.reveal() }),
    ...(tls === undefined ? {} : { tls }),
    connectTimeout: timeoutMs,
    commandTimeout: timeoutMs,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    disableClientInfo: true,
    connectionName: 'archipelago',
    protocol: 2,
    scripts,
  } as const;
  if (endpoint.kind === 'cluster') {
    const cluster = new Cluster([...endpoint.addresses], {
      lazyConnect: true,
      enableOfflineQueue: false,
      clusterRetryStrategy: () => null,
      maxRedirections: 4,
      slotsRefreshTimeout: timeoutMs,
      slotsRefreshInterval: 10_000,
      // A node is dialled by the name it was given by; its certificate is for that name.
      ...(tls === undefined ? {} : { dnsLookup: (host: string, done: (error: null, address: string) => void) => done(null, host) }),
      redisOptions: options,
      scripts,
    });
    return cluster as unknown as RedisClient;
  }
  const alone = {
    ...options,
    lazyConnect: true,
    enableOfflineQueue: false,
    retryStrategy: () => null,
    db: endpoint.database,
  };
  const [first] = endpoint.addresses;
  const client =
    endpoint.kind === 'single'
      ? new Redis({ ...alone, ...first })
      : new Redis({
          ...alone,
          sentinels: [...endpoint.addresses],
          ...(endpoint.masterName === undefined ? {} : { name: endpoint.masterName }),
          sentinelRetryStrategy: () => null,
          sentinelCommandTimeout: timeoutMs,
          ...(access.sentinelPassword === undefined ? {} : { sentinelPassword: access.sentinelPassword.reveal() }),
          ...(tls === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: tls }),
        });
  return client as unknown as RedisClient;
}

function tlsOptions(endpoint: RedisEndpoint, access: RedisAccess): NonNullable<RedisOptions['tls']> | undefined {
  if (!endpoint.isTls && access.tls === undefined) return undefined;
  const { ca, cert, key } = access.tls ?? {};
  return {
    minVersion: 'TLSv1.2',
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}
