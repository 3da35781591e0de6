/**
 * What holds for the whole cluster: a few named values that the Controller changes and every member reads from shared storage.
 *
 *   `settings set` ─► Controller ─► note `settings-<version>` (created, never changed) ─► version in its pings ─► members read it
 *
 * A version is created only if it is the next one. So of two members that both believe they lead, one finds the number taken, reads what
 * the other wrote and adds its own change to it; no change is lost, and a member's picture is always one version as a whole.
 */
import type { AccountStore } from '#backend-cluster/storage/account-store.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { type ClusterName, clusterOf, type MemberName, parseMemberName } from '#common/host-server.ts';

/** One version of all settings. */
export interface Settings {
  readonly version: number;
  readonly values: Readonly<Record<string, string>>;
}

/** A change: `null` takes a value away. */
export type SettingsChange = Readonly<Record<string, string | null>>;

/** Weight of a member that has none of its own: sessions and accounts are shared out by weight. */
export const weightDefault = 100;
const weightMax = 1_000;
/** What fits into one small record. */
const valuesMax = 512;
const versionsKept = 8;
const triesMax = 16;
const notePrefix = 'settings-';

/** The settings there are: what their name looks like, and what value they take. */
const known: readonly { readonly name: RegExp; readonly takes: string; isWell(value: string): boolean }[] = [
  {
    name: /^member\.(?<member>.+)\.weight$/,
    takes: `a whole number from 1 to ${weightMax}`,
    isWell: (value) => /^\d{1,4}$/.test(value) && Number(value) >= 1 && Number(value) <= weightMax,
  },
  { name: /^member\.(?<member>.+)\.cordoned$/, takes: 'true or false', isWell: (value) => value === 'true' || value === 'false' },
  {
    name: /^accounts\.default-quota-bytes$/,
    takes: 'a whole number of bytes, 0 for none',
    isWell: (value) => /^\d{1,15}$/.test(value),
  },
];

/** Names and what they take, for messages and pages. */
export const settingNames = 'member.MEMBER.weight, member.MEMBER.cordoned, accounts.default-quota-bytes';

/** Checks a change, or throws `ADMIN_BAD_REQUEST`. */
export function checkChange(cluster: ClusterName, change: Readonly<Record<string, unknown>>): SettingsChange {
  for (const [name, value] of Object.entries(change)) {
    const setting = known.find((one) => one.name.test(name));
    if (setting === undefined) throw bad(`there is no setting "${name.slice(0, 100)}"; there are ${settingNames}`);
    const member = setting.name.exec(name)?.groups?.member;
    if (member !== undefined && memberOf(cluster, member) === undefined) throw bad(`${member} is no name of a member of ${cluster}`);
    if (value !== null && (typeof value !== 'string' || !setting.isWell(value))) {
      throw bad(`${name} takes ${setting.takes}, and not "${String(value).slice(0, 100)}"`);
    }
  }
  return change as SettingsChange;
}

/** This member's picture of the settings. */
export class ClusterSettings {
  readonly #notes: AccountStore['notes'];
  #current: Settings = { version: 0, values: {} };
  #reading: Promise<void> | undefined;

  constructor(notes: AccountStore['notes']) {
    this.#notes = notes;
  }

  get current(): Settings {
    return this.#current;
  }

  weightOf(member: MemberName): number {
    return Number(this.#current.values[`member.${member}.weight`] ?? weightDefault);
  }

  isCordoned(member: MemberName): boolean {
    return this.#current.values[`member.${member}.cordoned`] === 'true';
  }

  get defaultQuotaBytes(): number | undefined {
    const text = this.#current.values['accounts.default-quota-bytes'];
    return text === undefined ? undefined : Number(text);
  }

  /** Reads the newest version. Rejects with `STORE_*`; the picture stays what it was then. */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** The Controller said that there is this version. */
  async learn(version: number): Promise<void> {
    if (version > this.#current.version) await this.refresh();
  }

  /** On the Controller. Resolves with the version that has the change in it. */
  async change(change: SettingsChange): Promise<Settings> {
    for (let tries = 0; tries < triesMax; tries += 1) {
      await this.refresh();
      const { version } = this.#current;
      const values: Record<string, string> = { ...this.#current.values };
      for (const [name, value] of Object.entries(change)) {
        if (value === null) delete values[name];
        else values[name] = value;
      }
      if (Object.keys(values).length > valuesMax) throw bad(`a cluster has at most ${valuesMax} settings`);
      const next: Settings = { version: version + 1, values };
      if (!(await this.#notes.create(noteOf(next.version), next))) continue;
      const names = (await this.#notes.names()).filter((name) => name.startsWith(notePrefix));
      if ((names.at(-1) ?? '') > noteOf(next.version + versionsKept)) {
        // This process slept between reading and writing for so long that the number had been given and removed.
        await this.#notes.remove(noteOf(next.version));
        continue;
      }
      this.#adopt(next);
      await Promise.allSettled(names.filter((name) => name < noteOf(next.version - versionsKept)).map((name) => this.#notes.remove(name)));
      return next;
    }
    throw new PlatformError('STORE_UNAVAILABLE', `the settings are changed by others all the time: ${triesMax} tries were in vain`);
  }

  async #read(): Promise<void> {
    const newest = (await this.#notes.names()).filter((name) => name.startsWith(notePrefix)).at(-1);
    if (newest === undefined) return;
    const read = (await this.#notes.read(newest)) as Partial<Settings> | undefined;
    // Removed since it was listed: there are newer ones, and the next ping tells of them.
    if (read === undefined) return;
    if (typeof read.version !== 'number' || typeof read.values !== 'object' || read.values === null) {
      throw new PlatformError('STORE_CORRUPT', `the note ${newest} holds no settings`);
    }
    this.#adopt({ version: read.version, values: read.values });
  }

  #adopt(settings: Settings): void {
    if (settings.version > this.#current.version) this.#current = settings;
  }
}

function noteOf(version: number): string {
  return `${notePrefix}${String(Math.max(0, version)).padStart(12, '0')}`;
}

function memberOf(cluster: ClusterName, text: string): MemberName | undefined {
  try {
    const member = parseMemberName(text);
    return clusterOf(member) === cluster ? member : undefined;
  } catch {
    return undefined;
  }
}

function bad(message: string): PlatformError {
  return new PlatformError('ADMIN_BAD_REQUEST', message);
}
