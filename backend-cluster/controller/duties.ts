/**
 * Who carries out requests to the outside world for the cluster: the Guide's Service Processing settings of HTTP Client and Remote Polling.
 * Pure but for what one member was told last.
 *
 *   each member ── its settings, in answers to pings ──► Controller ── who runs for others, in its pings ──► each member
 *
 * A member set to Locally for Others runs the requests of all; Remotely hands its own to such a one; Auto, for a backend, is Remotely when
 * another member is set to Locally for Others, and Locally when there is none. What the Controller told stays in force while there is no
 * Controller: it is advice of whom to ask first, and nothing is lost when it is old. Frontends are no members here, so that Auto has no
 * meaning for them. Source: Guide, "Service Processing".
 */
import { type MemberName, parseMemberName } from '#common/host-server.ts';

/** The services that can be run for others. */
export type DutyService = 'httpClient' | 'remotePolling';

/** Values of a setting, as they are written in the configuration. */
const dutySettings = ['locally', 'locally-for-others', 'remotely', 'auto'] as const;
export type DutySetting = (typeof dutySettings)[number];

/** One member's settings. */
export type DutySettings = Readonly<Record<DutyService, DutySetting>>;

/** Members that run a service for others, by name. */
export type DutyRunners = Readonly<Record<DutyService, readonly MemberName[]>>;

/** Most runners of a service that are believed; more than a cluster has members. */
const runnersMax = 256;

const noRunners: DutyRunners = { httpClient: [], remotePolling: [] };

/** What the Controller distributes: the active members that are set to Locally for Others. */
export function collectRunners(
  members: Iterable<{ readonly name: MemberName; readonly state: string; readonly duties: DutySettings }>,
): DutyRunners {
  // A cordoned member takes no more accounts; it is as active as any other.
  const active = [...members].filter((member) => member.state === 'active' || member.state === 'cordoned');
  return byService((service) =>
    active
      .filter((member) => member.duties[service] === 'locally-for-others')
      .map((member) => member.name)
      .sort(),
  );
}

/** What a setting comes to on the member `self`: Auto is decided by whether another member runs for others. */
export function effectiveSetting(setting: DutySetting, self: MemberName, runners: readonly MemberName[]): Exclude<DutySetting, 'auto'> {
  if (setting !== 'auto') return setting;
  return runners.some((member) => member !== self) ? 'remotely' : 'locally';
}

/** Settings as another member, perhaps of another release, tells them. What is not understood counts as Auto. */
export function readSettings(told: unknown): DutySettings {
  const fields = (typeof told === 'object' && told !== null ? told : {}) as Record<string, unknown>;
  return byService((service) => dutySettings.find((setting) => setting === fields[service]) ?? 'auto');
}

/** Runners as the Controller tells them; `undefined` when it told none. Names that are none are left out. */
export function readRunners(told: unknown): DutyRunners | undefined {
  if (typeof told !== 'object' || told === null) return undefined;
  const fields = told as Record<string, unknown>;
  return byService((service) => {
    const names = fields[service];
    return Array.isArray(names) ? names.slice(0, runnersMax).flatMap(toName) : [];
  });
}

/** One member's picture: its settings, and whom the Controller named last. */
export class Duties {
  readonly settings: DutySettings;
  readonly #self: MemberName;
  #runners: DutyRunners = noRunners;

  constructor(self: MemberName, settings: DutySettings) {
    this.#self = self;
    this.settings = settings;
  }

  get runners(): DutyRunners {
    return this.#runners;
  }

  /** The Controller has spoken; this member may be it. */
  learn(runners: DutyRunners): void {
    this.#runners = runners;
  }

  status(): Record<DutyService, { setting: DutySetting; effective: Exclude<DutySetting, 'auto'>; runners: readonly MemberName[] }> {
    return byService((service) => {
      const setting = this.settings[service];
      const runners = this.#runners[service];
      return { setting, effective: effectiveSetting(setting, this.#self, runners), runners };
    });
  }
}

function byService<T>(make: (service: DutyService) => T): Record<DutyService, T> {
  return { httpClient: make('httpClient'), remotePolling: make('remotePolling') };
}

function toName(told: unknown): MemberName[] {
  try {
    return typeof told === 'string' ? [parseMemberName(told)] : [];
  } catch {
    return [];
  }
}
