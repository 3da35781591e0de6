/**
 * The node file: what one process runs.
 *
 * One YAML file names any set of services (frontend, cluster member, directory server, replication) and, if wanted, the admin API of
 * this process. All mistakes are reported together, each with its place; nothing starts from a file with a mistake in it.
 *
 *     text ── yaml-source ──► data ── schema-check ──► defaults filled in ── relations ──► paths made absolute
 *                 │                        │                                    │
 *                 └────────────────────────┴── problems: file, line, column ◄───┘
 *
 * The services' own options are declared in their rooms' config.ts; this room may not import them, so the caller brings the schemas.
 */
import { dirname, resolve } from 'node:path';
import type { Static, TSchema } from 'typebox';
import { Type } from '#common/config/declare.ts';
import { DirectoryAccess, LinkTls, LogLevelName, ServerTls } from '#common/config/options.ts';
import { checkRelations } from '#common/config/relations.ts';
import { checkAgainst, type Mistake, pathText, shown, suggestion } from '#common/config/schema-check.ts';
import { parseYaml } from '#common/config/yaml-source.ts';

/** Another process whose admin API is asked when the whole installation is shown. */
export const AdminPeer = Type.Object(
  {
    name: Type.String({ description: 'Name shown for it, e.g. east-1.' }),
    url: Type.String({ description: 'http:// or https:// URL of its admin API.' }),
    caFile: Type.Optional(Type.String({ description: 'PEM file: CA of its certificate.' })),
  },
  { additionalProperties: false },
);
export type AdminPeer = Static<typeof AdminPeer>;

/** The admin API and console of this process. */
export const AdminConfig = Type.Object(
  {
    name: Type.Optional(
      Type.String({ description: 'Name of its own, as in the certificate of its link; default: the name of the first service.' }),
    ),
    address: Type.String({ default: '127.0.0.1', description: 'Address to listen on; other than loopback it needs tls.' }),
    port: Type.Integer({ minimum: 0, maximum: 65535, description: 'Port; 0 lets the system choose.' }),
    tls: Type.Optional(ServerTls),
    tokenFile: Type.String({ description: 'File whose first line is the token of the API and the password of the console.' }),
    directory: Type.Optional(DirectoryAccess),
    link: Type.Optional(LinkTls),
    peers: Type.Array(AdminPeer, {
      default: [],
      description: 'Processes that are asked too when the whole installation is shown; they take the same token.',
    }),
  },
  { additionalProperties: false, description: 'Admin API, metrics and console of this process; without it there are none.' },
);
export type AdminConfig = Static<typeof AdminConfig>;

/** What goes to the log, and where. */
export const LogConfig = Type.Object(
  {
    level: LogLevelName,
    file: Type.Optional(Type.String({ description: 'File to append to; default: standard error.' })),
  },
  { additionalProperties: false, default: {}, description: 'What goes to the log, and where.' },
);
export type LogConfig = Static<typeof LogConfig>;

/** The node file without what its services declare. */
export const NodeFile = Type.Object(
  {
    data: Type.Optional(Type.String({ description: 'Directory that this node keeps its state below; made when missing.' })),
    log: LogConfig,
    admin: Type.Optional(AdminConfig),
    services: Type.Array(Type.Unknown(), { minItems: 1, description: 'Services of this process; each names its role.' }),
  },
  { additionalProperties: false },
);

/** A node file whose services are of type `Service`. */
export type NodeFile<Service = unknown> = Omit<Static<typeof NodeFile>, 'services'> & { readonly services: readonly Service[] };

/** A mistake in a node file. Line and column count from 1. */
export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** `services[0].listen.port`; empty for the file as a whole. */
  readonly path: string;
  readonly message: string;
}

/** Schemas of the services, by role. */
export type ServiceSchemas = Readonly<Record<string, TSchema>>;

/** What a role checks beyond its schema, in options that may be of any type yet; paths count from the service. */
export type ServiceChecks = Readonly<Record<string, (service: Readonly<Record<string, unknown>>) => Mistake[]>>;

/** Outcome of loading: the checked file, or everything that is wrong with it. */
export type LoadedNodeFile<Service> = { readonly config: NodeFile<Service> } | { readonly problems: readonly Problem[] };

/** Longest node file, characters. */
export const nodeFileCharactersMax = 1_048_576;

/**
 * Reads a node file's text. Relative paths in it become absolute, counted from the file's own directory.
 *
 * @param path where the text came from; used in messages and as the base of relative paths
 */
export function loadNodeFile<Schemas extends ServiceSchemas>(
  path: string,
  text: string,
  serviceSchemas: Schemas,
  serviceChecks: ServiceChecks = {},
): LoadedNodeFile<Static<Schemas[keyof Schemas]>> {
  if (text.length > nodeFileCharactersMax) {
    const message = `the file has ${text.length} characters; at most ${nodeFileCharactersMax} are read`;
    return { problems: [{ file: path, line: 1, column: 1, path: '', message }] };
  }
  const source = parseYaml(text);
  if (source.mistakes.length > 0) {
    return { problems: source.mistakes.map(({ line, column, message }) => ({ file: path, line, column, path: '', message })) };
  }
  const mistakes = check(source.data, serviceSchemas, serviceChecks);
  if (mistakes.length > 0) {
    const problems = mistakes.map((mistake): Problem => {
      const position = mistake.atKey ? source.keyAt(mistake.path) : source.valueAt(mistake.path);
      return { file: path, ...position, path: pathText(mistake.path), message: mistake.message };
    });
    return { problems: problems.sort((a, b) => a.line - b.line || a.column - b.column) };
  }
  return { config: withAbsolutePaths(source.data, dirname(resolve(path))) as NodeFile<Static<Schemas[keyof Schemas]>> };
}

/** `fe.yaml:6:40  services[0].listeners[0].tls: "implict" is not one of ...` */
export function problemText(problem: Problem): string {
  return `${problem.file}:${problem.line}:${problem.column}  ${problem.path === '' ? '' : `${problem.path}: `}${problem.message}`;
}

function check(data: unknown, serviceSchemas: ServiceSchemas, serviceChecks: ServiceChecks): Mistake[] {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    return [{ path: [], atKey: false, message: `${shown(data ?? undefined)} where the keys data, log, admin, services are expected` }];
  }
  const mistakes = checkAgainst(NodeFile, data);
  const services = (data as { services?: unknown }).services;
  if (Array.isArray(services)) {
    for (const [index, service] of services.entries()) mistakes.push(...checkService(service, index, serviceSchemas, serviceChecks));
  }
  // Relations are looked at even when something else is wrong: all mistakes at once. They pass over what is missing or of a wrong type.
  return [...mistakes, ...checkRelations(data as Record<string, unknown>)];
}

function checkService(service: unknown, index: number, schemas: ServiceSchemas, checks: ServiceChecks): Mistake[] {
  const path = ['services', index];
  if (typeof service !== 'object' || service === null || Array.isArray(service)) {
    return [{ path, atKey: false, message: `${shown(service ?? undefined)} where the keys of a service are expected` }];
  }
  const roles = Object.keys(schemas);
  const role = (service as { role?: unknown }).role;
  if (role === undefined) return [{ path: [...path, 'role'], atKey: true, message: `is missing: one of ${roles.join('|')}` }];
  const schema = typeof role === 'string' && Object.hasOwn(schemas, role) ? schemas[role] : undefined;
  if (schema === undefined) {
    return [
      {
        path: [...path, 'role'],
        atKey: false,
        message: `${shown(role)} is not one of ${roles.join('|')}${suggestion(String(role), roles)}`,
      },
    ];
  }
  const more = checks[role as string]?.(service as Readonly<Record<string, unknown>>) ?? [];
  return [...checkAgainst(schema, service, path), ...more.map((mistake) => ({ ...mistake, path: [...path, ...mistake.path] }))];
}

/** Options that name a file or directory, in every room, and options that list files. */
const isPathListKey = (key: string): boolean => /Files$/.test(key);
const isPathKey = (key: string): boolean => /(?:File|Directory)$/.test(key) || key === 'file' || key === 'path' || key === 'data';

function withAbsolutePaths(value: unknown, base: string): unknown {
  if (Array.isArray(value)) return value.map((item) => withAbsolutePaths(item, base));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      typeof item === 'string' && isPathKey(key)
        ? resolve(base, item)
        : Array.isArray(item) && isPathListKey(key)
          ? item.map((path) => resolve(base, String(path)))
          : withAbsolutePaths(item, base),
    ]),
  );
}
