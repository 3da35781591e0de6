/** Options of one member of a Backend Dynamic Cluster. */
import type { Static } from 'typebox';
import { Type } from '#common/config/declare.ts';
import {
  DirectoryAccess,
  interClusterDescription,
  LinkTls,
  ListenAddress,
  linkCacheOptions,
  linkServiceOptions,
  OAuthOptions,
  SecretSource,
} from '#common/config/options.ts';

/** Where the members' election, leases and hints live. */
export const CoordinatorConfig = Type.Object(
  {
    engine: Type.Enum(['embedded', 'socket', 'redis'], {
      description: 'embedded: members of one process; socket: processes of one machine; redis: Redis or Valkey.',
    }),
    path: Type.Optional(Type.String({ description: 'socket: path of the Unix socket, the same for all members.' })),
    url: Type.Optional(
      Type.String({
        description:
          'redis: redis://host:port for one server, redis-sentinel://host:port,host:port/name, or redis-cluster://host:port,host:port; rediss for TLS.',
      }),
    ),
    password: Type.Optional(SecretSource),
    sentinelPassword: Type.Optional(SecretSource),
    tls: Type.Optional(
      Type.Object(
        {
          caFile: Type.Optional(Type.String({ description: 'PEM file: CA of the Redis servers’ certificates; default: the system’s.' })),
          certFile: Type.Optional(Type.String({ description: 'PEM file: certificate that this member shows to Redis.' })),
          keyFile: Type.Optional(Type.String({ description: 'PEM file: its private key.' })),
        },
        { additionalProperties: false, description: 'redis: TLS to Redis, also without rediss in the URL.' },
      ),
    ),
  },
  { additionalProperties: false },
);
export type CoordinatorConfig = Static<typeof CoordinatorConfig>;

/** The Guide's Service Processing: where requests to the outside world are carried out. */
function serviceProcessing(what: string) {
  return Type.Enum(['locally', 'locally-for-others', 'remotely', 'auto'], {
    default: 'auto',
    description: `Where ${what} are carried out: on this member; on this member and for others; on a member that does so for others; auto: remotely if another member does so for others, else locally.`,
  });
}

/** What all members of a cluster share: docs/operate/storage.md says which to choose. */
export const StorageConfig = Type.Object(
  {
    engine: Type.Enum(['posix', 's3'], {
      default: 'posix',
      description: 'posix: a directory that all members of the cluster share; s3: a bucket of an S3 server with conditional writes.',
    }),
    path: Type.Optional(Type.String({ description: 'posix: the shared directory.' })),
    endpoint: Type.Optional(
      Type.String({ description: 's3: URL of the server, e.g. https://s3.isp.example; the bucket is not part of it.' }),
    ),
    bucket: Type.Optional(Type.String({ description: 's3: the bucket; it must exist.' })),
    region: Type.Optional(Type.String({ description: 's3: region that requests are signed for; without it us-east-1.' })),
    prefix: Type.Optional(Type.String({ description: 's3: what every key begins with, for several clusters in one bucket, e.g. west.' })),
    accessKeyId: Type.Optional(Type.String({ description: 's3: name of the access key.' })),
    secretAccessKey: Type.Optional(SecretSource),
    caFile: Type.Optional(Type.String({ description: 's3: PEM file: CA of the server’s certificate; without it the system’s.' })),
  },
  { additionalProperties: false },
);
export type StorageConfig = Static<typeof StorageConfig>;

/** The link to other members, and what differs for a service. */
export const InterClusterOptions = Type.Object(
  {
    ...linkCacheOptions((value) => ({ default: value })),
    deliver: linkServiceOptions('Mail for an account that another member has open.'),
    calls: linkServiceOptions('Everything else: the Controller’s messages, account operations, sessions that are handed over.'),
  },
  { additionalProperties: false, description: interClusterDescription },
);
export type InterClusterOptions = Static<typeof InterClusterOptions>;

/** A member of a Dynamic Cluster. Its cluster is its name without the first label. */
export const BackendConfig = Type.Object(
  {
    role: Type.Literal('backend-cluster'),
    name: Type.String({ description: 'Full name of this member, e.g. back1.west.isp.example.' }),
    listen: ListenAddress,
    advertise: Type.Optional(
      Type.String({ description: 'host:port that frontends and other members connect to; default: the listening address.' }),
    ),
    clusterNetwork: Type.Array(Type.String(), {
      default: ['127.0.0.1', '::1'],
      description: 'Cluster Network: addresses that link connections are accepted from.',
    }),
    storage: StorageConfig,
    coordinator: CoordinatorConfig,
    directory: DirectoryAccess,
    link: Type.Optional(LinkTls),
    interCluster: Type.Optional(InterClusterOptions),
    oauth: Type.Optional(OAuthOptions),
    heartbeatMs: Type.Integer({
      default: 1000,
      minimum: 50,
      description: 'Time between two renewals of this member’s lease, milliseconds.',
    }),
    leaseMs: Type.Integer({
      default: 8000,
      minimum: 200,
      description: 'Lease of a member and of the Controller, milliseconds; more than three heartbeats.',
    }),
    idleCloseMs: Type.Integer({ default: 60000, minimum: 0, description: 'Time after which an unused account is closed, milliseconds.' }),
    openAccountsMegabytes: Type.Integer({
      default: 512,
      minimum: 1,
      description:
        'Memory for the indexes of open accounts, megabytes; beyond it those that nobody uses are closed, the longest unused first.',
    }),
    tombstoneGraceHours: Type.Number({
      default: 720,
      minimum: 0,
      description: 'Time that the storage of a removed account is kept, hours.',
    }),
    scrubBytesPerSecond: Type.Integer({
      default: 4_000_000,
      minimum: 0,
      description: 'Rate at which the Controller reads all stored accounts again to find damage, bytes per second; 0: only when asked for.',
    }),
    scrubEveryHours: Type.Number({
      default: 168,
      minimum: 0,
      description: 'Time from the start of one such check of all accounts to the start of the next, hours.',
    }),
    httpClient: serviceProcessing('outgoing HTTP requests'),
    remotePolling: serviceProcessing('outgoing remote polls'),
    defaultQuotaBytes: Type.Integer({ default: 0, minimum: 0, description: 'Quota of accounts without mailQuota, bytes; 0 is none.' }),
  },
  { additionalProperties: false },
);
export type BackendConfig = Static<typeof BackendConfig>;
