/** Options of the replication service. */
import type { Static } from 'typebox';
import { Type } from '#common/config/declare.ts';
import { SecretSource } from '#common/config/options.ts';

const Server = {
  url: Type.String({ description: 'ldap:// or ldaps:// URL.' }),
  bindDn: Type.String({ description: 'Identity there, e.g. cn=replicator,ou=services,o=mail.' }),
  bindPassword: SecretSource,
  caFile: Type.Optional(Type.String({ description: 'PEM file: CA of the server’s certificate.' })),
};

/** The replication service: one master, any number of replicas. */
export const ReplicationConfig = Type.Object(
  {
    role: Type.Literal('replication'),
    name: Type.String({ description: 'Full name of this server, e.g. replication.isp.example.' }),
    suffix: Type.String({ default: 'o=mail', description: 'Base of the tree that is replicated.' }),
    master: Type.Object(
      {
        name: Type.Optional(Type.String({ description: 'How it is called when another server has become the master. Default: its URL.' })),
        ...Server,
      },
      { additionalProperties: false, description: 'The master at the first start. After a promotion it is fed like a replica.' },
    ),
    replicas: Type.Array(
      Type.Object(
        {
          name: Type.String({ description: 'e.g. ldap-eu.isp.example' }),
          ...Server,
          filter: Type.Optional(
            Type.String({ description: 'Accounts that this replica is given, e.g. (mailRegion=eu); other entries all go along.' }),
          ),
          attributes: Type.Optional(
            Type.Array(Type.String(), { description: 'Attributes that it is given; object classes and names always are. Default: all.' }),
          ),
          excludeAttributes: Type.Optional(
            Type.Array(Type.String(), { description: 'Attributes that it is not given, e.g. userPassword; its own are left alone.' }),
          ),
        },
        { additionalProperties: false },
      ),
      { minItems: 1 },
    ),
    stateDirectory: Type.String({ description: 'Directory on this server’s own disk for checkpoints.' }),
    leaseMs: Type.Optional(
      Type.Integer({
        minimum: 500,
        maximum: 300000,
        description:
          'Give it where two or more replication services have the same replicas: each replica is written by the one that holds its lease, and another takes over when that has been silent for so long, milliseconds, e.g. 6000. The checkpoint is then kept at the replica.',
      }),
    ),
    refreshDeletesMaxPercent: Type.Number({
      default: 10,
      minimum: 0,
      maximum: 100,
      description: 'A refresh that would delete more than this share of a replica stops and asks.',
    }),
    verifySchedule: Type.String({
      default: '17 3 * * *',
      description: 'cron expression, UTC: when replicas are compared with the master.',
    }),
    verifyContinuously: Type.Optional(
      Type.Integer({
        default: 20,
        minimum: 0,
        maximum: 10_000,
        description:
          'Beside the schedule, replicas are compared with the master all the time, one replica after the other, so many entries a second; 0 is never.',
      }),
    ),
    differences: Type.Optional(
      Type.Enum(['report', 'repair'], {
        description:
          'What a comparison by the schedule, or the one that goes on all the time, does with entries changed at a replica by hand: report (default), or make them the master’s.',
      }),
    ),
  },
  { additionalProperties: false },
);
export type ReplicationConfig = Static<typeof ReplicationConfig>;
