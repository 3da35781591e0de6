/**
 * Who is Controller, as one member sees it. Pure: events in, effects out; controller.ts performs them, the simulator brings its own driver.
 *
 *              lease taken             term claimed              members asked
 *   backup ───────────────► claiming ───────────────► collecting ──────────────► leading
 *      ▲                        │                         │                         │
 *      └────────────────────────┴─────────────────────────┴─────────────────────────┘
 *        term lost to another, lease lost, lease and members silent for a lease, a higher term seen, drain, stop
 *
 * The lease says who should try; the term, created once in shared storage, says who may. A Controller whose coordinator is silent goes
 * on as long as every active member acknowledges its term directly; members refuse any lower term, so two that believe they lead cannot
 * both be obeyed by one member.
 */

/** Names of the states above. */
export const electionStates = {
  backup: 'backup',
  claiming: 'claiming',
  collecting: 'collecting',
  leading: 'leading',
  stopped: 'stopped',
} as const;
export type ElectionStateName = keyof typeof electionStates;

/** What a member knows of the election. */
export interface Election {
  readonly state: ElectionStateName;
  /** Highest term accepted, own or another's; never goes down. */
  readonly term: number;
  /** Until when this member may act as Controller; this process's monotonic clock. */
  readonly untilMs: number;
}

/** What happened. Times are this process's monotonic clock. */
export type ElectionEvent =
  | { readonly type: 'heartbeat'; readonly nowMs: number }
  /** The coordinator answered; `askedAtMs` is when it was asked, which is what the lease counts from. */
  | { readonly type: 'lease'; readonly isTaken: boolean; readonly askedAtMs: number }
  /** Every active member acknowledged this term when asked directly. */
  | { readonly type: 'acknowledged'; readonly term: number; readonly askedAtMs: number }
  /** The claim's outcome; `term` is the term tried, or one found higher. */
  | { readonly type: 'claim'; readonly isMine: boolean; readonly term: number }
  | { readonly type: 'claim-failed' }
  | { readonly type: 'collected'; readonly term: number }
  /** A message carried a term. */
  | { readonly type: 'term-seen'; readonly term: number }
  /** This member drains: it gives up the lead, and may take it again. */
  | { readonly type: 'yield' }
  | { readonly type: 'stop' };

/** What is to be done. */
export type ElectionEffect =
  | 'take-lease'
  | 'release-lease'
  | 'claim-term'
  /** Ask all members which accounts they have open, then report `collected`. */
  | 'collect'
  /** Ask all active members directly, then report `acknowledged` if all did. */
  | 'ask-members'
  | 'lead'
  | 'step-down';

/** A member at its start; `term` is the highest found in storage. */
export function newElection(term: number): Election {
  return { state: 'backup', term, untilMs: 0 };
}

/** One step. `leaseMs` is the lease's length, longer than a heartbeat. */
export function stepElection(election: Election, event: ElectionEvent, leaseMs: number): { election: Election; effects: ElectionEffect[] } {
  const { state } = election;
  const isActing = state === 'claiming' || state === 'collecting' || state === 'leading';
  switch (event.type) {
    case 'heartbeat':
      if (state === 'stopped') return { election, effects: [] };
      if (!isActing) return { election, effects: ['take-lease'] };
      if (event.nowMs >= election.untilMs) return stepDown(election, []);
      // Half of the lease has gone without an answer of the coordinator: the members' word counts as well.
      return { election, effects: event.nowMs >= election.untilMs - leaseMs / 2 ? ['take-lease', 'ask-members'] : ['take-lease'] };

    case 'lease':
      if (state === 'backup' && event.isTaken) {
        return { election: { ...election, state: 'claiming', untilMs: event.askedAtMs + leaseMs }, effects: ['claim-term'] };
      }
      if (state === 'stopped') return { election, effects: event.isTaken ? ['release-lease'] : [] };
      if (!isActing) return { election, effects: [] };
      if (!event.isTaken) return stepDown(election, []);
      return { election: { ...election, untilMs: Math.max(election.untilMs, event.askedAtMs + leaseMs) }, effects: [] };

    case 'acknowledged':
      if ((state !== 'collecting' && state !== 'leading') || event.term !== election.term) return { election, effects: [] };
      return { election: { ...election, untilMs: Math.max(election.untilMs, event.askedAtMs + leaseMs) }, effects: [] };

    case 'claim': {
      // A claim of before a step-down, answered late: whoever acts by now acts under a lower term, and has seen a higher one.
      if (state !== 'claiming') return stepElection(election, { type: 'term-seen', term: event.term }, leaseMs);
      const term = Math.max(election.term, event.term);
      if (!event.isMine || event.term < election.term) return stepDown({ ...election, term }, ['release-lease']);
      return { election: { ...election, state: 'collecting', term }, effects: ['collect'] };
    }

    case 'claim-failed':
      return state === 'claiming' ? stepDown(election, ['release-lease']) : { election, effects: [] };

    case 'collected':
      if (state !== 'collecting' || event.term !== election.term) return { election, effects: [] };
      return { election: { ...election, state: 'leading' }, effects: ['lead'] };

    case 'term-seen':
      if (event.term <= election.term) return { election, effects: [] };
      // While claiming, the term is not this member's yet: what was seen is only the floor of what it may claim.
      if (state === 'collecting' || state === 'leading') return stepDown({ ...election, term: event.term }, ['release-lease']);
      return { election: { ...election, term: event.term }, effects: [] };

    case 'yield':
      return isActing ? stepDown(election, ['release-lease']) : { election, effects: [] };

    case 'stop': {
      const stopped: Election = { ...election, state: 'stopped', untilMs: 0 };
      return { election: stopped, effects: isActing ? ['step-down', 'release-lease'] : [] };
    }
  }
}

function stepDown(election: Election, more: ElectionEffect[]): { election: Election; effects: ElectionEffect[] } {
  return { election: { ...election, state: 'backup', untilMs: 0 }, effects: ['step-down', ...more] };
}
