/**
 * Sessions that have come to rest here and go on at another member: their state, until that member collects it. A ticket is good for
 * `ticketMs`, for the frontend whose session it is, and may be collected again: the first to collect may fail to open the account.
 */
import type { AccountUuid } from '#common/account-name.ts';
import { type Clock, sleep } from '#common/clock.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { Random } from '#common/random.ts';

/** Life of a ticket, milliseconds: longer than a frontend tries. */
export const ticketMs = 45_000;
/** Sessions parked at a time; beyond, the oldest is given up and its client connects again. */
export const parkedMax = 50_000;
/** Largest state, octets of JSON: it must fit into one answer on the link. */
export const stateBytesMax = 900_000;

/**
 * What a session is parked as. A member of an earlier release would begin a POP3 session anew, with other numbers than the client knows; it refuses a
 * service of this name.
 */
export function parkedAs(service: string): string {
  return service === 'pop3' ? 'pop3-maildrop' : service;
}

/** A session at rest. */
export interface ParkedSession {
  readonly uuid: AccountUuid;
  readonly service: string;
  readonly state: object;
}

interface Kept extends ParkedSession {
  readonly frontend: string;
  readonly untilMs: number;
  isCollected: boolean;
}

/** See the header of this file. */
export class Handovers {
  readonly #clock: Clock;
  readonly #random: Random;
  /** In order of time. */
  readonly #parked = new Map<string, Kept>();

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Parks a state and gives its ticket. */
  park(uuid: AccountUuid, frontend: string, service: string, state: object): string {
    const nowMs = this.#clock.monotonicMs();
    for (const [ticket, { untilMs }] of this.#parked) {
      if (untilMs > nowMs && this.#parked.size < parkedMax) break;
      this.#parked.delete(ticket);
    }
    const ticket = this.#random.bytes(16).toString('base64url');
    this.#parked.set(ticket, { uuid, frontend, service, state, untilMs: nowMs + ticketMs, isCollected: false });
    return ticket;
  }

  /** Throws `LINK_NOT_HERE` when the ticket is not, or no longer, good. */
  collect(ticket: string, frontend: string): ParkedSession {
    const kept = this.#parked.get(ticket);
    if (kept === undefined || kept.frontend !== frontend || kept.untilMs <= this.#clock.monotonicMs()) {
      throw new PlatformError('LINK_NOT_HERE', 'no such session was handed over here, or too long ago');
    }
    kept.isCollected = true;
    return { uuid: kept.uuid, service: kept.service, state: kept.state };
  }

  /** Resolves when every session has been collected once, at the latest after `limitMs`. */
  async collected(limitMs: number): Promise<void> {
    const deadlineMs = this.#clock.monotonicMs() + limitMs;
    while ([...this.#parked.values()].some(({ isCollected }) => !isCollected) && this.#clock.monotonicMs() < deadlineMs) {
      await sleep(this.#clock, 20);
    }
  }
}
