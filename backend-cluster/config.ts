/** Options of one member of a Backend Dynamic Cluster. */
import { type Static, Type } from 'typebox';
import { DirectoryAccess, LinkTls, ListenAddress, SecretSource } from '#common/config/options.ts';

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
    storage: Type.Object(
      {
        engine: Type.Enum(['posix'], { default: 'posix', description: 'posix: a directory that all members of the cluster share.' }),
        path: Type.String({ description: 'posix: the shared directory.' }),
      },
      { additionalProperties: false },
    ),
    coordinator: CoordinatorConfig,
    directory: DirectoryAccess,
    link: Type.Optional(LinkTls),
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
    tombstoneGraceHours: Type.Number({
      default: 720,
      minimum: 0,
      description: 'Time that the storage of a removed account is kept, hours.',
    }),
    httpClient: serviceProcessing('outgoing HTTP requests'),
    remotePolling: serviceProcessing('outgoing remote polls'),
    defaultQuotaBytes: Type.Integer({ default: 0, minimum: 0, description: 'Quota of accounts without mailQuota, bytes; 0 is none.' }),
  },
  { additionalProperties: false },
);
export type BackendConfig = Static<typeof BackendConfig>;
