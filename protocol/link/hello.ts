/**
 * The first words on a link connection: who speaks, and which versions it understands. Both sides name the range of versions they
 * speak; the highest common one is used, so that servers of release N and N-1 work side by side during an upgrade.
 */
import { PlatformError } from '#common/errors/platform-error.ts';
import { linkVersion } from '#protocol/link/messages.ts';

/** Roles a server may dial with. `operate` is the admin API. */
export const linkRoles = ['frontend', 'backend-cluster', 'directory', 'operate'] as const;
export type LinkRole = (typeof linkRoles)[number];

/** What a server says of itself. */
export interface Hello {
  readonly magic: typeof linkMagic;
  readonly versionMin: number;
  readonly versionMax: number;
  readonly role: LinkRole;
  readonly name: string;
  /** Members: their cluster. */
  readonly cluster?: string;
  /** Random at each start of the process: tells a restarted server from the one before. */
  readonly incarnation: string;
}

/** How busy a member is, and whether it takes new accounts; sent with every answer to a ping and whenever `state` changes. */
export interface LinkStatus {
  readonly sessions: number;
  readonly openAccounts: number;
  readonly state: 'active' | 'draining';
  /** Share of the load that it is to have, 100 unless said otherwise. Since version 2. */
  readonly weight?: number;
}

/** Marks the protocol, so that a stray client of another kind is recognised at once. */
export const linkMagic = 'archipelago-link';
/** Oldest version that this release still speaks. */
export const linkVersionMin = 1;

/** The certificate name (SAN, URI) that gives its holder a role on the link. */
export function roleUri(role: LinkRole): string {
  return `urn:archipelago:role:${role}`;
}

/** This server's hello. */
export function helloOf(self: {
  role: LinkRole;
  name: string;
  cluster?: string | undefined;
  incarnation: string;
  /** Lower than this release's in a cluster that is being upgraded, and in tests. */
  linkVersionMax?: number | undefined;
}): Hello {
  return {
    magic: linkMagic,
    versionMin: linkVersionMin,
    versionMax: self.linkVersionMax ?? linkVersion,
    role: self.role,
    name: self.name,
    ...(self.cluster === undefined ? {} : { cluster: self.cluster }),
    incarnation: self.incarnation,
  };
}

/** Checks a peer's hello, or throws `LINK_PROTOCOL`. */
export function parseHello(value: Record<string, unknown>): Hello {
  const { magic, versionMin, versionMax, role, name, cluster, incarnation } = value;
  if (magic !== linkMagic) throw new PlatformError('LINK_PROTOCOL', 'the peer does not speak the link protocol');
  if (
    !Number.isInteger(versionMin) ||
    !Number.isInteger(versionMax) ||
    !linkRoles.includes(role as LinkRole) ||
    !isShortText(name) ||
    !isShortText(incarnation) ||
    !(cluster === undefined || isShortText(cluster))
  ) {
    throw new PlatformError('LINK_PROTOCOL', 'the peer’s hello is malformed');
  }
  return value as unknown as Hello;
}

/** Highest version that both sides speak, or `undefined`. */
export function commonVersion(mine: Hello, theirs: Hello): number | undefined {
  const highest = Math.min(mine.versionMax, theirs.versionMax);
  return highest >= Math.max(mine.versionMin, theirs.versionMin) ? highest : undefined;
}

/** Checks a status, or throws `LINK_PROTOCOL`. */
export function parseLinkStatus(value: Record<string, unknown>): LinkStatus {
  const { sessions, openAccounts, state, weight } = value;
  if (!isCount(sessions) || !isCount(openAccounts) || (state !== 'active' && state !== 'draining')) {
    throw new PlatformError('LINK_PROTOCOL', 'the peer’s status is malformed');
  }
  return { sessions, openAccounts, state, ...(isCount(weight) && weight > 0 ? { weight } : {}) };
}

function isShortText(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= 255;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
