/**
 * Settings that all frontends of a subset have in common: an operator sets them once, in the subset's entry in the directory, and every frontend takes
 * them at once, as it takes routes. What a node file says of its own comes first.
 *
 *   node file  ►  `imap.perAddressMax 200` of the entry  ►  `perAddressMax 50` of the entry  ►  what holds otherwise
 *
 * What always holds: a value that is none is refused and named, and the last good one of that setting stays; the others of the entry are taken. An entry
 * that is not there says nothing.
 */
import type { TSchema } from 'typebox';
import { type CacheOptions, type InterClusterConfig, type LinkSettings, linkSettingsOf } from '#backend-cluster/client/link-settings.ts';
import { printable, tryParseDomainName } from '#common/account-name.ts';
import { nearestName } from '#common/config/nearest.ts';
import { checkAgainst } from '#common/config/schema-check.ts';
import type { SubsetRecord } from '#directory/client/records.ts';
import type { FrontendSettings } from '#frontend/client/status.ts';
import { FrontendConfig, FrontendListener, InterClusterOptions, RoutingOptions } from '#frontend/config.ts';

/** Lines of one entry that are looked at. */
const linesMax = 200;

const frontendSettings = {
  weight: FrontendConfig.properties.weight,
  loginTimeoutMs: FrontendConfig.properties.loginTimeoutMs,
  messageBytesMax: FrontendConfig.properties.messageBytesMax,
  drainMs: FrontendConfig.properties.drainMs,
  'routing.masterPerSecond': RoutingOptions.properties.masterPerSecond,
} as const;
const listenerSettings = {
  perAddressMax: FrontendListener.properties.perAddressMax,
  perPrefixMax: FrontendListener.properties.perPrefixMax,
  acceptPerSecond: FrontendListener.properties.acceptPerSecond,
  connectionsMax: FrontendListener.properties.connectionsMax,
} as const;
const linkSettings = {
  connectionsMax: InterClusterOptions.properties.connectionsMax,
  sessionsPerConnection: InterClusterOptions.properties.sessionsPerConnection,
  unusedKeptMs: InterClusterOptions.properties.unusedKeptMs,
} as const;
const linkSettingNames = Object.keys(linkSettings) as LinkSettingName[];
const linkServices = (Object.keys(InterClusterOptions.properties) as (keyof InterClusterOptions)[]).filter(
  (name): name is LinkServiceName => !(name in linkSettings) && name !== 'logLevel',
);
type LinkSettingName = keyof typeof linkSettings;
type LinkServiceName = Exclude<keyof InterClusterOptions, LinkSettingName | 'logLevel'>;
type FrontendSettingName = keyof typeof frontendSettings;
type ListenerSettingName = keyof typeof listenerSettings;

/** Limits of one listener. */
export type ListenerLimits = Readonly<Record<ListenerSettingName, number>>;

const protocols = FrontendListener.properties.protocol.enum as readonly string[];
const schemas: ReadonlyMap<string, TSchema> = new Map<string, TSchema>([
  ...Object.entries(frontendSettings),
  ...Object.entries(listenerSettings),
  ...['interCluster', ...linkServices.map((service) => `interCluster.${service}`)].flatMap((prefix) =>
    Object.entries(linkSettings).map(([name, schema]): [string, TSchema] => [`${prefix}.${name}`, schema]),
  ),
  ...protocols.flatMap((protocol) =>
    Object.entries(listenerSettings).map(([name, schema]): [string, TSchema] => [`${protocol}.${name}`, schema]),
  ),
]);

type Origin = FrontendSettings['settings'][number]['origin'];

/** Another frontend of the subset, and where it can be told of penalties. */
export interface SubsetPeer {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** What settings are of. */
export interface SettingsOptions {
  readonly config: FrontendConfig;
  /** Processes that a pace is shared out to. */
  readonly processes?: number | undefined;
}

/** Limits as the node file and the product say. */
export function limitsOf(listener: FrontendListener): ListenerLimits {
  return limitsWith((name) => listener[name] ?? otherwise(listenerSettings[name]));
}

/** See the header of this file. */
export class Settings {
  readonly #config: FrontendConfig;
  readonly #processes: number;
  #entry: SubsetRecord | undefined;
  /** By name, as the entry has them. */
  #taken: ReadonlyMap<string, number> = new Map();
  #refused: FrontendSettings['refused'] = [];
  #peers: readonly SubsetPeer[] = [];
  /** Asked for by every client that connects. */
  #loginTimeoutMs: number;

  constructor({ config, processes = 1 }: SettingsOptions) {
    this.#config = config;
    this.#processes = processes;
    this.#loginTimeoutMs = this.#value('loginTimeoutMs').value;
  }

  /** Takes what the directory says of this subset now, and returns what of it is refused anew. */
  take(records: Iterable<SubsetRecord>): FrontendSettings['refused'] {
    const subset = this.#config.subset.toLowerCase();
    const found = [...records].filter(({ name }) => name === subset);
    // Of two entries of one name the one that has been believed so far is.
    const entry = found.find(({ uuid }) => uuid === this.#entry?.uuid) ?? found.sort((a, b) => (a.dn < b.dn ? -1 : 1))[0];
    const refused: FrontendSettings['refused'][number][] = found
      .filter((other) => other !== entry)
      .map(({ dn }) => ({
        entry: dn,
        seen: `cn ${subset}`,
        expected: `one entry of that name is expected; ${entry?.dn} is believed`,
        stays: undefined,
      }));
    this.#taken = entry === undefined ? new Map() : this.#read(entry, refused);
    this.#peers = this.#readPeers(entry, refused);
    this.#entry = entry;
    this.#loginTimeoutMs = this.#value('loginTimeoutMs').value;
    const known = new Set(this.#refused.map(keyOf));
    this.#refused = refused;
    return refused.filter((one) => !known.has(keyOf(one)));
  }

  /** Frontends of the subset; this one may be among them. */
  get peers(): readonly SubsetPeer[] {
    return this.#peers;
  }

  get loginTimeoutMs(): number {
    return this.#loginTimeoutMs;
  }

  get messageBytesMax(): number {
    return this.#value('messageBytesMax').value;
  }

  get drainMs(): number {
    return this.#value('drainMs').value;
  }

  get weight(): number {
    return this.#value('weight').value;
  }

  /** Of this process. */
  get masterPerSecond(): number {
    return this.#share(this.#value('routing.masterPerSecond').value);
  }

  /** Connections to members. A service for which nothing is said shares those that all have. */
  links(): LinkSettings {
    const own = this.#config.interCluster ?? {};
    const merged: Record<string, CacheOptions> = {};
    for (const service of linkServices) {
      const limits = Object.fromEntries(this.#linkLimits(service).map(({ name, value }) => [name, value]));
      merged[service] = { ...own[service], ...limits };
    }
    const shared = Object.fromEntries(linkSettingNames.map((name) => [name, this.#linkLimit(name).value]));
    return linkSettingsOf({ ...own, ...shared, ...merged } as InterClusterConfig);
  }

  /** Of this process. */
  limits(listener: FrontendListener): ListenerLimits {
    const limits = limitsWith((name) => this.#limit(listener, name).value);
    // Mail is the first process's alone.
    const isShared = listener.protocol === 'imap' || listener.protocol === 'pop3' || listener.protocol === 'managesieve';
    return isShared ? { ...limits, acceptPerSecond: this.#share(limits.acceptPerSecond) } : limits;
  }

  /** All of them, with where each value comes from. */
  report(): FrontendSettings {
    const { name, subset, listeners } = this.#config;
    const ofFrontend = (Object.keys(frontendSettings) as FrontendSettingName[]).map((setting) => ({ setting, ...this.#value(setting) }));
    const ofListeners = listeners.flatMap((listener) =>
      (Object.keys(listenerSettings) as ListenerSettingName[]).map((limit) => ({
        setting: `${listener.protocol}:${listener.port} ${limit}`,
        ...this.#limit(listener, limit),
      })),
    );
    const ofLinks = [
      ...linkSettingNames.map((limit) => ({ setting: `interCluster.${limit}`, ...this.#linkLimit(limit) })),
      ...linkServices.flatMap((service) =>
        this.#linkLimits(service).map(({ name: limit, ...found }) => ({ setting: `interCluster.${service}.${limit}`, ...found })),
      ),
    ];
    const settings = [...ofFrontend, ...ofListeners, ...ofLinks];
    return { frontend: name, subset, entry: this.#entry?.dn, settings, refused: this.#refused };
  }

  #value(name: FrontendSettingName): { value: number; origin: Origin } {
    const own = name === 'routing.masterPerSecond' ? this.#config.routing.masterPerSecond : this.#config[name];
    return this.#chosen(own, [name], frontendSettings[name]);
  }

  #limit(listener: FrontendListener, name: ListenerSettingName): { value: number; origin: Origin } {
    return this.#chosen(listener[name], [`${listener.protocol}.${name}`, name], listenerSettings[name]);
  }

  #linkLimit(name: LinkSettingName): { value: number; origin: Origin } {
    return this.#chosen(this.#config.interCluster?.[name], [`interCluster.${name}`], linkSettings[name]);
  }

  /** Those that are said of the service. */
  #linkLimits(service: LinkServiceName): { name: LinkSettingName; value: number; origin: Origin }[] {
    return linkSettingNames.flatMap((name): { name: LinkSettingName; value: number; origin: Origin }[] => {
      const own = this.#config.interCluster?.[service]?.[name];
      const taken = this.#taken.get(`interCluster.${service}.${name}`);
      if (own !== undefined) return [{ name, value: own, origin: 'node file' }];
      return taken === undefined ? [] : [{ name, value: taken, origin: 'subset' }];
    });
  }

  #chosen(own: number | undefined, names: readonly string[], schema: TSchema): { value: number; origin: Origin } {
    if (own !== undefined) return { value: own, origin: 'node file' };
    for (const name of names) {
      const value = this.#taken.get(name);
      if (value !== undefined) return { value, origin: 'subset' };
    }
    return { value: otherwise(schema), origin: 'default' };
  }

  #readPeers(entry: SubsetRecord | undefined, refused: FrontendSettings['refused'][number][]): readonly SubsetPeer[] {
    const own = this.#config.sharing?.peers;
    const found = new Map<string, SubsetPeer>();
    for (const line of (own ?? entry?.frontends ?? []).slice(0, linesMax)) {
      const peer = parsePeer(line);
      if (peer !== undefined) {
        found.set(peer.name, peer);
        continue;
      }
      const known = this.#peers.find(({ name }) => name === line.trim().split(/\s/, 1)[0]?.toLowerCase());
      if (known !== undefined) found.set(known.name, known);
      const expected = 'the full name, a space and host:port are expected, as in "front1.eu.isp.example 192.0.2.1:7410"';
      refused.push({
        entry: own === undefined ? (entry?.dn ?? '') : 'node file',
        seen: printable(line.slice(0, 200)),
        expected,
        stays: undefined,
      });
    }
    return [...found.values()];
  }

  #share(perSecond: number): number {
    return Math.ceil(perSecond / this.#processes);
  }

  #read({ dn, settings }: SubsetRecord, refused: FrontendSettings['refused'][number][]): ReadonlyMap<string, number> {
    const taken = new Map<string, number>();
    const twice = new Set<string>();
    const refuse = (name: string, seen: string, expected: string): void => {
      const stays = this.#taken.get(name);
      if (stays === undefined) taken.delete(name);
      else taken.set(name, stays);
      refused.push({ entry: dn, seen: printable(seen.slice(0, 200)), expected, stays });
    };
    if (settings.length > linesMax)
      refuse('', `${settings.length} values of frontendSetting`, `at most ${linesMax} are expected; the rest is not read`);
    for (const line of settings.slice(0, linesMax)) {
      const [, given = '', text = ''] = /^\s*(\S+)\s+(.*\S)\s*$/s.exec(line) ?? [];
      const name = namesByFold.get(given.toLowerCase());
      const schema = name === undefined ? undefined : schemas.get(name);
      if (name === undefined || schema === undefined) {
        const nearest = nearestName(given, [...schemas.keys()]);
        const meant = nearest === undefined ? '' : `; did you mean ${nearest}?`;
        refuse(
          '',
          line,
          given === '' ? 'a name, a space and a value are expected, as in "perAddressMax 50"' : `the name of a setting is expected${meant}`,
        );
        continue;
      }
      const value = /^-?\d{1,15}$/.test(text) ? Number(text) : text;
      const [mistake] = checkAgainst(schema, value);
      if (mistake !== undefined) refuse(name, line, mistake.message);
      else if (twice.has(name)) refuse(name, line, `${name} is expected once; it has another value as well`);
      else taken.set(name, value as number);
      twice.add(name);
    }
    return taken;
  }
}

function parsePeer(line: string): SubsetPeer | undefined {
  const [, given = '', host = '', port = ''] = /^\s*(\S+)\s+(\[[0-9a-fA-F:.]+\]|[^\s:]+):(\d{1,5})\s*$/.exec(line) ?? [];
  const name = tryParseDomainName(given);
  if (name === undefined || Number(port) < 1 || Number(port) > 65_535) return undefined;
  return { name, host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
}

const namesByFold = new Map([...schemas.keys()].map((name) => [name.toLowerCase(), name]));

function otherwise(schema: TSchema): number {
  return (schema as TSchema & { readonly otherwise: number }).otherwise;
}

function limitsWith(value: (name: ListenerSettingName) => number): ListenerLimits {
  return {
    perAddressMax: value('perAddressMax'),
    perPrefixMax: value('perPrefixMax'),
    acceptPerSecond: value('acceptPerSecond'),
    connectionsMax: value('connectionsMax'),
  };
}

function keyOf({ entry, seen, expected }: FrontendSettings['refused'][number]): string {
  return `${entry}\0${seen}\0${expected}`;
}
