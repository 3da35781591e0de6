/**
 * From the configuration to the account store: reads the secret and the CA, opens the engine, probes it, and tells what to look at.
 */
import type { BackendConfig } from '#backend-cluster/config.ts';
import { isLoopback } from '#common/config/relations.ts';
import { type Environment, readPem, readSecret } from '#common/config/resolve.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { openNodeExchange } from '#common/http/node-exchange.ts';
import type { Ports } from '#common/lifecycle.ts';
import type { AccountStore } from './account-store.ts';
import { openAccountStore, openBucketStore } from './open-store.ts';

/** A store that passed its probe, and where it is, for status pages. */
export interface ConfiguredStore {
  readonly store: AccountStore;
  readonly engine: string;
  /** The directory, or `s3://bucket/prefix`. */
  readonly path: string;
}

const usualRegion = 'us-east-1';

/** Rejects with `CONFIG_*`, `STORE_UNSAFE`, `STORE_FULL` or `STORE_UNAVAILABLE`. */
export async function openConfiguredStore(config: BackendConfig['storage'], ports: Ports, env: Environment = {}): Promise<ConfiguredStore> {
  const opened = config.engine === 's3' ? await openBucket(config, ports, env) : await openDirectory(config, ports);
  const { warnings } = await opened.store.probe();
  for (const warning of warnings) ports.log.warn({ path: opened.path }, `shared storage: ${warning}`);
  return opened;
}

async function openDirectory(config: BackendConfig['storage'], ports: Ports): Promise<ConfiguredStore> {
  const path = required(config.path, 'path', 'posix');
  return { store: await openAccountStore({ ...ports, root: path }), engine: 'posix', path };
}

async function openBucket(config: BackendConfig['storage'], ports: Ports, env: Environment): Promise<ConfiguredStore> {
  const endpoint = required(config.endpoint, 'endpoint', 's3');
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new PlatformError('CONFIG_INVALID', `storage.endpoint "${endpoint}" is not a URL of the form https://host:port`);
  }
  const bucket = required(config.bucket, 'bucket', 's3');
  const prefix = config.prefix === undefined || config.prefix === '' ? '' : `${config.prefix.replace(/^\/+|\/+$/g, '')}/`;
  if (url.protocol === 'http:' && !isLoopback(url.hostname)) {
    ports.log.warn({ endpoint }, 'shared storage: mail travels to the object store in clear; use an https:// endpoint');
  }
  const store = openBucketStore(
    {
      endpoint,
      bucket,
      region: config.region ?? usualRegion,
      prefix,
      credentials: {
        accessKeyId: required(config.accessKeyId, 'accessKeyId', 's3'),
        secretAccessKey: await readSecret(required(config.secretAccessKey, 'secretAccessKey', 's3'), ports.files, env),
      },
      // Its idle connections close by themselves within seconds and keep no process alive, so it lives as long as the store does.
      http: openNodeExchange({
        clock: ports.clock,
        ca: config.caFile === undefined ? undefined : await readPem(config.caFile, ports.files),
      }),
      clock: ports.clock,
      random: ports.random,
    },
    ports,
  );
  return { store, engine: 's3', path: `s3://${bucket}/${prefix}` };
}

function required<T>(value: T | undefined, key: string, engine: string): T {
  if (value === undefined) throw new PlatformError('CONFIG_INVALID', `storage.${key} is missing: engine ${engine} needs it`);
  return value;
}
