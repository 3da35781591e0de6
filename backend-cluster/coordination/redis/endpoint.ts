/**
 * Where Redis is, from one URL. Pure.
 *
 *   redis://[user@]host[:port][/database]                     one server; rediss:// with TLS
 *   redis-sentinel://[user@]host[:port],host[:port]/name      the master that Sentinels know by that name; port 26379
 *   redis-cluster://[user@]host[:port],host[:port]            Redis Cluster; a few nodes, the rest is learned
 *
 * A password in a URL is refused: URLs are logged and shown, secrets are read from a file or the environment.
 */
import { PlatformError } from '#common/errors/platform-error.ts';

/** A server's address. */
export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

/** What the URL says. */
export interface RedisEndpoint {
  readonly kind: 'single' | 'sentinel' | 'cluster';
  /** One server, the Sentinels, or some nodes of the Redis Cluster. */
  readonly addresses: readonly RedisAddress[];
  /** Sentinel's name of the master. */
  readonly masterName: string | undefined;
  readonly username: string | undefined;
  readonly database: number;
  readonly isTls: boolean;
  /** For people: the URL without the user. */
  readonly label: string;
}

const kinds = {
  redis: { kind: 'single', isTls: false, port: 6379 },
  rediss: { kind: 'single', isTls: true, port: 6379 },
  'redis-sentinel': { kind: 'sentinel', isTls: false, port: 26_379 },
  'rediss-sentinel': { kind: 'sentinel', isTls: true, port: 26_379 },
  'redis-cluster': { kind: 'cluster', isTls: false, port: 6379 },
  'rediss-cluster': { kind: 'cluster', isTls: true, port: 6379 },
} as const;
const addressesMax = 32;

/** Reads the URL. Throws `CONFIG_INVALID`, saying what is wrong with it. */
export function parseRedisUrl(text: string): RedisEndpoint {
  const parts = /^([a-z-]+):\/\/(?:([^@/]*)@)?([^@/]+)(?:\/([^/]*))?$/.exec(text);
  const scheme = parts?.[1];
  if (parts === null || scheme === undefined || !Object.hasOwn(kinds, scheme)) {
    // What may hold a password is not repeated.
    throw invalid(
      'is not a URL of the form redis://host:port, redis-sentinel://host:port,host:port/name or redis-cluster://host:port,host:port',
    );
  }
  const { kind, isTls, port } = kinds[scheme as keyof typeof kinds];
  const user = parts[2] ?? '';
  if (user.includes(':')) throw invalid('holds a password; name it under coordinator.password instead, by file or env');
  const addresses = (parts[3] as string).split(',').map((address) => parseAddress(address, port));
  if (addresses.length > addressesMax) throw invalid(`names ${addresses.length} servers; at most ${addressesMax}`);
  if (kind === 'single' && addresses.length > 1) {
    throw invalid('names several servers; use redis-sentinel:// (Sentinels) or redis-cluster:// (nodes of a Redis Cluster)');
  }
  const path = parts[4] ?? '';
  if (kind === 'sentinel' && path === '') throw invalid('does not end in the name that the Sentinels know the master by, e.g. /mymaster');
  if (kind === 'cluster' && path !== '' && path !== '0') throw invalid('names a database; a Redis Cluster has none');
  if (kind === 'single' && !/^\d{0,4}$/.test(path)) throw invalid(`ends in "${path}", which is not the number of a database`);
  return {
    kind,
    addresses,
    masterName: kind === 'sentinel' ? decoded(path) : undefined,
    username: user === '' ? undefined : decoded(user),
    database: kind === 'single' ? Number(path) : 0,
    isTls,
    label: `${scheme}://${parts[3]}${path === '' ? '' : `/${path}`}`,
  };
}

function parseAddress(text: string, defaultPort: number): RedisAddress {
  const parts = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = parts?.[3] === undefined ? defaultPort : Number(parts[3]);
  if (host === undefined || port < 1 || port > 65_535) throw invalid(`names a server that is not host:port: "${text}"`);
  return { host, port };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid('holds a % that is not followed by two hexadecimal digits; write %25 for the character itself');
  }
}

function invalid(what: string): PlatformError {
  return new PlatformError('CONFIG_INVALID', `coordinator.url ${what}`);
}
