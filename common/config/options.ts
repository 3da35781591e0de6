/**
 * Pieces that several rooms' `config.ts` share. Each option is declared once: name, type, unit, default and description; from these
 * declarations come the types, the checks, the reference page and the sample file (common/config/node-file.ts).
 */
import type { Static } from 'typebox';
import { Type } from '#common/config/declare.ts';

/** A secret is named, never written: a file (mode 0600) or an environment variable. */
export const SecretSource = Type.Object(
  {
    file: Type.Optional(Type.String({ description: 'File whose first line is the secret.' })),
    env: Type.Optional(Type.String({ description: 'Environment variable that holds the secret.' })),
  },
  { additionalProperties: false, description: 'Where a secret is read from: exactly one of file, env.' },
);
export type SecretSource = Static<typeof SecretSource>;

/** Certificate and key of a server, PEM files. */
export const ServerTls = Type.Object(
  {
    certFile: Type.String({ description: 'PEM file: certificate, then its chain.' }),
    keyFile: Type.String({ description: 'PEM file: private key.' }),
  },
  { additionalProperties: false, description: 'Certificate that this server shows to its clients.' },
);
export type ServerTls = Static<typeof ServerTls>;

/** Mutual TLS between servers of the installation. */
export const LinkTls = Type.Object(
  {
    caFile: Type.String({ description: 'PEM file: the cluster CA.' }),
    certFile: Type.String({ description: "PEM file: this server's certificate; its SAN holds the server's name and role." }),
    keyFile: Type.String({ description: 'PEM file: private key.' }),
  },
  { additionalProperties: false, description: 'Mutual TLS between servers. Without it the link runs in clear and on loopback only.' },
);
export type LinkTls = Static<typeof LinkTls>;

/** What `interCluster` is where nothing is configured. */
export const linkDefaults = { connectionsMax: 8, sessionsPerConnection: 2_048, unusedKeptMs: 0 } as const;

/** Options of a cache of link connections; `preset` says how a default is declared. */
export function linkCacheOptions(preset: (value: number) => object) {
  return cacheOptions(preset, {
    connectionsMax: 'Connections of one process to one member.',
    sessionsPerConnection:
      'Sessions, or calls under way, on one connection before another is dialled. At connectionsMax they share what there is, up to 16384 on each (4096 of them not yet answered), and then are refused for the time being.',
    unusedKeptMs:
      'Time that a connection is kept at least which nothing uses, milliseconds; the first to each member stays. 0: all are kept. Otherwise sessions go to the oldest connection that has room, so that the others fall out of use.',
    logLevel:
      'Level of the link’s log lines instead of that of log. debug: connections made and closed, and what could not be asked; trace: every session and call.',
  });
}

/** The link of one service. */
export function linkServiceOptions(what: string) {
  const own = 'As interCluster has it, of connections of its own.';
  const texts = { connectionsMax: own, sessionsPerConnection: own, unusedKeptMs: own, logLevel: 'As interCluster has it.' };
  return Type.Optional(
    Type.Object(
      cacheOptions(() => ({}), texts),
      {
        additionalProperties: false,
        description: `${what} With a number here it has connections of its own; what is not said is as in interCluster.`,
      },
    ),
  );
}

type CacheOption = 'connectionsMax' | 'sessionsPerConnection' | 'unusedKeptMs' | 'logLevel';

function cacheOptions(preset: (value: number) => object, texts: Readonly<Record<CacheOption, string>>) {
  const limit = (name: Exclude<CacheOption, 'logLevel'>, minimum: number, maximum: number) =>
    Type.Optional(Type.Integer({ ...preset(linkDefaults[name]), minimum, maximum, description: texts[name] }));
  return {
    connectionsMax: limit('connectionsMax', 1, 64),
    sessionsPerConnection: limit('sessionsPerConnection', 1, 16_384),
    unusedKeptMs: limit('unusedKeptMs', 0, 86_400_000),
    logLevel: Type.Optional(
      Type.Enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'], {
        description: texts.logLevel,
      }),
    ),
  };
}

/** What `interCluster` is for. */
export const interClusterDescription =
  'Connections to members (the Guide’s Inter-Cluster Communications), which are kept and shared by all services that have none of their own.';

/** Writing all directory servers at once instead of leaving it to replication. */
export const AllAtOnce = Type.Object(
  {
    servers: Type.Array(
      Type.Object(
        {
          name: Type.String({ description: 'e.g. ldap-eu.isp.example' }),
          url: Type.String({ description: 'ldap:// or ldaps:// URL.' }),
          bindDn: Type.String({
            description: 'Identity there that may write entries as they are at the master: replicator, or slapd’s rootdn.',
          }),
          bindPassword: SecretSource,
          caFile: Type.Optional(Type.String({ description: 'PEM file: CA of the server’s certificate.' })),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, description: 'Every directory server besides the master.' },
    ),
    quorum: Type.String({
      default: 'master',
      pattern: '^(master|all|[1-9][0-9]?)$',
      description:
        'When a change is answered: master: it has it; all: every server has it; a number: so many servers have it, the master counted.',
    }),
    outboxDirectory: Type.String({ description: 'Directory on this server’s own disk for changes under way; of this service alone.' }),
    outboxChangesMax: Type.Integer({
      default: 10000,
      minimum: 10,
      description: 'Changes under way; beyond, those for the slowest server are dropped and it is compared as a whole when it is back.',
    }),
    answerWithinMs: Type.Integer({
      default: 5000,
      minimum: 100,
      description: 'Time for the quorum, milliseconds; then DIR_QUORUM is answered.',
    }),
  },
  {
    additionalProperties: false,
    description: 'Writes go to all directory servers at once. Default: to the master; replication does the rest.',
  },
);

/** How a service reaches the directory. */
export const DirectoryAccess = Type.Object(
  {
    servers: Type.Array(Type.String({ description: 'ldap:// or ldaps:// URL.' }), {
      minItems: 1,
      description: 'Directory servers in the order they are tried: this subset’s replica first.',
    }),
    master: Type.String({ description: 'URL of the master directory: asked before anything permanent is said, and for writes.' }),
    suffix: Type.String({ default: 'o=mail', description: 'Base of the directory tree.' }),
    bindDn: Type.String({ description: 'Identity of this service, e.g. cn=frontend,ou=services,o=mail.' }),
    bindPassword: SecretSource,
    caFile: Type.Optional(Type.String({ description: 'PEM file: CA of the directory servers’ certificates.' })),
    timeoutMs: Type.Integer({ default: 5000, minimum: 100, description: 'Time for one directory answer, milliseconds.' }),
    allAtOnce: Type.Optional(AllAtOnce),
  },
  { additionalProperties: false, description: 'How the directory is reached.' },
);
export type DirectoryAccess = Static<typeof DirectoryAccess>;

/** Whose access tokens stand for accounts, and how they are verified. */
export const OAuthOptions = Type.Object(
  {
    issuer: Type.String({ description: 'Who issues the tokens: their claim iss, as it stands there.' }),
    audience: Type.String({ description: 'Whom they must be for: one of the values of their claim aud.' }),
    jwksFile: Type.Optional(Type.String({ description: 'File: the issuer’s public keys, a JWK Set; read anew when a key is missing.' })),
    jwksUrl: Type.Optional(
      Type.String({ description: 'The same by https://; kept for ten minutes, and as long as the URL does not answer.' }),
    ),
    introspectionUrl: Type.Optional(
      Type.String({
        description: 'URL of the issuer’s token introspection (RFC 7662), for tokens that are no JWTs; good ones are kept for a minute.',
      }),
    ),
    clientId: Type.Optional(Type.String({ description: 'introspectionUrl: name of this installation there.' })),
    clientSecret: Type.Optional(SecretSource),
    claim: Type.String({ default: 'email', description: 'Claim that names the account: its name or one of its addresses.' }),
    domain: Type.Optional(Type.String({ description: 'Domain of a claim that has none.' })),
    scope: Type.Optional(Type.String({ description: 'Scope that a token must have.' })),
    configurationUrl: Type.Optional(
      Type.String({ description: 'URL of the issuer’s OpenID configuration, told to clients whose token is refused (RFC 7628).' }),
    ),
    caFile: Type.Optional(Type.String({ description: 'PEM file: CA of the issuer’s server; without it the system’s.' })),
    clockSkewSeconds: Type.Integer({ default: 30, minimum: 0, maximum: 600, description: 'Difference allowed between clocks, seconds.' }),
    timeoutMs: Type.Integer({ default: 5000, minimum: 100, description: 'Time for an answer of the issuer’s server, milliseconds.' }),
  },
  {
    additionalProperties: false,
    description:
      'Access tokens (OAUTHBEARER, XOAUTH2) as log-ins. Exactly one of jwksFile, jwksUrl, introspectionUrl says how they are verified.',
  },
);
export type OAuthOptions = Static<typeof OAuthOptions>;

/** A TCP address to listen on. */
export const ListenAddress = Type.Object(
  {
    address: Type.String({ default: '127.0.0.1', description: 'Address to listen on.' }),
    port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
  },
  { additionalProperties: false },
);
export type ListenAddress = Static<typeof ListenAddress>;

/** How much is logged. */
export const LogLevelName = Type.Enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'], {
  default: 'info',
  description: 'Quietest last.',
});
