/** What a frontend reports of itself; plain JSON. */

import type { LinkUse } from '#backend-cluster/client/status.ts';

/** One frontend's whole picture. */
export interface FrontendStatus {
  readonly role: 'frontend';
  readonly name: string;
  readonly subset: string;
  readonly region: string | undefined;
  /** leaving: another process has taken over, and this one serves its sessions to their end. */
  readonly state: 'starting' | 'ready' | 'draining' | 'leaving';
  /** Whether the load balancer is told to send clients here, and how many. */
  readonly withdrawal: {
    readonly state: 'serving' | 'cordoned' | 'draining' | 'drained';
    /** Percent, while serving. */
    readonly weight: number;
    readonly drain:
      | { readonly connectionsAtStart: number; readonly connectionsLeft: number; readonly perSecond: number; readonly leftMs: number }
      | undefined;
  };
  readonly listeners: readonly {
    readonly protocol: string;
    readonly tls: string;
    readonly address: string;
    readonly port: number;
    readonly sessions: number;
  }[];
  readonly routes: {
    readonly accounts: number;
    readonly domains: number;
    readonly clusters: number;
    readonly server: string;
    /** following, or frozen: the directory is silent and routes stay as they were. */
    readonly state: string;
    readonly silentMs: number;
    readonly addresses: number;
    /** Memory of the route index. */
    readonly bytes: number;
    /** Removed accounts of which an address may still be in the index; each costs one question at its next use. */
    readonly leftovers: number;
    /** Routes kept that were found by look-up. */
    readonly cached: number;
    /** Age of the snapshot on disk; `undefined` when there is none. */
    readonly snapshotAgeMs: number | undefined;
  };
  readonly clusters: readonly {
    readonly name: string;
    readonly members: readonly { readonly name: string; readonly state: string; readonly load: number }[];
  }[];
  readonly sessions: readonly FrontendSession[];
  readonly logins: { readonly ok: number; readonly failed: number; readonly refused: number };
  readonly queue: {
    readonly messages: number;
    readonly oldestAgeMs: number;
    readonly delivered: number;
    readonly deferred: number;
    readonly bounced: number;
  };
  /** Connections to members. */
  readonly links?: readonly LinkUse[];
  /** Values in the entry of its subset that are refused. */
  readonly settingsRefused?: number;
  /** What it shows its clients, and why files that have changed are not used. */
  readonly certificates?: {
    readonly shown: readonly { readonly names: string; readonly leftMs: number }[];
    readonly refused: string | undefined;
  };
  /** The processes that serve it: the one that accepts, and earlier ones with sessions left. Missing where it cannot be restarted without a break. */
  readonly processes?: readonly FrontendProcess[];
}

/** A process that serves sessions of a frontend. */
export interface FrontendProcess {
  readonly pid: number;
  readonly version: string;
  /** Wall clock. */
  readonly startedAtMs: number;
  readonly state: 'serving' | 'leaving';
  /** Logged in. */
  readonly sessions: number;
  /** Clients connected, logged in or not. */
  readonly connections: number;
  /** leaving: until the rest hears its bye. */
  readonly leftMs?: number | undefined;
}

/** A frontend that goes on in another process. */
export interface RestartReport {
  /** Frontends of the process; all go together. */
  readonly frontends: readonly string[];
  readonly from: { readonly pid: number; readonly version: string; readonly connections: number };
  readonly to: { readonly pid: number; readonly version: string };
  /** Time that the old process's sessions have to end by themselves. */
  readonly deadlineMs: number;
  /** Until the new process accepted. */
  readonly tookMs: number;
}

/** What one frontend holds against addresses and accounts. */
export interface GuardReport {
  readonly frontend: string;
  readonly subset: string;
  /** What operators decided. */
  readonly rules: readonly {
    readonly range: string;
    readonly verdict: string;
    readonly reason: string;
    readonly untilMs: number;
    /** The frontend that took the order. */
    readonly setAt?: string;
  }[];
  /** Failed logins as they count now, most first. */
  readonly entries: readonly {
    readonly kind: string;
    readonly key: string;
    readonly failures: number;
    readonly lastFailureMsAgo: number;
    /** Of them, those that other frontends of the subset have counted. */
    readonly elsewhere?: readonly { readonly frontend: string; readonly failures: number }[];
  }[];
  /** Frontends that are told of all this; missing where the subset shares nothing. */
  readonly peers?: readonly SharingPeer[];
  /** Connections now, where one address was asked for. */
  readonly connections: number | undefined;
  /** What becomes of the address or account that was asked for, and why. */
  readonly verdict: string | undefined;
}

/** What a frontend runs with, and where each value comes from. */
export interface FrontendSettings {
  readonly frontend: string;
  readonly subset: string;
  /** DN of the subset's entry in the directory; missing where it has none. */
  readonly entry: string | undefined;
  readonly settings: readonly {
    readonly setting: string;
    readonly value: number;
    readonly origin: 'node file' | 'subset' | 'default';
  }[];
  /** Values of the entry that are none. */
  readonly refused: readonly {
    readonly entry: string;
    readonly seen: string;
    readonly expected: string;
    /** The last good value, which holds on. */
    readonly stays: number | undefined;
  }[];
}

/** Another frontend of the subset, which is told of penalties. */
export interface SharingPeer {
  readonly name: string;
  readonly isConnected: boolean;
  readonly lastError: string | undefined;
}

/** One live client session on a frontend, after login. */
export interface FrontendSession {
  readonly sessionId: string;
  readonly protocol: string;
  readonly account: string;
  readonly clientAddress: string;
  readonly cluster: string;
  readonly member: string;
  readonly startedAtMs: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Sessions that a frontend has ended at an operator's word. */
export interface KickReport {
  readonly frontend: string;
  readonly subset: string;
  readonly ended: number;
  /** Their ids, the first 200. */
  readonly sessions: readonly string[];
}

/** How a frontend would route an address now, step by step: the heart of `archipelago user why`. */
export interface RouteExplanation {
  readonly address: string;
  readonly frontend: string;
  readonly subset: string;
  readonly steps: readonly { readonly what: string; readonly found: string }[];
  readonly verdict: 'routed' | 'unknown-account' | 'unavailable';
  readonly uuid: string | undefined;
  readonly hostServer: string | undefined;
  readonly member: string | undefined;
  /** Why this member: had the account open lately, least loaded, only one up. */
  readonly memberReason: string | undefined;
}
