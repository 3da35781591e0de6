/** Options of one frontend server. */
import type { Static } from 'typebox';
import { Type } from '#common/config/declare.ts';
import {
  DirectoryAccess,
  interClusterDescription,
  LinkTls,
  linkCacheOptions,
  linkServiceOptions,
  OAuthOptions,
  SecretSource,
  ServerTls,
} from '#common/config/options.ts';

/**
 * A setting that the subset's entry in the directory may give all of its frontends (subset/settings.ts). It has no `default`, which would be filled in as
 * if the node file had said it: `otherwise` is what holds where neither says anything.
 */
const setting = (otherwise: number, options: { readonly minimum: number; readonly maximum?: number; readonly description: string }) =>
  Type.Optional(Type.Integer({ ...options, otherwise }));

/** One listener of a frontend. */
export const FrontendListener = Type.Object(
  {
    protocol: Type.Enum(
      ['imap', 'pop3', 'managesieve', 'smtp', 'submission', 'lmtp', 'http', 'agent', 'routes', 'tcp-table', 'socketmap'],
      {
        description:
          'What is spoken there; lmtp: mail for accounts, from servers that have checked it, with an answer for each recipient (RFC 2033); http: health for load balancers, metrics and mail clients’ autoconfiguration; agent: HAProxy’s agent-check, in one line whether connections are wanted and the weight; routes: where an account is, for nginx (auth_http) and Dovecot; tcp-table, socketmap: the same for Postfix.',
      },
    ),
    tls: Type.Enum(['implicit', 'starttls', 'none'], {
      default: 'starttls',
      description: 'implicit: TLS from the first byte; starttls: on command; none: never (loopback and tests).',
    }),
    address: Type.String({ default: '127.0.0.1', description: 'Address to listen on.' }),
    port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
    perAddressMax: setting(100, { minimum: 1, description: 'Connections from one client address at a time.' }),
    perPrefixMax: setting(2000, { minimum: 1, description: 'Connections from one prefix (IPv4 /24, IPv6 /48) at a time.' }),
    acceptPerSecond: setting(1000, {
      minimum: 1,
      description: 'Connections taken up a second, after a burst of twice as many; others wait, and beyond connectionsMax are refused.',
    }),
    connectionsMax: setting(20_000, { minimum: 1, description: 'Connections on this listener at a time.' }),
    proxyFrom: Type.Optional(
      Type.Array(Type.String({ description: 'Address or range such as 10.0.0.0/24.' }), {
        description:
          'Load balancers that begin each connection with a PROXY header (version 1 or 2), which says who the client is, and whether it has TLS. Connections from elsewhere are served as they are, and a header of theirs is not believed.',
      }),
    ),
    domain: Type.Optional(
      Type.String({
        description: 'Domain of login names that have none, of clients that reached this listener; instead of defaultDomain.',
      }),
    ),
    sieveExtensions: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9.;+_-]*( [a-z0-9.;+_-]+)*$',
        description:
          'managesieve: extensions of Sieve that the greeting names, as the servers with the accounts have them, separated by spaces. Without it none; clients ask again after login.',
      }),
    ),
    allowFrom: Type.Optional(
      Type.Array(Type.String({ description: 'Address or range such as 10.0.0.0/24.' }), {
        description: 'routes, tcp-table, socketmap: who may ask. Default: loopback.',
      }),
    ),
    allowPlaintextLogin: Type.Boolean({
      default: false,
      description: 'Accept passwords without TLS from addresses other than loopback. Unsafe.',
    }),
  },
  { additionalProperties: false },
);
export type FrontendListener = Static<typeof FrontendListener>;

/** Certificates of a frontend. */
export const FrontendTlsConfig = Type.Object(
  {
    certFile: Type.String({ description: 'PEM file: certificate, then its chain.' }),
    keyFile: Type.String({ description: 'PEM file: private key.' }),
    further: Type.Optional(
      Type.Array(ServerTls, {
        maxItems: 10_000,
        description: 'Certificates shown to clients that ask for one of their names (SNI); everybody else sees the first.',
      }),
    ),
    minVersion: Type.Optional(Type.Enum(['TLSv1.2', 'TLSv1.3'], { default: 'TLSv1.2', description: 'Oldest TLS version that is spoken.' })),
    ticketSecret: Type.Optional(SecretSource),
    clientCaFile: Type.Optional(Type.String({ description: 'PEM file: CA of client certificates. With it clients are asked for one.' })),
    clientCertificate: Type.Optional(
      Type.Enum(['optional', 'required'], {
        default: 'optional',
        description: 'required: clients without a certificate of clientCaFile are turned away in the handshake.',
      }),
    ),
  },
  {
    additionalProperties: false,
    description:
      'Certificates that this server shows to its clients. The files are read anew when they change. All frontends of a subset that have the same ticketSecret resume each other’s TLS sessions; without it the key of the certificate serves.',
  },
);
export type FrontendTlsConfig = Static<typeof FrontendTlsConfig>;

/** What `routing` is where nothing is configured. */
export const routingDefaults = {
  mode: 'follow',
  snapshotEveryMs: 300_000,
  cacheMax: 100_000,
  cacheFreshMs: 60_000,
  cacheStaleMaxMs: 86_400_000,
} as const;

/** How a frontend knows where accounts are. */
export const RoutingOptions = Type.Object(
  {
    mode: Type.Enum(['follow', 'lookup'], {
      default: routingDefaults.mode,
      description:
        'follow: every account’s cluster is known here, 12 to 13 bytes each, and the directory is only asked for what is missing; lookup: the directory is asked and answers are kept for a while, for small frontends.',
    }),
    snapshotDirectory: Type.Optional(
      Type.String({
        description: 'Directory on this server’s own disk for the snapshot of routes; by default NAME.routes beside queueDirectory.',
      }),
    ),
    snapshotEveryMs: Type.Integer({
      default: routingDefaults.snapshotEveryMs,
      minimum: 1000,
      description: 'Time between snapshots while routes change, milliseconds.',
    }),
    cacheMax: Type.Integer({ default: routingDefaults.cacheMax, minimum: 1, description: 'Accounts kept that were found by look-up.' }),
    cacheFreshMs: Type.Integer({
      default: routingDefaults.cacheFreshMs,
      minimum: 1,
      description:
        'mode lookup: time after which an account is asked for anew, milliseconds. Until then a member that does not have it says so.',
    }),
    cacheStaleMaxMs: Type.Integer({
      default: routingDefaults.cacheStaleMaxMs,
      minimum: 1,
      description: 'Time for which what was found is still used while no directory server answers, milliseconds.',
    }),
    masterPerSecond: setting(200, {
      minimum: 1,
      description: 'Most questions to the master a second; beyond it what is not known here gets a temporary refusal.',
    }),
  },
  { additionalProperties: false, default: {}, description: 'How this frontend knows where accounts are.' },
);
export type RoutingOptions = Static<typeof RoutingOptions>;

/** The link to members, and what differs for a service. The limits may stand in the subset's entry too. */
export const InterClusterOptions = Type.Object(
  {
    ...linkCacheOptions((otherwise) => ({ otherwise })),
    imap: linkServiceOptions('IMAP sessions.'),
    pop3: linkServiceOptions('POP3 sessions.'),
    managesieve: linkServiceOptions('ManageSieve sessions.'),
    lmtp: linkServiceOptions('Delivery of mail.'),
    submission: linkServiceOptions('Log-ins of clients that submit mail.'),
    calls: linkServiceOptions('All other questions: the first step of SCRAM, sessions that are ended.'),
  },
  { additionalProperties: false, description: interClusterDescription },
);
export type InterClusterOptions = Static<typeof InterClusterOptions>;

/** How a foreign cluster is spoken to; which hosts and services it has stands in the directory. */
export const ForeignClusterOptions = Type.Object(
  {
    name: Type.String({ description: 'Name of the cluster, as in the topology and in hostServer.' }),
    login: Type.Enum(['passed', 'master-user'], {
      default: 'passed',
      description:
        'passed: the client’s own name and password are sent on; master-user: the password is verified by a bind at the directory, and the session opened on behalf of the account.',
    }),
    masterUser: Type.Optional(Type.String({ description: 'login master-user: its name there.' })),
    masterPassword: Type.Optional(SecretSource),
    masterForm: Type.Enum(['sasl', 'separator'], {
      default: 'sasl',
      description:
        'sasl: PLAIN with the account as authorization identity; separator: the login name is account, masterSeparator, masterUser.',
    }),
    masterSeparator: Type.String({ default: '*', minLength: 1, description: 'masterForm separator: between account and masterUser.' }),
    names: Type.Enum(['full', 'local'], {
      default: 'full',
      description: 'What its servers call an account: full name, or the part before the @.',
    }),
    forward: Type.Enum(['none', 'commands', 'proxy-v1', 'proxy-v2'], {
      default: 'none',
      description: 'How its servers learn the client’s address. commands: ID (x-originating-ip) for IMAP, XCLIENT for the others.',
    }),
    failover: Type.Enum(['automatic', 'operator'], {
      default: 'automatic',
      description:
        'automatic: accounts leave a host that this frontend cannot reach; operator: only the directory (weights, hostServer) moves them.',
    }),
    early: Type.Boolean({
      default: true,
      description: 'Send the login without waiting for the greeting, which saves a round trip. Never over STARTTLS.',
    }),
    caFile: Type.Optional(Type.String({ description: 'PEM file: CA of its servers’ certificates, which carry the hosts’ names.' })),
    connectTimeoutMs: Type.Integer({ default: 3000, minimum: 100, description: 'Time for a connection, milliseconds.' }),
    loginTimeoutMs: Type.Integer({ default: 20000, minimum: 100, description: 'Time for a login, milliseconds.' }),
  },
  { additionalProperties: false },
);
export type ForeignClusterOptions = Static<typeof ForeignClusterOptions>;

/** A frontend server: one of a subset. */
export const FrontendConfig = Type.Object(
  {
    role: Type.Literal('frontend'),
    name: Type.String({ description: 'Full name of this server, e.g. front1.eu.isp.example.' }),
    subset: Type.String({ description: 'Frontend subset it belongs to, e.g. eu.' }),
    region: Type.Optional(Type.String({ description: 'Region, for placement and reports.' })),
    defaultDomain: Type.Optional(Type.String({ description: 'Domain of login names that have none.' })),
    addressDomains: Type.Optional(
      Type.Array(
        Type.Object(
          {
            address: Type.String({
              description: 'Address that the client reached, also behind a load balancer that sends a PROXY header.',
            }),
            domain: Type.String({ description: 'Domain of login names that have none.' }),
          },
          { additionalProperties: false },
        ),
        { description: 'Domains by the address that a client reached; before a listener’s domain and defaultDomain.' },
      ),
    ),
    listeners: Type.Array(FrontendListener, { minItems: 1 }),
    workers: Type.Optional(
      Type.Integer({
        default: 1,
        minimum: 0,
        maximum: 64,
        description:
          'Processes that serve sessions (imap, pop3, managesieve); 0: one for each core. The first does all the rest too, mail among it, and has the routes, which the others ask it for.',
      }),
    ),
    tls: Type.Optional(FrontendTlsConfig),
    oauth: Type.Optional(OAuthOptions),
    scram: Type.Optional(
      Type.Object(
        {
          secret: SecretSource,
          iterations: Type.Integer({
            default: 4096,
            minimum: 4096,
            maximum: 1_000_000,
            description: 'Rounds that an account without keys is said to have; as the directory’s scramIterations.',
          }),
        },
        {
          additionalProperties: false,
          description:
            'SCRAM-SHA-256 log-ins, for accounts that have keys (the directory’s scramIterations). Of the secret the salts of accounts without keys are made: the same on all frontends, or comparing two of them would tell which accounts exist.',
        },
      ),
    ),
    directory: DirectoryAccess,
    routing: RoutingOptions,
    link: Type.Optional(LinkTls),
    interCluster: Type.Optional(InterClusterOptions),
    foreignClusters: Type.Optional(
      Type.Array(ForeignClusterOptions, {
        description: 'Clusters whose servers are not ours, where they are spoken to otherwise than by default.',
      }),
    ),
    sharing: Type.Optional(
      Type.Object(
        {
          address: Type.String({
            default: '127.0.0.1',
            description: 'Address at which the other frontends tell; other than loopback it needs link.',
          }),
          port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
          peers: Type.Optional(
            Type.Array(Type.String({ description: 'Full name, a space, and host:port.' }), {
              maxItems: 200,
              description:
                'Frontends of the subset, instead of the subsetFrontend values of its entry in the directory; this one may be among them.',
            }),
          ),
        },
        {
          additionalProperties: false,
          description:
            'Failed log-ins, blocks and allowances are shared with the other frontends of the subset. Without it each has its own.',
        },
      ),
    ),
    queueDirectory: Type.String({ description: 'Directory on this server’s own disk for the mail queue.' }),
    relay: Type.Optional(
      Type.Object(
        {
          host: Type.String({ description: 'Host name or address of the relay.' }),
          port: Type.Integer({ default: 25, minimum: 1, maximum: 65535, description: 'Its SMTP port.' }),
        },
        {
          additionalProperties: false,
          description: 'Server that takes submitted mail for domains that are not served here. Without it such mail is refused.',
        },
      ),
    ),
    messageBytesMax: setting(52_428_800, { minimum: 1024, description: 'Largest message accepted by SMTP, bytes.' }),
    loginTimeoutMs: setting(60_000, { minimum: 1000, description: 'Time a client has to log in, milliseconds.' }),
    weight: setting(100, {
      minimum: 0,
      maximum: 100,
      description: 'Share of new connections that this server wants of its load balancer (agent), percent; can be changed while it runs.',
    }),
    drainMs: setting(1000, { minimum: 0, description: 'Time that sessions have to end when the server stops, milliseconds.' }),
  },
  { additionalProperties: false },
);
export type FrontendConfig = Static<typeof FrontendConfig>;
