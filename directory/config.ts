/** Options of one Directory Server. */
import type { Static } from 'typebox';
import { Type } from '#common/config/declare.ts';
import { SecretSource, ServerTls } from '#common/config/options.ts';
import type { Mistake } from '#common/config/schema-check.ts';
import { messageOf } from '#common/errors/platform-error.ts';
import { parseRule } from './access/rule-syntax.ts';

/** An identity of the installation's services: it may bind with this password, whatever the tree holds. */
export const ServiceIdentity = Type.Object(
  {
    dn: Type.String({ description: 'e.g. cn=frontend,ou=services,o=mail' }),
    rights: Type.Enum(['admin', 'replicator', 'cluster', 'provisioner', 'frontend'], {
      description:
        'admin: all; replicator: reads all, and writes all on a replica; cluster: reads all, writes accounts; provisioner: accounts and domains; frontend: routing attributes.',
    }),
    password: SecretSource,
    actsForOthers: Type.Optional(
      Type.Boolean({
        default: false,
        description:
          'May act on behalf of anybody by proxied authorization, as the right admin always may; for the identity by which a replica forwards writes.',
      }),
    ),
    certificateName: Type.Optional(
      Type.String({ description: 'DNS or URI name in a client certificate that binds as this identity by SASL EXTERNAL.' }),
    ),
  },
  { additionalProperties: false },
);
export type ServiceIdentity = Static<typeof ServiceIdentity>;

/** A Directory Server: the master or a replica. */
export const DirectoryConfig = Type.Object(
  {
    role: Type.Literal('directory'),
    name: Type.String({ description: 'Full name of this server, e.g. ldap-master.isp.example.' }),
    mode: Type.Enum(['master', 'replica'], {
      description: 'At the first start; a promotion changes it for good. A replica takes writes from the replication service only.',
    }),
    master: Type.Optional(Type.String({ description: 'replica: URL that writers are referred to.' })),
    peers: Type.Optional(
      Type.Array(Type.String({ description: 'ldap:// or ldaps:// URL.' }), {
        description: 'The other directory servers: asked at the start and all the time whether there is a later master than this one.',
      }),
    ),
    peersCaFile: Type.Optional(Type.String({ description: 'PEM file: CA of the peers’ certificates.' })),
    writesNeed: Type.Optional(
      Type.Enum(['nobody', 'majority'], {
        default: 'nobody',
        description:
          'majority: a master takes writes only while most of the directory servers (peers and itself) answer it, so that one that is cut off stops by itself.',
      }),
    ),
    writes: Type.Optional(
      Type.Enum(['refer', 'forward'], {
        default: 'refer',
        description:
          'replica: refer answers writers with a referral to the master; forward sends their writes on to it and gives its answer.',
      }),
    ),
    forwardAs: Type.Optional(
      Type.Object(
        {
          bindDn: Type.String({ description: 'Identity that the master lets act for others: actsForOthers there, or the right admin.' }),
          bindPassword: SecretSource,
          caFile: Type.Optional(
            Type.String({ description: 'PEM file: CA of the master’s certificate. With an ldap:// URL it asks for StartTLS.' }),
          ),
          timeoutMs: Type.Integer({ default: 10000, minimum: 100, description: 'Time for the master’s answer, milliseconds.' }),
          waitMs: Type.Integer({
            default: 2000,
            minimum: 0,
            maximum: 60000,
            description: 'How long an answer may wait for the change to have come here by replication, milliseconds; 0: not at all.',
          }),
        },
        { additionalProperties: false, description: 'replica: how writes are forwarded.' },
      ),
    ),
    suffix: Type.String({ default: 'o=mail', description: 'Base of the directory tree.' }),
    schemaFiles: Type.Optional(
      Type.Array(Type.String(), {
        maxItems: 200,
        description:
          'Files with further attribute types and object classes: LDIF (attributeTypes, objectClasses, or olcAttributeTypes, olcObjectClasses) or OpenLDAP’s .schema form.',
      }),
    ),
    substringIndexes: Type.Optional(
      Type.Array(Type.String(), {
        maxItems: 50,
        description:
          'Attributes that searches for (attribute=*part*) find by an index; others are looked through. docs/operate/directory.md says what it costs.',
      }),
    ),
    dataDirectory: Type.String({ description: 'Directory on this server’s own disk for the database.' }),
    listeners: Type.Array(
      Type.Object(
        {
          address: Type.String({ default: '127.0.0.1', description: 'Address to listen on.' }),
          port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
          tls: Type.Enum(['implicit', 'starttls', 'none'], {
            default: 'starttls',
            description: 'implicit: ldaps; starttls: ldap with StartTLS on offer.',
          }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1 },
    ),
    tls: Type.Optional(ServerTls),
    clientCaFile: Type.Optional(
      Type.String({
        description: 'PEM file: CA of client certificates. Clients of ldaps listeners may show one and bind by SASL EXTERNAL.',
      }),
    ),
    ldapiPath: Type.Optional(Type.String({ description: 'Path of a Unix socket to listen on as well (ldapi).' })),
    ldapiIdentity: Type.Optional(
      Type.String({
        description:
          'DN of the identity that SASL EXTERNAL on the Unix socket binds as; the socket then takes processes of this server’s user only, and root’s.',
      }),
    ),
    passwordsInClear: Type.Optional(
      Type.Enum(['loopback', 'anywhere'], {
        default: 'loopback',
        description: 'From where binds with a password are taken without TLS; a Unix socket counts as loopback.',
      }),
    ),
    identities: Type.Array(ServiceIdentity, { default: [], description: 'Identities of the installation’s services.' }),
    access: Type.Optional(
      Type.Array(Type.String({ maxLength: 16384 }), {
        maxItems: 400,
        description:
          'Access rules, asked in this order before the built-in ones: "to WHAT by WHO RIGHT ..." as OpenLDAP writes them; docs/operate/directory.md has examples.',
      }),
    ),
    passwordPolicy: Type.Optional(
      Type.Object(
        {
          failuresMax: Type.Integer({
            default: 10,
            minimum: 1,
            maximum: 1000,
            description: 'Failed binds within the window that lock an entry.',
          }),
          windowSeconds: Type.Integer({ default: 900, minimum: 1, description: 'Failures older than this do not count, seconds.' }),
          lockoutSeconds: Type.Integer({
            default: 900,
            minimum: 0,
            description: 'How long a lock lasts, seconds; 0: until pwdAccountLockedTime is deleted.',
          }),
        },
        { additionalProperties: false, description: 'master: locks entries after failed binds. Identities are never locked.' },
      ),
    ),
    scramIterations: Type.Optional(
      Type.Integer({
        minimum: 4096,
        maximum: 1_000_000,
        description:
          'master: keys for SCRAM-SHA-256 log-ins, of so many rounds, are made beside the hash of each new password. Without it none are made.',
      }),
    ),
    backupDirectory: Type.Optional(
      Type.String({ description: 'Directory for copies made while the server runs; without it none are made on request.' }),
    ),
    placement: Type.Enum(['fewest-accounts', 'weighted', 'none'], {
      default: 'fewest-accounts',
      description: 'master: which cluster gets an account that is added without hostServer.',
    }),
    cacheBytesMax: Type.Optional(
      Type.Integer({
        default: 268435456,
        minimum: 1048576,
        description: 'Memory for entries, names and index lists that were read, and for pages of the database file, bytes.',
      }),
    ),
    messageBytesMax: Type.Integer({
      default: 16777216,
      minimum: 65536,
      description: 'Largest LDAP message after bind, bytes; 64 kB before.',
    }),
    connectionsMax: Type.Integer({ default: 20000, minimum: 1, description: 'Connections at a time.' }),
    idleTimeoutMs: Type.Integer({
      default: 3600000,
      minimum: 1000,
      description: 'A connection without any request for so long is closed, milliseconds.',
    }),
  },
  { additionalProperties: false },
);
export type DirectoryConfig = Static<typeof DirectoryConfig>;

/** What no schema says of the options: whether access rules can be read. Their names are looked up at the start, when the schema is at hand. */
export function checkDirectory(service: Readonly<Record<string, unknown>>): Mistake[] {
  const mistakes: Mistake[] = [];
  for (const [index, rule] of (Array.isArray(service.access) ? service.access : []).entries()) {
    if (typeof rule !== 'string') continue;
    try {
      parseRule(rule);
    } catch (error) {
      mistakes.push({ path: ['access', index], atKey: false, message: messageOf(error) });
    }
  }
  if (service.writes === 'forward') {
    const needed = service.mode === 'replica' ? ['master', 'forwardAs'] : ['forwardAs'];
    for (const one of needed) {
      if (service[one] === undefined) mistakes.push({ path: ['writes'], atKey: false, message: `"forward" needs ${one}` });
    }
  }
  return mistakes;
}
