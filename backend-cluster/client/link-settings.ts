/**
 * How many connections the link to a member has, for which service, and how much of them is logged. Services share connections; one that has a limit
 * of its own has connections of its own, so that its sessions neither wait behind others nor take their place.
 */
import { linkDefaults } from '#common/config/options.ts';
import type { LogLevel } from '#common/log/logger.ts';
import { authenticateLoginMethod, authenticateMethod, type LinkService } from '#protocol/link/messages.ts';

/** What goes over the link: sessions by their service, and calls, of which those that judge a submission client stand by themselves. */
export type CarriedService = LinkService | 'submission' | 'calls';

/** Limits of one cache of connections to one member. */
export interface CacheLimits {
  readonly connectionsMax: number;
  /** Beyond it another connection is dialled. */
  readonly sessionsPerConnection: number;
  /** 0: for good. */
  readonly unusedKeptMs: number;
}

/** The whole of it. */
export interface LinkSettings {
  readonly shared: CacheLimits;
  /** Of services with connections of their own. */
  readonly own: Readonly<Partial<Record<CarriedService, CacheLimits>>>;
  /** Where they differ from the process's. */
  readonly logLevels: Readonly<Partial<Record<CarriedService | 'shared', LogLevel>>>;
}

/** Limits and level as a configuration gives them. */
export type CacheOptions = { readonly [K in keyof CacheLimits]?: number } & { readonly logLevel?: LogLevel };

/** `interCluster` of a node file. */
export type InterClusterConfig = CacheOptions & { readonly [S in CarriedService]?: CacheOptions };

const services: Readonly<Record<CarriedService, true>> = {
  imap: true,
  pop3: true,
  managesieve: true,
  lmtp: true,
  deliver: true,
  export: true,
  import: true,
  submission: true,
  calls: true,
};

/** Settings from options; what they do not say is as it is without any. */
export function linkSettingsOf(config: InterClusterConfig = {}): LinkSettings {
  const shared = limitsOf(config, linkDefaults);
  const own: Partial<Record<CarriedService, CacheLimits>> = {};
  const logLevels: Partial<Record<CarriedService | 'shared', LogLevel>> = {};
  if (config.logLevel !== undefined) logLevels.shared = config.logLevel;
  for (const service of Object.keys(services) as CarriedService[]) {
    const options = config[service];
    if (options === undefined) continue;
    const { logLevel, ...limits } = options;
    if (Object.values(limits).some((limit) => limit !== undefined)) own[service] = limitsOf(limits, shared);
    if (logLevel !== undefined) logLevels[service] = logLevel;
  }
  return { shared, own, logLevels };
}

/** Which service a call counts for. */
export function serviceOfCall(method: string): CarriedService {
  return method === authenticateMethod || method === authenticateLoginMethod ? 'submission' : 'calls';
}

function limitsOf(given: CacheOptions, otherwise: CacheLimits): CacheLimits {
  return {
    connectionsMax: given.connectionsMax ?? otherwise.connectionsMax,
    sessionsPerConnection: given.sessionsPerConnection ?? otherwise.sessionsPerConnection,
    unusedKeptMs: given.unusedKeptMs ?? otherwise.unusedKeptMs,
  };
}
