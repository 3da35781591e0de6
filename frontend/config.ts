/** Options of one frontend server. */
import { type Static, Type } from 'typebox';
import { DirectoryAccess, LinkTls, ServerTls } from '#common/config/options.ts';

/** One listener of a frontend. */
export const FrontendListener = Type.Object(
  {
    protocol: Type.Enum(['imap', 'pop3', 'smtp', 'submission', 'http'], {
      description: 'What is spoken there; http: health for load balancers, metrics and mail clients’ autoconfiguration.',
    }),
    tls: Type.Enum(['implicit', 'starttls', 'none'], {
      default: 'starttls',
      description: 'implicit: TLS from the first byte; starttls: on command; none: never (loopback and tests).',
    }),
    address: Type.String({ default: '127.0.0.1', description: 'Address to listen on.' }),
    port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
    perAddressMax: Type.Integer({ default: 100, minimum: 1, description: 'Connections from one client address at a time.' }),
    connectionsMax: Type.Integer({ default: 20000, minimum: 1, description: 'Connections on this listener at a time.' }),
    allowPlaintextLogin: Type.Boolean({
      default: false,
      description: 'Accept passwords without TLS from addresses other than loopback. Unsafe.',
    }),
  },
  { additionalProperties: false },
);
export type FrontendListener = Static<typeof FrontendListener>;

/** A frontend server: one of a subset. */
export const FrontendConfig = Type.Object(
  {
    role: Type.Literal('frontend'),
    name: Type.String({ description: 'Full name of this server, e.g. front1.eu.isp.example.' }),
    subset: Type.String({ description: 'Frontend subset it belongs to, e.g. eu.' }),
    region: Type.Optional(Type.String({ description: 'Region, for placement and reports.' })),
    defaultDomain: Type.Optional(Type.String({ description: 'Domain of login names that have none.' })),
    listeners: Type.Array(FrontendListener, { minItems: 1 }),
    tls: Type.Optional(ServerTls),
    directory: DirectoryAccess,
    link: Type.Optional(LinkTls),
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
    messageBytesMax: Type.Integer({ default: 52428800, minimum: 1024, description: 'Largest message accepted by SMTP, bytes.' }),
    loginTimeoutMs: Type.Integer({ default: 60000, minimum: 1000, description: 'Time a client has to log in, milliseconds.' }),
    drainMs: Type.Integer({
      default: 1000,
      minimum: 0,
      description: 'Time that sessions have to end when the server stops, milliseconds.',
    }),
  },
  { additionalProperties: false },
);
export type FrontendConfig = Static<typeof FrontendConfig>;
